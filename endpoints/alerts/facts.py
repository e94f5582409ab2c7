"""What the tables tell of endpoints: which are down."""

from __future__ import annotations

from endpoints.alerts.judging import AlertKind, Fact
from endpoints.health import OperatorState, Status, state_now
from endpoints.models import Endpoint
from endpoints.records import maintenance_window

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
