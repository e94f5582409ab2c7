"""Which endpoints may answer a request, and why. (pure)

    route(snapshot, inbound, view) -> Decision

A Decision is routed with its candidates, or rejected with the error to answer. Reasons are the words the
reference uses, since people grep for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from endpoints.profiles import PREFIXES, PROFILES
from endpoints.snapshot import UNIVERSAL, EndpointRecord, Snapshot
from proxy.errors import ErrorCode
from proxy.guards import is_guarded, is_opened
from proxy.inbound import Inbound


class Action(StrEnum):
    """What became of a request."""

    ROUTED = "routed"
    FALLBACK = "fallback"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class LiveView:
    """What this process knows beyond the snapshot at one moment (`proxy.live` fills it)."""

    now: float  # seconds since the epoch
    prober_seen: float
    demoted: Mapping[int, float] = field(default_factory=dict)  # endpoint id -> seen failing at
    opened_guards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of routing. `last_resort` are candidates to try when all others failed."""

    action: Action
    strategy: str = ""
    reason: str = ""
    candidates: tuple[EndpointRecord, ...] = ()
    last_resort: tuple[EndpointRecord, ...] = ()
    code: ErrorCode | None = None
    message: str = ""


def _reject(code: ErrorCode, message: str, *, strategy: str = "", reason: str = "") -> Decision:
    return Decision(Action.REJECTED, strategy, reason, code=code, message=message)


def route(snapshot: Snapshot, inbound: Inbound, view: LiveView) -> Decision:
    """Judge one request against one snapshot."""
    members = snapshot.by_prefix.get(inbound.prefix, ())
    if not members:
        return _nobody(inbound.prefix)
    unguarded = tuple(each for each in members if not _guards(each, inbound, view))
    if not unguarded:
        return _refuse_guarded(members[0], inbound)
    if inbound.model is None:
        return _route_any(unguarded, inbound, view)
    return _route_model(snapshot, unguarded, inbound, view)


def _nobody(prefix: str) -> Decision:
    if prefix == UNIVERSAL:
        return _reject(ErrorCode.NO_ENDPOINTS, "No endpoints are configured. Add one in the admin.")
    title = PROFILES[PREFIXES[prefix]].title
    return _reject(ErrorCode.NO_ENDPOINTS, f"No {title} endpoints are configured.")


def _guards(endpoint: EndpointRecord, inbound: Inbound, view: LiveView) -> bool:
    return not is_opened(endpoint.backend_type, view.opened_guards) and is_guarded(
        endpoint.profile,
        inbound.method,
        inbound.path,
        base=endpoint.base_path if endpoint.preserve_path else "",
        own_key=endpoint.uses_own_key,
    )


def _refuse_guarded(endpoint: EndpointRecord, inbound: Inbound) -> Decision:
    code = ErrorCode.NOT_SUPPORTED if endpoint.profile.guard_status_501 else ErrorCode.FORBIDDEN_PATH
    return _reject(
        code,
        f"{inbound.method} {inbound.decoded_path[:200]} changes or reveals a backend and is closed. "
        f"OLLA_OPEN_GUARDED_PATHS={endpoint.backend_type} opens it.",
    )


def _route_any(members: tuple[EndpointRecord, ...], inbound: Inbound, view: LiveView) -> Decision:
    """A request that names no model: every routable endpoint whose kind knows the path."""
    usable, last_resort = _split_usable(_fitting(members, inbound), view)
    if not usable and not last_resort:
        return _reject(ErrorCode.NO_HEALTHY_ENDPOINTS, _down_message(inbound, members))
    return Decision(Action.ROUTED, candidates=usable, last_resort=last_resort)


def _route_model(
    snapshot: Snapshot, members: tuple[EndpointRecord, ...], inbound: Inbound, view: LiveView
) -> Decision:
    """The strict strategy: only endpoints that list the model."""
    model = inbound.model or ""
    strategy = "strict"
    allowed = {each.id for each in members}
    holders = tuple(each for each in snapshot.with_model(inbound.prefix, model) if each.id in allowed)
    if not holders:
        if not any(each.model_names for each in members) and not _any_usable(members, view):
            return _reject(
                ErrorCode.NO_HEALTHY_ENDPOINTS, _down_message(inbound, members),
                strategy=strategy, reason="no_healthy_endpoints",
            )  # fmt: skip
        return _reject(
            ErrorCode.MODEL_NOT_FOUND,
            f"No endpoint here has the model {model[:200]!r}. See {_listing(inbound.prefix)} for what there is.",
            strategy=strategy, reason="model_not_found",
        )  # fmt: skip
    usable, last_resort = _split_usable(_fitting(holders, inbound), view)
    if not usable and not last_resort:
        return _reject(
            ErrorCode.MODEL_UNAVAILABLE,
            f"The model {model[:200]!r} is known, but no endpoint that has it can take requests now.",
            strategy=strategy, reason="model_unavailable",
        )  # fmt: skip
    return Decision(Action.ROUTED, strategy, "model_found", usable, last_resort)


def _fitting(members: tuple[EndpointRecord, ...], inbound: Inbound) -> tuple[EndpointRecord, ...]:
    """On the universal route, the endpoints whose kind serves the path; all of them when none does."""
    if inbound.prefix != UNIVERSAL:
        return members
    fitting = tuple(each for each in members if each.profile.serves(inbound.decoded_path))
    return fitting or members


def _split_usable(
    members: tuple[EndpointRecord, ...], view: LiveView
) -> tuple[tuple[EndpointRecord, ...], tuple[EndpointRecord, ...]]:
    """Endpoints that take traffic, and those whose status is too old to be believed."""
    usable: list[EndpointRecord] = []
    last_resort: list[EndpointRecord] = []
    for each in members:
        if not is_usable(each, view):
            continue
        (last_resort if each.is_stale(view.now, view.prober_seen) else usable).append(each)
    return tuple(usable), tuple(last_resort)


def is_usable(endpoint: EndpointRecord, view: LiveView) -> bool:
    """Whether an endpoint takes requests now: by its status and state, and not seen failing here since."""
    if not endpoint.accepts_traffic:
        return False
    seen = view.demoted.get(endpoint.id)
    return seen is None or (endpoint.last_checked is not None and endpoint.last_checked > seen)


def _any_usable(members: tuple[EndpointRecord, ...], view: LiveView) -> bool:
    return any(_split_usable(members, view))


def _down_message(inbound: Inbound, members: tuple[EndpointRecord, ...]) -> str:
    kind = "" if inbound.prefix == UNIVERSAL else f"{PROFILES[PREFIXES[inbound.prefix]].title} "
    states = sorted({f"{each.name}: {each.status}/{each.state}" for each in members})
    shown = ", ".join(states[:5]) + (", ..." if len(states) > 5 else "")
    return f"None of the {kind}endpoints can take requests now ({shown})."


def _listing(prefix: str) -> str:
    return f"/olla/{prefix}/v1/models"
