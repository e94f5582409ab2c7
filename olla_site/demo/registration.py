"""The demo's endpoints in the tables: clearly marked, renewed at each start, removed by `demo --clean`."""

from __future__ import annotations

from django.db import DatabaseError, connection, transaction

from endpoints.health import OperatorState, Status
from endpoints.models import Endpoint, EndpointHealth
from endpoints.operations import Ask, ask_prober
from olla_site.demo.children import ChildPlan

TAG = "demo"
SHARED_MODEL = "demo-mini:1b"
PLANS = (
    ChildPlan("demo-ollama", "ollama", ("demo-llama:8b", SHARED_MODEL, "demo-embed:latest")),
    ChildPlan("demo-openai", "openai", ("demo-gpt", SHARED_MODEL, "demo-audio")),
)
_NOTES = "Added by `manage.py demo`: a demo backend without a model. `manage.py demo --clean` removes it."


class NameTakenError(Exception):
    """An endpoint of the operator's own has a name the demo uses."""


def register(plan: ChildPlan, url: str) -> None:
    """Add the endpoint, or give it its new address, and have it probed at once. Raises NameTakenError."""
    with transaction.atomic():
        existing = Endpoint.objects.filter(name=plan.name).first()
        if existing is not None and existing.tags != TAG:
            raise NameTakenError(f"An endpoint of your own is called {plan.name}. Rename it, then start the demo.")
        endpoint, _ = Endpoint.objects.update_or_create(
            name=plan.name,
            defaults={
                "url": url,
                "backend_type": plan.kind,
                "tags": TAG,
                "notes": _NOTES,
                "state": OperatorState.ACTIVE.value,
            },
        )
        ask_prober([endpoint.pk], [Ask.PROBE, Ask.DISCOVERY])


def are_found() -> bool:
    """Whether the prober has found every demo endpoint healthy and its models listed. For another thread."""
    try:
        healthy = EndpointHealth.objects.filter(status=Status.HEALTHY.value, models_checked__isnull=False)
        found = set(healthy.values_list("endpoint__name", flat=True))
    except DatabaseError:
        return False
    finally:
        connection.close()
    return {plan.name for plan in PLANS} <= found


def remove() -> int:
    """Delete the demo's endpoints with their health and models; how many there were."""
    ours = Endpoint.objects.filter(name__in=[plan.name for plan in PLANS], tags=TAG)
    count: int = ours.count()
    ours.delete()
    return count
