"""Statuses, and how one probe's result changes them. (pure)

Follows the reference's classification (401/403 are a configuration error, 429 rests the endpoint), with
`check_interval` honoured and busy and warming taking light traffic.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What we believe of an endpoint."""

    HEALTHY = "healthy"
    BUSY = "busy"
    WARMING = "warming"
    OFFLINE = "offline"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    CONFIG_ERROR = "config_error"
    RATE_LIMITED = "rate_limited"


# Share of traffic by status; a status that is not here gets none.
STATUS_WEIGHTS: dict[Status, float] = {Status.HEALTHY: 1.0, Status.BUSY: 0.3, Status.WARMING: 0.1}
ROUTABLE = frozenset(STATUS_WEIGHTS)


class OperatorState(StrEnum):
    """What the operator wants of an endpoint."""

    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"
