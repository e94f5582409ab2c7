"""In which order a decision's endpoints would be tried, without trying any. (pure)

    tries = plan_tries(decision.tiers, policy, standing)

The same choices as `proxy.forwarding` makes, on counters that are read and never moved: who has room, whom the
session recalls, whom the policy picks at the position its turn has come to. It is the order if every try fails;
nobody knows how other requests move counters meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from endpoints.snapshot import EndpointRecord
from proxy.selection import Policy, choose_endpoint, keep_loaded

Candidates = Sequence[EndpointRecord]
# A request that has failed so often is not saved by the next one, and each try looks at all that are left.
MOST_TRIES = 32


class Why(StrEnum):
    """What puts an endpoint at its place in the order."""

    POLICY = "policy"
    LOADED = "loaded_first"  # the policy's among those that have the model in memory
    SESSION = "session"  # the conversation is pinned to it
    QUEUE = "queue"  # it is full: whichever of those that wait for has room first


@dataclass(frozen=True, slots=True)
class Standing:
    """What the choice depends on, as it stands now."""

    in_flight: Mapping[int, int] = field(default_factory=dict)
    has_room: Callable[[int], bool] = lambda _: True
    next_position: Callable[[Candidates], int] = lambda _: 1  # of the policy's turns among these candidates
    session_endpoint: int | None = None
    loaded: Collection[int] = ()  # those that have the model in memory, where others would have to load it
    loaded_limit: int = 0


@dataclass(frozen=True, slots=True)
class Try:
    """One try: `is_turn` says that the policy's turn decided, which every request moves on."""

    endpoint: EndpointRecord
    why: Why
    is_turn: bool = False


def plan_tries(
    tiers: Sequence[Candidates], policy: Policy, standing: Standing, most: int = MOST_TRIES
) -> list[Try]:
    """The order in which the endpoints of the tiers would be tried, the first `most` of them."""
    left = [list(tier) for tier in tiers]
    taken: Counter[tuple[int, ...]] = Counter()
    tries: list[Try] = []
    while any(left) and len(tries) < most:
        recalled = standing.session_endpoint if not tries else None
        chosen = _choose(left, policy, standing, recalled, taken)
        if chosen is None:
            waited_for = [Try(each, Why.QUEUE) for tier in left for each in tier]
            return [*tries, *waited_for][:most]
        tries.append(chosen)
        for tier in left:
            if chosen.endpoint in tier:
                tier.remove(chosen.endpoint)
                break
    return tries


def _choose(
    left: list[list[EndpointRecord]],
    policy: Policy,
    standing: Standing,
    recalled: int | None,
    taken: Counter[tuple[int, ...]],
) -> Try | None:
    """The next one among those that have room; None when nobody has."""
    pinned = next((each for tier in left for each in tier if each.id == recalled), None)
    if pinned is not None and standing.has_room(pinned.id):
        return Try(pinned, Why.SESSION)
    for tier in left:
        roomy = [each for each in tier if standing.has_room(each.id)]
        if not roomy:
            continue
        ready = keep_loaded(roomy, standing.loaded, standing.in_flight, standing.loaded_limit)
        why = Why.LOADED if len(ready) < len(roomy) else Why.POLICY
        roomy = list(ready)
        key = (roomy[0].id, roomy[-1].id, len(roomy))  # as `Live` counts turns
        position = standing.next_position(roomy) + taken[key]
        taken[key] += 1
        chosen = choose_endpoint(policy, roomy, standing.in_flight, position)
        return Try(chosen, why, is_turn=_depends_on_turn(policy, roomy, standing, position, chosen))
    return None


def _depends_on_turn(
    policy: Policy, roomy: Candidates, standing: Standing, position: int, chosen: EndpointRecord
) -> bool:
    """Whether another position could have brought another endpoint."""
    if policy is Policy.LEAST_CONNECTIONS:
        return choose_endpoint(policy, roomy, standing.in_flight, position + 1) is not chosen
    if policy is Policy.PRIORITY:
        return sum(each.priority == chosen.priority for each in roomy) > 1
    return len(roomy) > 1
