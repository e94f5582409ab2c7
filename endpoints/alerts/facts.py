"""What the tables tell of endpoints: which are down, and which are gone."""

from __future__ import annotations

from endpoints.alerts.judging import AlertKind, Fact
from endpoints.health import OperatorState, Status, state_now
from endpoints.models import AlertState, Endpoint
from endpoints.records import maintenance_window

FORGET_EVERY = 3600.0  # seconds
_MOST_AT_ONCE = 500
DOWN = frozenset({Status.OFFLINE, Status.UNHEALTHY, Status.CONFIG_ERROR})


def look_at_endpoints(now: float) -> list[Fact]:
    """One fact for each endpoint; muted while an operator has taken it out, or nobody has looked yet. Blocking."""
    return [
        _judge_endpoint(endpoint, now)
        for endpoint in Endpoint.objects.filter(health__isnull=False).select_related("health")
    ]


def _judge_endpoint(endpoint: Endpoint, now: float) -> Fact:
    status = Status(endpoint.health.status)
    state = state_now(OperatorState(endpoint.state), maintenance_window(endpoint), now)
    is_bad = status in DOWN
    reason = f": {endpoint.health.last_error}" if is_bad and endpoint.health.last_error else ""
    text = f"Endpoint {endpoint.name} is {'down' if is_bad else 'back'} ({status}){reason}"
    return Fact(
        AlertKind.ENDPOINT,
        endpoint.name,
        is_bad,
        text,
        muted=state is not OperatorState.ACTIVE or status is Status.UNKNOWN,
    )


def forget_gone() -> int:
    """Let go of what was told of endpoints that are gone; how many rows. Blocking; raises DatabaseError."""
    names = list(Endpoint.objects.values_list("name", flat=True))
    kept = {Fact(kind, name, False, "").key for kind in (AlertKind.ENDPOINT, AlertKind.BREAKER) for name in names}
    told = AlertState.objects.exclude(key__startswith=f"{AlertKind.PROBER}:").exclude(
        key__startswith=f"{AlertKind.REQUEST_LOG}:"
    )
    gone = [pk for pk, key in told.values_list("pk", "key") if key not in kept]
    return AlertState.objects.filter(pk__in=gone[:_MOST_AT_ONCE]).delete()[0]
