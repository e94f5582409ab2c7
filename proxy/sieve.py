"""The stages that narrow the endpoints of a request down to those that may answer it. (pure)

Each stage takes endpoints and returns the ones it keeps; a stage is named by the reason it drops others for.
`route` runs them over the prepared candidates, `trace` over every endpoint there is: the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from endpoints.health import ROUTABLE, OperatorState, Status
from endpoints.rules import Rule, RuleAction
from endpoints.snapshot import UNIVERSAL, EndpointRecord
from proxy.guards import is_guarded, is_opened
from proxy.inbound import Inbound


class DropReason(StrEnum):
    """Why an endpoint may not answer a request."""

    OTHER_KIND = "other_kind"
    GUARDED_PATH = "guarded_path"
    RULE = "rule"
    MODEL_MISSING = "model_missing"
    PATH = "path"
    CAPABILITY = "capability"
    OPERATOR_STATE = "operator_state"
    STATUS = "status"
    SEEN_FAILING = "seen_failing"
    BREAKER_OPEN = "breaker_open"
    RESTING = "resting"
    RATE_LIMITED = "rate_limited"


class LiveView(msgspec.Struct, frozen=True):
    """What this process knows beyond the snapshot at one moment (`proxy.live` fills it)."""

    now: float  # seconds since the epoch
    prober_seen: float
    demoted: Mapping[int, float] = msgspec.field(default_factory=dict)  # endpoint id -> seen failing at
    held_out: Mapping[int, DropReason] = msgspec.field(default_factory=dict)  # breaker, rest, rate
    opened_guards: tuple[str, ...] = ()
    dice: float = 0.0  # 0 to below 1, thrown once a request, for percentage splits


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the stages see it: with the rule that applies and the model each endpoint would be sent."""

    inbound: Inbound
    view: LiveView
    rule: Rule | None = None
    # Endpoint id -> its own name for the model asked for; None when the request names no model.
    native_names: Mapping[int, str] | None = None
    capabilities: Collection[str] = ()


_ACTIVE = OperatorState.ACTIVE
_HEALTHY = Status.HEALTHY

Endpoints = tuple[EndpointRecord, ...]
Stage = Callable[[Endpoints, Question], Endpoints]


def keep_unguarded(endpoints: Endpoints, question: Question) -> Endpoints:
    """Drop endpoints whose kind guards the path that would be sent."""
    alike = {_guarded_as(each): each for each in endpoints}  # endpoints are many, their kinds few
    guarded = {key for key, each in alike.items() if _guards(each, question)}
    if not guarded:
        return endpoints
    return tuple([each for each in endpoints if _guarded_as(each) not in guarded])


def _guarded_as(endpoint: EndpointRecord) -> tuple[str, str | None, bool]:
    """What of an endpoint its guards depend on."""
    return endpoint.backend_type, endpoint.base_path if endpoint.preserve_path else None, endpoint.uses_own_key


def _guards(endpoint: EndpointRecord, question: Question) -> bool:
    return not is_opened(endpoint.backend_type, question.view.opened_guards) and is_guarded(
        endpoint.profile,
        question.inbound.method,
        question.inbound.path,
        base=endpoint.base_path if endpoint.preserve_path else "",
        own_key=endpoint.uses_own_key,
    )


def keep_allowed(endpoints: Endpoints, question: Question) -> Endpoints:
    """Apply a restrict rule."""
    rule = question.rule
    if rule is None or rule.action is not RuleAction.RESTRICT:
        return endpoints
    return tuple([each for each in endpoints if rule.names(each.id, each.tags)])


def keep_holders(endpoints: Endpoints, question: Question) -> Endpoints:
    """Keep endpoints that list the model."""
    names = question.native_names
    return endpoints if names is None else tuple([each for each in endpoints if each.id in names])


def keep_fitting(endpoints: Endpoints, question: Question) -> Endpoints:
    """On the universal route, keep kinds that serve the path; all of them when none does."""
    if question.inbound.prefix != UNIVERSAL:
        return endpoints
    kinds = {each.profile.name: each.profile for each in endpoints}
    serving = {name for name, kind in kinds.items() if kind.serves(question.inbound.decoded_path)}
    if len(serving) in (0, len(kinds)):
        return endpoints
    return tuple([each for each in endpoints if each.profile.name in serving])


def keep_capable(endpoints: Endpoints, question: Question) -> Endpoints:
    """Drop endpoints that say their copy of the model lacks what the request needs; all stay when none has it."""
    if not question.capabilities or question.native_names is None:
        return endpoints
    capable = tuple(each for each in endpoints if _is_capable(each, question))
    return capable or endpoints


