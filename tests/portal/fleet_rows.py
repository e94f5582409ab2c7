"""Endpoints as a prober would have left them, and the snapshot made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from endpoints import loading
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ProberLease
from tests.endpoints.desk import make_endpoint


def lease(seconds: float = 10) -> None:
    """A prober that is alive."""
    now = timezone.now()
    ProberLease.objects.create(pk=1, holder="t", renewed_at=now, expires_at=now + timedelta(seconds=seconds))


def endpoint(name: str, *models: str, status: str = "healthy", **values: Any) -> Endpoint:
    """An endpoint with its health and models; keywords of EndpointHealth go there."""
    now = timezone.now()
    health = {k: values.pop(k) for k in ("latency_ms", "last_error", "next_check") if k in values}
    row = make_endpoint(name=name, **values)
    health.setdefault("next_check", now + timedelta(seconds=5))
    EndpointHealth.objects.create(endpoint=row, status=status, last_checked=now, **health)
    DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=row, name=model) for model in models)
    return row


def load_now() -> None:
    """Build this process's snapshot, inside the transaction of a test: refresh() would end its connection.

    What an earlier test left is forgotten first: an old health would warn that the picture is not being renewed.
    """
    loading.forget()
    loading._loader.snapshot = loading._loader._build(1)
