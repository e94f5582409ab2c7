"""Each policy spreads requests as its weights say, whatever the counters hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import Status
from endpoints.snapshot import EndpointRecord
from proxy.selection import Policy, choose_endpoint, weight_of
from tests.proxy.builders import make_endpoint

PICKS = 10_000


def fleet(*specs: dict[str, Any]) -> list[EndpointRecord]:
    return [make_endpoint(f"e{number}", id=number, **spec) for number, spec in enumerate(specs)]


def shares(policy: Policy, candidates: list[EndpointRecord], picks: int = PICKS) -> list[float]:
    """The share of each candidate over many picks of requests that end before the next begins."""
    counts = Counter(choose_endpoint(policy, candidates, {}, cursor).id for cursor in range(picks))
    return [counts[each.id] / picks for each in candidates]


def open_shares(candidates: list[EndpointRecord], picks: int = PICKS) -> list[float]:
    """The share of each when every request stays open."""
    open_now: Counter[int] = Counter()
    for cursor in range(picks):
        open_now[choose_endpoint(Policy.LEAST_CONNECTIONS, candidates, open_now, cursor).id] += 1
    return [open_now[each.id] / picks for each in candidates]


WEIGHTED: list[list[dict[str, Any]]] = [
    [{}, {}],
    [{}, {}, {}],
    [{"weight": 3.0}, {"weight": 1.0}],
    [{"weight": 1.0}, {"weight": 2.0}, {"weight": 5.0}],
    [{}, {"status": Status.BUSY}, {"status": Status.WARMING}],
    [{"weight": 10.0, "status": Status.WARMING}, {"weight": 1.0}],
    [{"weight": 0.5}, {"weight": 0.25, "status": Status.BUSY}],
]


@pytest.mark.parametrize("specs", WEIGHTED)
@pytest.mark.parametrize("policy", [Policy.ROUND_ROBIN, Policy.PRIORITY])
def test_it_keeps_to_the_weights_by_turns(policy: Policy, specs: list[dict[str, Any]]) -> None:
    candidates = fleet(*specs)
    total = sum(weight_of(each) for each in candidates)
    wanted = [weight_of(each) / total for each in candidates]
    assert shares(policy, candidates) == pytest.approx(wanted, rel=0.1)
    late = Counter(choose_endpoint(policy, candidates, {}, 10**30 + n).id for n in range(PICKS))
    assert [late[each.id] / PICKS for each in candidates] == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("specs", WEIGHTED)
def test_it_keeps_open_requests_in_proportion_to_the_weights(specs: list[dict[str, Any]]) -> None:
    candidates = fleet(*specs)
    total = sum(weight_of(each) for each in candidates)
    assert open_shares(candidates) == pytest.approx([weight_of(each) / total for each in candidates], rel=0.1)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("specs", [[{"weight": 0.0}, {"weight": 0.0}], [{"priority": -5}, {"priority": -5}]])
def test_it_shares_out_evenly_where_nobody_has_weight(policy: Policy, specs: list[dict[str, Any]]) -> None:
    assert shares(policy, fleet(*specs)) == pytest.approx([0.5, 0.5], rel=0.1)


def test_it_takes_a_negative_priority_for_the_lower() -> None:
    candidates = fleet({"priority": -1}, {"priority": -100}, {"priority": 0})
    assert shares(Policy.PRIORITY, candidates) == [0.0, 0.0, 1.0]
    assert shares(Policy.PRIORITY, candidates[:2]) == [1.0, 0.0]


def test_it_keeps_every_run_of_picks_close_to_the_weights() -> None:
    candidates = fleet({"weight": 3.0}, {"weight": 1.0})
    picks = [choose_endpoint(Policy.ROUND_ROBIN, candidates, {}, cursor).id for cursor in range(1000)]
    for start in range(980):
        assert 1 <= picks[start : start + 20].count(1) <= 8


def test_it_takes_equal_endpoints_in_strict_turns() -> None:
    candidates = fleet({}, {}, {})
    picks = [choose_endpoint(Policy.ROUND_ROBIN, candidates, {}, cursor).id for cursor in range(7)]
    assert picks == [0, 1, 2, 0, 1, 2, 0]


def test_it_lets_equally_loaded_endpoints_take_turns() -> None:
    assert shares(Policy.LEAST_CONNECTIONS, fleet({}, {}, {})) == pytest.approx([1 / 3] * 3, rel=0.01)


@pytest.mark.parametrize(
    ("in_flight", "chosen"),
    [({0: 1, 2: 1}, 1), ({0: 2, 1: 1, 2: 3}, 1), ({0: 5, 1: 5}, 2), ({0: 1, 1: 1, 2: 0}, 2)],
)
def test_it_chooses_the_fewest_open_requests(in_flight: dict[int, int], chosen: int) -> None:
    candidates = fleet({}, {}, {})
    for cursor in range(5):
        assert choose_endpoint(Policy.LEAST_CONNECTIONS, candidates, in_flight, cursor).id == chosen


def test_it_weighs_open_requests() -> None:
    candidates = fleet({"weight": 4.0}, {"weight": 1.0})
    assert choose_endpoint(Policy.LEAST_CONNECTIONS, candidates, {0: 2}, 0).id == 0
    assert choose_endpoint(Policy.LEAST_CONNECTIONS, candidates, {0: 4}, 0).id == 1


def test_it_uses_the_highest_priority_only() -> None:
    candidates = fleet(
        {"priority": 1}, {"priority": 200, "status": Status.WARMING}, {"priority": 200}, {"priority": 0}
    )
    assert {choose_endpoint(Policy.PRIORITY, candidates, {2: 99}, cursor).id for cursor in range(100)} == {1, 2}
    assert choose_endpoint(Policy.PRIORITY, [candidates[0], candidates[3]], {}, 7).id == 0


@pytest.mark.parametrize(
    ("status", "weight", "expected"),
    [(Status.HEALTHY, 1.0, 1.0), (Status.BUSY, 1.0, 0.3), (Status.WARMING, 2.0, 0.2), (Status.OFFLINE, 5.0, 0.01),
     (Status.HEALTHY, 0.0, 0.01)],
)  # fmt: skip
def test_it_weighs_by_status(status: Status, weight: float, expected: float) -> None:
    assert weight_of(make_endpoint(status=status, weight=weight)) == pytest.approx(expected)


endpoints = st.builds(
    make_endpoint,
    id=st.integers(0, 5),
    priority=st.integers(0, 3),
    weight=st.floats(0, 1000, allow_nan=False),
    status=st.sampled_from(list(Status)),
)


@given(
    st.lists(endpoints, min_size=1, max_size=6), st.dictionaries(st.integers(0, 5), st.integers(-(10**9), 10**9)),
    st.integers(-(10**400), 10**400), st.sampled_from(list(Policy)),
)  # fmt: skip
def test_it_chooses_one_of_the_candidates_whatever_the_counters_hold(
    candidates: list[EndpointRecord], in_flight: dict[int, int], cursor: int, policy: Policy
) -> None:
    chosen = choose_endpoint(policy, candidates, in_flight, cursor)
    assert any(chosen is each for each in candidates)
    assert choose_endpoint(policy, candidates, in_flight, cursor) is chosen


def test_it_names_the_policies_as_documented() -> None:
    assert {policy.value for policy in Policy} == {"least-connections", "priority", "round-robin"}