def _is_capable(endpoint: EndpointRecord, question: Question) -> bool:
    names = question.native_names or {}
    for model in endpoint.models:
        if model.name == names.get(endpoint.id) and model.capabilities:
            return set(question.capabilities) <= set(model.capabilities)
    return True  # says nothing about it


def keep_active(endpoints: Endpoints, question: Question) -> Endpoints:
    """Drop endpoints an operator took out, for now or for the window this moment lies in."""
    now = question.view.now
    return tuple([
        each for each in endpoints
        if each.state is _ACTIVE and (each.maintenance is None or each.state_at(now) is _ACTIVE)
    ])  # fmt: skip


def keep_healthy(endpoints: Endpoints, _question: Question) -> Endpoints:
    """Drop endpoints whose status takes no traffic."""
    # To hash an enumeration's member costs more than all the rest, so the usual one is compared first.
    return tuple([each for each in endpoints if each.status is _HEALTHY or each.status in ROUTABLE])


def keep_not_failing(endpoints: Endpoints, question: Question) -> Endpoints:
    """Drop endpoints seen failing here since the prober last looked."""
    demoted = question.view.demoted
    if not demoted:
        return endpoints
    return tuple([each for each in endpoints if each.id not in demoted or not is_demoted(each, demoted)])


def is_demoted(endpoint: EndpointRecord, demoted: Mapping[int, float]) -> bool:
    """Whether an endpoint was seen failing at a time the prober has not looked since."""
    seen = demoted.get(endpoint.id)
    return seen is not None and (endpoint.last_checked is None or endpoint.last_checked <= seen)


def _keep_not_held(reason: DropReason) -> Stage:
    def keep(endpoints: Endpoints, question: Question) -> Endpoints:
        held = question.view.held_out
        return tuple([each for each in endpoints if held.get(each.id) is not reason]) if held else endpoints

    return keep


# What decides who could answer at all, whatever state it is in ...
ELIGIBILITY: tuple[tuple[DropReason, Stage], ...] = (
    (DropReason.GUARDED_PATH, keep_unguarded),
    (DropReason.RULE, keep_allowed),
    (DropReason.MODEL_MISSING, keep_holders),
    (DropReason.PATH, keep_fitting),
    (DropReason.CAPABILITY, keep_capable),
)
# The same for endpoints that were found by the model they have.
OF_HOLDERS = tuple(stage for stage in ELIGIBILITY if stage[0] is not DropReason.MODEL_MISSING)
# ... and who can take a request now.
AVAILABILITY: tuple[tuple[DropReason, Stage], ...] = (
    (DropReason.OPERATOR_STATE, keep_active),
    (DropReason.STATUS, keep_healthy),
    (DropReason.SEEN_FAILING, keep_not_failing),
    (DropReason.BREAKER_OPEN, _keep_not_held(DropReason.BREAKER_OPEN)),
    (DropReason.RESTING, _keep_not_held(DropReason.RESTING)),
    (DropReason.RATE_LIMITED, _keep_not_held(DropReason.RATE_LIMITED)),
)


def sift(
    endpoints: Endpoints,
    question: Question,
    stages: tuple[tuple[DropReason, Stage], ...],
    drops: dict[DropReason, int],
) -> Endpoints:
    """Run stages in order; `drops` is added how many each reason cost."""
    for reason, stage in stages:
        kept = stage(endpoints, question)
        if len(kept) != len(endpoints):
            drops[reason] = drops.get(reason, 0) + len(endpoints) - len(kept)
            endpoints = kept
    return endpoints


def find_favoured(endpoints: Endpoints, rule: Rule | None, view: LiveView) -> Endpoints:
    """Those that are tried before the others: what a prefer rule names, or the side a split rule's dice fell on.

    The others stay, since neither rule is a fence: a share whose endpoints are down is answered by the rest.
    """
    if rule is None or rule.action not in (RuleAction.PREFER, RuleAction.SPLIT):
        return endpoints
    named = rule.action is RuleAction.PREFER or view.dice * 100 < rule.percentage
    return tuple([each for each in endpoints if rule.names(each.id, each.tags) is named])


def find_stale(endpoints: Endpoints, view: LiveView) -> Endpoints:
    """Those whose status is too old to be believed."""
    quiet = (view.now - view.prober_seen) / 3  # while the prober is heard, one comparison each
    return tuple([
        each for each in endpoints if each.check_interval < quiet and each.is_stale(view.now, view.prober_seen)
    ])  # fmt: skip


def is_usable(endpoint: EndpointRecord, view: LiveView) -> bool:
    """Whether an endpoint takes requests now."""
    return (
        endpoint.takes_traffic(view.now)
        and not is_demoted(endpoint, view.demoted)
        and endpoint.id not in view.held_out
    )
