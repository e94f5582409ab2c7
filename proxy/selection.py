"""Choosing one endpoint among candidates: least-connections, priority, round-robin. (pure)

Every policy weighs an endpoint by its own weight times the weight of its status. Candidates come in the
snapshot's stable order; `cursor` is a counter that the caller advances once per pick.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from endpoints.health import STATUS_WEIGHTS
from endpoints.rules import Policy
from endpoints.snapshot import EndpointRecord

__all__ = ["Policy", "choose_endpoint", "keep_loaded", "weight_of"]

# The golden ratio as a fraction of 2**64: in whole numbers it stays exact however far the cursor has come.
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1
# A last-resort candidate (status stale or unknown) still needs some weight to be compared by.
_LEAST_WEIGHT = 0.01


def weight_of(endpoint: EndpointRecord) -> float:
    """Endpoint weight times status weight."""
    return max(endpoint.weight * STATUS_WEIGHTS.get(endpoint.status, 0.0), _LEAST_WEIGHT)


def choose_endpoint(
    policy: Policy, candidates: Sequence[EndpointRecord], in_flight: Mapping[int, int], cursor: int
) -> EndpointRecord:
    """One of `candidates` (not empty). `in_flight` counts open requests by endpoint id; absent is none."""
    if len(candidates) == 1:
        return candidates[0]
    if policy is Policy.ROUND_ROBIN:
        return _by_turns(candidates, cursor)
    if policy is Policy.PRIORITY:
        top = max(each.priority for each in candidates)
        return _by_turns([each for each in candidates if each.priority == top], cursor)
    return _least_loaded(candidates, in_flight, cursor)


def keep_loaded(
    candidates: Sequence[EndpointRecord], loaded: Collection[int], in_flight: Mapping[int, int], limit: int
) -> Sequence[EndpointRecord]:
    """The candidates that have the model in memory and fewer than `limit` requests open (0 is no limit).

    All of them when there is none such: under load a second copy of the model is worth its loading.
    """
    ready = [e for e in candidates if e.id in loaded and (not limit or in_flight.get(e.id, 0) < limit)]
    return ready or candidates


def _least_loaded(
    candidates: Sequence[EndpointRecord], in_flight: Mapping[int, int], cursor: int
) -> EndpointRecord:
    """The smallest load after taking one more, per weight; equals take turns."""
    loads = [(max(in_flight.get(each.id, 0), 0) + 1) / weight_of(each) for each in candidates]
    least = min(loads)
    tied = [each for each, load in zip(candidates, loads, strict=True) if load <= least * 1.000001]
    return tied[cursor % len(tied)]


def _by_turns(candidates: Sequence[EndpointRecord], cursor: int) -> EndpointRecord:
    """Weighted turns without state: the cursor walks the golden ratio through the candidates' shares.

    A low-discrepancy sequence keeps every run of picks close to the weights, where a random draw would not,
    and unlike a block schedule it does not send bursts to the heaviest.
    """
    weights = [weight_of(each) for each in candidates]
    if min(weights) == max(weights):
        return candidates[cursor % len(candidates)]
    point = (cursor * _GOLDEN & _MASK) / (_MASK + 1) * sum(weights)
    for each, weight in zip(candidates[:-1], weights, strict=False):
        if point < weight:
            return each
        point -= weight
    return candidates[-1]
