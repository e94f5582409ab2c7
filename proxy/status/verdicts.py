"""What the numbers mean: how the whole installation does, and what is the matter with an endpoint. (pure)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from endpoints.health import Status


class SystemStatus(StrEnum):
    """How the installation does."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    CRITICAL = "critical"


# Shares below which things are bad: of healthy endpoints, and of requests that succeed.
_CRITICAL_ENDPOINTS, _CRITICAL_SUCCESS = 0.5, 0.90
_DEGRADED_ENDPOINTS, _DEGRADED_SUCCESS = 0.8, 0.95
ENOUGH_REQUESTS = 10  # before that a rate says little
MANY_FAILURES = 3  # probes in a row
SLOW_MILLISECONDS = 5000
_DOWN = (Status.OFFLINE, Status.UNHEALTHY)
# Limits beyond which refusals are worth a look.
MANY_VIOLATIONS, MANY_CLIENTS = 100, 10


def judge_system(healthy: int, total: int, success: float | None) -> SystemStatus:
    """The verdict on `healthy` of `total` endpoints; `success` is the share of requests, None without any."""
    if not total:
        return SystemStatus.CRITICAL
    share, success = healthy / total, 1.0 if success is None else success
    if share < _CRITICAL_ENDPOINTS or success < _CRITICAL_SUCCESS:
        return SystemStatus.CRITICAL
    if share < _DEGRADED_ENDPOINTS or success < _DEGRADED_SUCCESS:
        return SystemStatus.DEGRADED
    return SystemStatus.HEALTHY


def judge_security(violations: int, clients: int) -> str:
    """`elevated` when many requests were refused, or many clients."""
    return "elevated" if violations > MANY_VIOLATIONS or clients > MANY_CLIENTS else "normal"


@dataclass(frozen=True, slots=True)
class EndpointSigns:
    """What an endpoint is judged by; `success` is None without any requests."""

    status: Status
    failed_probes: int
    requests: int
    success: float | None
    mean_latency: float | None

    @property
    def often_fails(self) -> bool:
        """Whether too many of enough requests fail."""
        return self.requests > ENOUGH_REQUESTS and self.success is not None and self.success < _CRITICAL_SUCCESS


def list_issues(signs: EndpointSigns) -> list[str]:
    """Everything that is the matter with an endpoint."""
    found = {
        "consecutive failures": signs.failed_probes > MANY_FAILURES,
        "low success rate": signs.often_fails,
        "high latency": (signs.mean_latency or 0) > SLOW_MILLISECONDS,
        "unavailable": signs.status in _DOWN,
    }
    return [name for name, is_so in found.items() if is_so]


def name_issue(signs: EndpointSigns) -> str:
    """The one thing that is most the matter; empty when nothing is."""
    if signs.status in _DOWN:
        return "unavailable"
    if signs.failed_probes > MANY_FAILURES:
        return "unstable"
    return "low success rate" if signs.often_fails else ""
