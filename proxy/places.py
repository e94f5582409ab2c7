"""A place at an endpoint: chosen among those that have room, or waited for in line."""

from __future__ import annotations

import time
from collections.abc import Sequence

from endpoints import loading
from endpoints.conf import conf
from endpoints.rules import RuleAction
from endpoints.snapshot import EndpointRecord
from proxy.attempts import Attempt
from proxy.decision import Decision
from proxy.errors import ErrorCode, OllaError
from proxy.inbound import Inbound
from proxy.live import live, plan
from proxy.queueing import QueueError, QueueMoved, Slot
from proxy.routing import Refresh, route
from proxy.selection import Policy, choose_endpoint, keep_loaded
from proxy.stickiness import Visit

Tiers = list[list[EndpointRecord]]


async def take_place(
    tiers: Tiers, tried: set[int], decision: Decision, visit: Visit, inbound: Inbound
) -> Attempt | None:
    """A place at the best endpoint that has room; when none has, a wait in line. It goes from `tiers` to `tried`.

    The session's endpoint comes first, else the policy chooses, from those that have the model in memory while
    these are not too busy. None when the endpoint may not answer after all:
    much can happen while a request waits in line or for others. Raises OllaError(queue_full).
    """
    now = time.monotonic()
    slot = _take_at_once(tiers, decision, visit, now)
    has_waited = slot is None
    if slot is None:
        slot = await _wait_in_line(tiers, tried, decision, inbound)
        if slot is None:
            tiers.clear()  # other endpoints may answer by now, or none
            return None
    just_routed = not tried and not has_waited
    endpoint: EndpointRecord | None = _take_out(tiers, slot.endpoint_id)
    if not just_routed:
        endpoint = _as_it_is_now(inbound, slot.endpoint_id)
    attempt = None if endpoint is None else live.open_attempt(endpoint, slot)
    if endpoint is None or attempt is None:
        slot.release()
        if has_waited:
            tiers.clear()
        return None
    tried.add(endpoint.id)
    visit.settle(endpoint.id, now)
    return attempt


def have_room(tiers: Tiers) -> bool:
    """Whether any of the endpoints would take a request at once."""
    return any(live.queue.has_room(each.id) for tier in tiers for each in tier)


def _take_at_once(tiers: Tiers, decision: Decision, visit: Visit, now: float) -> Slot | None:
    # A session stays where it is as long as that may answer at all, whatever tier the dice put it in.
    pinned = visit.recall((each for tier in tiers for each in tier if live.queue.has_room(each.id)), now)
    if pinned is not None:
        return live.queue.try_take(pinned.id)
    for tier in tiers:
        roomy = [each for each in tier if live.queue.has_room(each.id)]
        if not roomy:
            continue
        slot = live.queue.try_take(_choose(roomy, decision).id)
        if slot is not None:
            return slot
    return None


def _choose(roomy: Sequence[EndpointRecord], decision: Decision) -> EndpointRecord:
    if decision.loaded:
        roomy = keep_loaded(roomy, decision.loaded, live.in_flight, conf().loaded_first_requests)
    if len(roomy) == 1:
        return roomy[0]
    return choose_endpoint(policy_of(decision), roomy, live.in_flight, live.next_cursor(roomy))


def policy_of(decision: Decision) -> Policy:
    """The policy a rule names, or the setting."""
    rule = decision.rule
    return Policy(rule.policy if rule and rule.action is RuleAction.POLICY else conf().load_balancer)


async def _wait_in_line(tiers: Tiers, tried: set[int], decision: Decision, inbound: Inbound) -> Slot | None:
    """A place that came free; None when the request would wait for other endpoints by now."""
    wanted = {each.id for tier in tiers for each in tier}

    def wanted_now() -> set[int]:
        found = {each.id for each in _route_again(inbound).candidates} - tried
        return found & wanted if decision.pinned else found

    since = time.monotonic()
    waited = inbound.record.queue_wait
    try:
        return await live.queue.wait(wanted, inbound.client, waited=waited, wanted_now=wanted_now)
    except QueueMoved:
        return None
    except QueueError as error:
        message = f"Every endpoint that could answer is full, and waiting did not help: {error}."
        raise OllaError(ErrorCode.QUEUE_FULL, message, headers=((b"Retry-After", b"1"),)) from error
    finally:
        inbound.record.queue_wait += time.monotonic() - since


def _take_out(tiers: Tiers, endpoint_id: int) -> EndpointRecord:
    for tier in tiers:
        for number, each in enumerate(tier):
            if each.id == endpoint_id:
                return tier.pop(number)
    raise LookupError(f"no candidate {endpoint_id}")


def _as_it_is_now(inbound: Inbound, endpoint_id: int) -> EndpointRecord | None:
    """The endpoint as the snapshot in force has it; None when it may not answer any more."""
    return next((each for each in _route_again(inbound).candidates if each.id == endpoint_id), None)


def _route_again(inbound: Inbound) -> Decision:
    return route(loading.current(), inbound, live.view(), plan(Refresh.DONE))
