"""What admin and portal tell of one endpoint, read from its row and health row."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from endpoints.credentials import read_access
from endpoints.health import OperatorState, Status, state_now
from endpoints.models import Endpoint, EndpointHealth
from endpoints.profiles import AUTO, PROFILES
from endpoints.records import maintenance_window
from endpoints.status_text import DISABLED_WHEN_DRAINED, DRAINING_TO_DISABLE, HealthFacts


def health_of(endpoint: Endpoint) -> EndpointHealth:
    """The health row of an endpoint, or an unsaved one of an endpoint never probed."""
    found: EndpointHealth | None = getattr(endpoint, "health", None)
    return found or EndpointHealth(endpoint=endpoint)


def config_problem(endpoint: Endpoint) -> str:
    """Why the stored credentials or CA file cannot be used; empty when they can."""
    return read_access(endpoint, os.environ).problem


def gather_facts(endpoint: Endpoint, prober_seen: datetime | None) -> HealthFacts:
    """What badge and reason are made of."""
    health = health_of(endpoint)
    return HealthFacts(
        status=Status(health.status),
        state=current_state(endpoint),
        last_error=health.last_error,
        next_check=health.next_check.timestamp(),
        check_interval=endpoint.check_interval,
        prober_seen=prober_seen.timestamp() if prober_seen else 0.0,
        probed=health.last_checked is not None,
        config_problem=config_problem(endpoint),
        state_reason=_explain_state(endpoint),
    )


def current_state(endpoint: Endpoint) -> OperatorState:
    """The operator state in force now, maintenance window included."""
    return state_now(OperatorState(endpoint.state), maintenance_window(endpoint), time.time())


def _explain_state(endpoint: Endpoint) -> str:
    state = OperatorState(endpoint.state)
    if state is OperatorState.ACTIVE and current_state(endpoint) is OperatorState.MAINTENANCE:
        until = endpoint.maintenance_until
        end = until.astimezone(UTC).strftime("until %Y-%m-%d %H:%M UTC") if until else "with no end set"
        return f"Maintenance {end}: it gets no requests."
    if endpoint.drain_then_disable:
        return {
            OperatorState.DRAINING: DRAINING_TO_DISABLE,
            OperatorState.DISABLED: DISABLED_WHEN_DRAINED,
        }.get(state, "")
    return ""


def kind_of(endpoint: Endpoint) -> str:
    """The type in force: the detected one for `auto`, once there is one."""
    if endpoint.backend_type != AUTO:
        return str(endpoint.backend_type)
    return health_of(endpoint).detected_type or AUTO


def describe_kind(endpoint: Endpoint) -> str:
    """The type for people, with what `auto` was detected as."""
    if endpoint.backend_type != AUTO:
        return str(endpoint.get_backend_type_display())
    detected = PROFILES.get(health_of(endpoint).detected_type)
    return f"{detected.title} (detected)" if detected else "not detected yet"
