"""What a client is told when no endpoint may answer: counts and reasons, never the names of endpoints. (pure)

A client need not know what stands behind this address; the admin's list and a trace name everyone.
"""

from __future__ import annotations

from collections import Counter

from endpoints.health import ROUTABLE, OperatorState
from endpoints.profiles import PREFIXES, PROFILES
from endpoints.snapshot import EndpointRecord
from proxy.errors import ErrorCode
from proxy.inbound import Inbound
from proxy.sieve import DropReason, Endpoints, LiveView, is_demoted

_LIVE_WORDS = {
    DropReason.BREAKER_OPEN: "failing",
    DropReason.RESTING: "asked for a rest",
    DropReason.RATE_LIMITED: "at their limit of requests",
}


def describe_nobody(prefix: str) -> tuple[ErrorCode, str]:
    """Nothing of the prefix's kind is configured."""
    if prefix in PREFIXES:
        return ErrorCode.NO_ENDPOINTS, f"No {PROFILES[PREFIXES[prefix]].title} endpoints are configured."
    return ErrorCode.NO_ENDPOINTS, "No endpoints are configured. Add one in the admin."


def describe_guarded(endpoint: EndpointRecord, inbound: Inbound) -> tuple[ErrorCode, str]:
    """Every endpoint that could answer guards the path."""
    code = ErrorCode.NOT_SUPPORTED if endpoint.profile.guard_status_501 else ErrorCode.FORBIDDEN_PATH
    return code, (
        f"{inbound.method} {inbound.decoded_path[:200]} changes or reveals a backend and is closed. "
        f"OLLA_OPEN_GUARDED_PATHS={endpoint.backend_type} opens it."
    )


def describe_unavailable(endpoints: Endpoints, prefix: str, view: LiveView) -> tuple[ErrorCode, str]:
    """There are endpoints, but none takes requests now: how many, and why."""
    kind = f"{PROFILES[PREFIXES[prefix]].title} " if prefix in PREFIXES else ""
    reasons = Counter(_why_out(each, view) for each in endpoints)
    if len(endpoints) == 1:
        message = f"The only {kind}endpoint cannot take requests now: {next(iter(reasons))}."
    else:
        shown = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        message = f"None of the {len(endpoints)} {kind}endpoints can take requests now: {shown}."
    return ErrorCode.NO_HEALTHY_ENDPOINTS, message


def _why_out(endpoint: EndpointRecord, view: LiveView) -> str:
    """Why an endpoint takes no requests, in a word or two; by the first reason routing would drop it for."""
    state = endpoint.state_at(view.now)
    if state is not OperatorState.ACTIVE:
        return "in maintenance" if state is OperatorState.MAINTENANCE else str(state)
    if endpoint.status not in ROUTABLE:
        return endpoint.status.replace("_", " ")
    held = view.held_out.get(endpoint.id)
    if is_demoted(endpoint, view.demoted) or held is None:
        return "failing"
    return _LIVE_WORDS.get(held, "not available")
