"""Remembered decisions: never another one than judging anew would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import OperatorState, Status
from endpoints.rules import Rule, RuleAction
from endpoints.snapshot import Snapshot, build_snapshot
from proxy.routing import route
from proxy.sieve import DropReason
from proxy.tracing import trace
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_snapshot, make_view

NAMES = ("one", "two", "three")
SPLIT = Rule("half", RuleAction.SPLIT, tags=frozenset({"new"}), percentage=50)
PREFER = Rule("new ones", RuleAction.PREFER, tags=frozenset({"new"}))


def anew(snapshot: Snapshot) -> Snapshot:
    """The same snapshot with nothing settled."""
    return replace(snapshot, settled={})


windows = st.none() | st.tuples(st.integers(-20, 20), st.integers(0, 30)).map(
    lambda pair: (NOW + pair[0], NOW + pair[0] + pair[1])
)
fleets = st.lists(
    st.fixed_dictionaries(
        {
            "state": st.sampled_from(OperatorState),
            "status": st.sampled_from(Status),
            "maintenance": windows,
            "check_interval": st.sampled_from([1.0, 5.0]),
            "next_check": st.integers(-20, 5).map(lambda each: NOW + each),
            "tags": st.sampled_from([frozenset(), frozenset({"new"})]),
        }
    ),
    min_size=1,
    max_size=3,
)
moments = st.fixed_dictionaries(
    {
        "now": st.integers(-30, 60).map(lambda each: NOW + each),
        "prober_seen": st.integers(-40, 60).map(lambda each: NOW + each),
        "dice": st.sampled_from([0.1, 0.9]),
        "held_out": st.sampled_from([{}, {303: DropReason.RESTING}]),
        "demoted": st.sampled_from([{}, {303: NOW}]),
    }
)
asked = st.sampled_from(["m", "M", "m:latest", "gone"])


@given(fleets, st.lists(st.tuples(moments, asked), min_size=2, max_size=6), st.sampled_from([None, SPLIT, PREFER]))
def test_it_decides_as_if_nothing_were_remembered(fleet, requests, rule):
    endpoints = [
        make_endpoint(name, models=["m:latest"], **each) for name, each in zip(NAMES, fleet, strict=False)
    ]
    snapshot = build_snapshot(1, NOW, endpoints, rules=[rule] if rule else [])
    for moment, model in requests:
        inbound, view = make_inbound(model=model), make_view(**moment)
        decision = route(snapshot, inbound, view)
        assert decision == route(anew(snapshot), inbound, view)
        assert trace(snapshot, inbound, view, decision) == trace(anew(snapshot), inbound, view, decision)


def test_it_remembers_what_is_routed():
    snapshot = make_snapshot(make_endpoint(models=["m"]))
    first = route(snapshot, make_inbound(model="m"), make_view())
    assert route(snapshot, make_inbound(model="m"), make_view()) is first


def test_it_does_not_remember_what_is_refused():
    snapshot = make_snapshot(make_endpoint(models=["m"]))
    for number in range(10):
        route(snapshot, make_inbound(model=f"no-{number}"), make_view())
    assert snapshot.settled == {}


def test_it_tells_requests_apart_that_need_other_things():
    plain: Any = make_endpoint("plain", models=["m"])
    snapshot = make_snapshot(plain)
    for body in (b'{"model":"m"}', b'{"model":"m","tools":[{}]}', b'{"model":"m","images":["x"]}'):
        route(snapshot, make_inbound(body=body), make_view())
    assert len(snapshot.settled) == 3


def test_it_stays_small():
    snapshot = make_snapshot(make_endpoint(models=["m"]))
    for number in range(5000):
        route(snapshot, make_inbound(f"/v1/chat/completions/{number}", model="m"), make_view())
    assert 0 < len(snapshot.settled) <= 4096
    route(snapshot, make_inbound("/v1/" + "x" * 600, model="m"), make_view())
    assert not any("x" * 600 in str(key) for key in snapshot.settled)
