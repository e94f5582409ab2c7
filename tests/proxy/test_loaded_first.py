"""Endpoints that have the model in memory come first, as long as they are not too busy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import override_settings

from endpoints.models import DiscoveredModel
from endpoints.snapshot import Alias, build_snapshot
from proxy.decision import Plan
from proxy.routing import route
from proxy.selection import Policy, keep_loaded
from proxy.tracing import trace
from proxy.tries import Standing, Why, plan_tries
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_snapshot, make_view
from tests.proxy.conftest import Proxy

FIRST = Plan(loaded_first=True)
COLD = frozenset({"m"})


def loaded_of(*endpoints: Any, plan: Plan = FIRST, model: str = "m") -> set[str]:
    snapshot = make_snapshot(*endpoints)
    decision = route(snapshot, make_inbound(model=model), make_view(), plan)
    return {snapshot.by_id[each].name for each in decision.loaded}


def test_it_names_those_that_have_the_model_in_memory() -> None:
    warm, cold = make_endpoint("a", models=["m"]), make_endpoint("b", models=["m"], cold=COLD)
    assert loaded_of(warm, cold) == {"a"}
    assert loaded_of(warm, cold, plan=Plan()) == set()


def test_it_prefers_nobody_when_all_or_none_have_it() -> None:
    assert loaded_of(make_endpoint("a", models=["m"]), make_endpoint("b", models=["m"])) == set()
    cold = [make_endpoint(name, models=["m"], cold=COLD) for name in "ab"]
    assert loaded_of(*cold) == set()


def test_it_judges_the_model_that_each_endpoint_would_be_sent() -> None:
    endpoints = [make_endpoint("a", models=["big"], cold=frozenset({"big"})), make_endpoint("b", models=["small"])]
    snapshot = build_snapshot(1, NOW, endpoints, [Alias("fast", ("big", "small"))])
    decision = route(snapshot, make_inbound(model="fast"), make_view(), FIRST)
    assert {snapshot.by_id[each].name for each in decision.loaded} == {"b"}


def test_it_shows_it_in_the_trace() -> None:
    warm, cold = make_endpoint("a", models=["m"]), make_endpoint("b", models=["m"], cold=COLD)
    snapshot, inbound, view = make_snapshot(warm, cold), make_inbound(model="m"), make_view()
    told = trace(snapshot, inbound, view, route(snapshot, inbound, view, FIRST))
    assert [(each.endpoint.name, each.loaded_first) for each in told.considered] == [("a", True), ("b", False)]


def test_it_explains_the_order_of_tries() -> None:
    warm, cold = make_endpoint("a", models=["m"]), make_endpoint("b", models=["m"], cold=COLD)
    standing = Standing(loaded={warm.id}, loaded_limit=4)
    tries = plan_tries([[cold, warm]], Policy.PRIORITY, standing)
    assert [(each.endpoint.name, each.why) for each in tries] == [("a", Why.LOADED), ("b", Why.POLICY)]
    busy = Standing({warm.id: 4}, loaded={warm.id}, loaded_limit=4)
    assert plan_tries([[cold, warm]], Policy.LEAST_CONNECTIONS, busy)[0].endpoint is cold


@pytest.mark.parametrize(
    ("open_requests", "limit", "kept"),
    [(0, 4, "a"), (3, 4, "a"), (4, 4, "ab"), (99, 0, "a"), (99, 4, "ab")],
)
def test_it_gives_up_the_preference_under_load(open_requests: int, limit: int, kept: str) -> None:
    warm, cold = make_endpoint("a"), make_endpoint("b")
    chosen = keep_loaded([warm, cold], {warm.id}, {warm.id: open_requests}, limit)
    assert "".join(each.name for each in chosen) == kept


async def test_requests_go_where_the_model_is_in_memory(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"ok": 1})) as one, ScriptedBackend(json_reply({"ok": 2})) as two:
        await proxy.add(one.url, "cold", ["m"], backend_type="ollama", priority=200)
        await proxy.add(two.url, "warm", ["m"], backend_type="ollama")
        await sync_to_async(DiscoveredModel.objects.filter(endpoint__name="cold").update)(state="not-loaded")
        await sync_to_async(DiscoveredModel.objects.filter(endpoint__name="warm").update)(state="loaded")
        await proxy.refresh()
        asked = [(await proxy.chat("ollama")).header("X-Olla-Endpoint") for _ in range(6)]
        with override_settings(OLLA_LOADED_FIRST=False):
            spread = [(await proxy.chat("ollama")).header("X-Olla-Endpoint") for _ in range(6)]
        await sync_to_async(DiscoveredModel.objects.filter(endpoint__name="cold").update)(state="loaded")
        await proxy.refresh()
        both = [(await proxy.chat("ollama")).header("X-Olla-Endpoint") for _ in range(6)]
    assert Counter(asked) == {"warm": 6}
    assert Counter(spread) == Counter(both) == {"warm": 3, "cold": 3}


async def test_it_falls_over_to_an_endpoint_that_has_to_load(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"ok": 1})) as one:
        await proxy.add(one.url, "cold", ["m"], backend_type="ollama")
        await proxy.add("http://127.0.0.1:1", "warm", ["m"], backend_type="ollama")
        await sync_to_async(DiscoveredModel.objects.filter(endpoint__name="cold").update)(state="not-loaded")
        await sync_to_async(DiscoveredModel.objects.filter(endpoint__name="warm").update)(state="loaded")
        await proxy.refresh()
        done = await proxy.chat("ollama")
        await proxy.settled()
    assert (done.status, done.header("X-Olla-Endpoint")) == (200, "cold")
