"""What may change while a request waits in line, or at one endpoint that fails, before it reaches the next."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from endpoints import loading
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from proxy.live import live
from proxy.operator_token import Scope, issue_token
from tests.fakes import Reply, ScriptedBackend, json_reply
from tests.proxy.conftest import Exchange, Proxy

OK = json_reply({"ok": True})
CHAT = "/olla/openai/v1/chat/completions"


async def change(proxy: Proxy, call: Callable[[], Any]) -> None:
    """What an operator or the prober does, and the look that takes it up."""
    await sync_to_async(call)()
    await proxy.refresh()
    live.follow(loading.current())


@asynccontextmanager
async def one_in_line(proxy: Proxy, url: str, **columns: Any) -> AsyncIterator[tuple[Exchange, Exchange]]:
    """Endpoint `one`, which takes one request at a time, has one; another waits for it."""
    await proxy.add(url, name="one", max_concurrent=1, **columns)
    first = proxy.open("POST", CHAT, {"model": "m"})
    async with asyncio.timeout(30):
        while not live.in_flight:
            await asyncio.sleep(0.01)
    second = proxy.open("POST", CHAT, {"model": "m"})
    async with asyncio.timeout(30):
        while not live.queue.waiting:
            await asyncio.sleep(0.01)
    yield first, second
    await proxy.settled()


def gated(gate: asyncio.Event) -> Reply:
    return Reply(200, OK.headers, OK.body, before=gate)


@pytest.mark.parametrize(
    "columns",
    [{"state": "disabled"}, {"state": "draining"}, {"maintenance_from": timezone.now()}],
    ids=["disabled", "draining", "maintenance"],
)
async def test_a_request_in_line_is_not_sent_to_an_endpoint_taken_out_meanwhile(
    proxy: Proxy, columns: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, one_in_line(proxy, backend.url) as (first, second):
        await change(proxy, lambda: Endpoint.objects.update(**columns))
        gate.set()
        assert (await first.done()).status == 200
        answer = await second.done()
        assert (answer.status, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert answer.header("x-olla-routing-reason") == "model_unavailable"
        assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "columns",
    [{"state": "disabled"}, {"state": "draining"}, {"maintenance_from": timezone.now()}],
    ids=["disabled", "draining", "maintenance"],
)
async def test_a_request_in_line_waits_no_longer_for_an_endpoint_taken_out(
    proxy: Proxy, columns: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, one_in_line(proxy, backend.url) as (first, second):
        await change(proxy, lambda: Endpoint.objects.update(**columns))
        assert (await second.done()).status == 503
        gate.set()
        assert (await first.done()).status == 200


async def test_a_request_in_line_goes_to_an_endpoint_that_comes_back(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, ScriptedBackend(OK) as other:
        await proxy.add(other.url, name="other", models=["m-2"], status="offline")
        async with one_in_line(proxy, backend.url) as (first, second):
            await change(proxy, lambda: EndpointHealth.objects.update(status="healthy"))
            assert live.queue.waiting == 1  # it has another model
            await change(proxy, lambda: DiscoveredModel.objects.update(name="M"))
            answer = await second.done()
            assert (answer.status, answer.header("x-olla-endpoint")) == (200, "other")
            assert answer.header("x-olla-queue-wait")
            assert [request.json()["model"] for request in other.requests] == ["M"]
            gate.set()
            assert (await first.done()).status == 200


def _break(endpoint: Endpoint) -> Callable[[], None]:
    """Have its breaker open; what is returned lets its time run out."""
    ticket = live.breaker.try_enter(endpoint.pk, time.monotonic())
    assert ticket is not None
    live.breaker.fail(ticket, time.monotonic())
    return lambda: setattr(live.breaker, "open_time", 0.0)


def _rest(endpoint: Endpoint) -> Callable[[], None]:
    live.resting[endpoint.pk] = time.monotonic() + 600
    return lambda: live.resting.update({endpoint.pk: time.monotonic()})


def _demote(endpoint: Endpoint) -> Callable[[], None]:
    live.demote(loading.current().by_id[endpoint.pk], time.time())
    return lambda: live.restore(endpoint.pk)


@pytest.mark.parametrize("keep_out", [_break, _rest, _demote])
async def test_all_in_line_go_to_an_endpoint_that_is_no_longer_kept_out(
    proxy: Proxy, settings: Any, keep_out: Callable[[Endpoint], Callable[[], None]]
) -> None:
    settings.OLLA_BREAKER_THRESHOLD, settings.OLLA_BREAKER_OPEN_TIME = 1, 600
    live.reset()
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, ScriptedBackend(OK) as other:
        endpoint = await proxy.add(other.url, name="other")
        let_back = keep_out(endpoint)
        async with one_in_line(proxy, backend.url) as (first, second):
            third, fourth = (proxy.open("POST", CHAT, {"model": "m"}, client=f"10.0.0.{n}") for n in (1, 2))
            async with asyncio.timeout(30):
                while live.queue.waiting < 3:
                    await asyncio.sleep(0.01)
                live.follow(loading.current())
                let_back()
                while not second.task.done() or not third.task.done() or not fourth.task.done():
                    live.follow(loading.current())  # as at each look of the loader
                    await asyncio.sleep(0.02)
            assert [(each.status, each.header("x-olla-endpoint")) for each in (second, third, fourth)] == [
                (200, "other")
            ] * 3
            assert len(other.requests) == 3
            gate.set()
            assert (await first.done()).status == 200


async def test_a_request_has_one_time_in_line_however_often_its_endpoints_change(
    proxy: Proxy, settings: Any
) -> None:
    settings.OLLA_QUEUE_TIMEOUT = 1
    live.reset()
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, ScriptedBackend(gated(gate)) as other:
        await proxy.add(other.url, name="other", max_concurrent=1)
        await proxy.add(backend.url, name="one", max_concurrent=1)
        opened = [proxy.open("POST", CHAT, {"model": "m"}) for _ in range(3)]
        states = itertools.cycle(["disabled", "active"])
        async with asyncio.timeout(10):
            while not opened[2].task.done():
                await change(proxy, lambda: Endpoint.objects.filter(name="other").update(state=next(states)))
                await asyncio.sleep(0.1)
        assert (opened[2].status, opened[2].json()["error"]["code"]) == (503, "queue_full")
        gate.set()
        assert [(await each.done()).status for each in opened[:2]] == [200, 200]
        await proxy.settled()


async def test_an_operators_pin_holds_in_line(proxy: Proxy) -> None:
    gate = asyncio.Event()
    token = [("X-Olla-Operator", issue_token(7, [Scope.PIN], time.time())), ("X-Olla-Pin", "one")]
    async with (
        ScriptedBackend(gated(gate)) as backend,
        ScriptedBackend(OK) as other,
        one_in_line(proxy, backend.url) as (first, second),
    ):
        pinned = proxy.open("POST", CHAT, {"model": "m"}, headers=token)
        async with asyncio.timeout(30):
            while live.queue.waiting < 2:
                await asyncio.sleep(0.01)
        await proxy.add(other.url, name="other")
        live.follow(loading.current())
        assert (await second.done()).header("x-olla-endpoint") == "other"
        assert live.queue.waiting == 1
        gate.set()
        assert (await pinned.done()).header("x-olla-endpoint") == "one"
        assert (await first.done()).status == 200


async def test_a_request_in_line_goes_to_another_endpoint_when_its_own_is_deleted(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, ScriptedBackend(OK) as other:
        async with one_in_line(proxy, backend.url) as (first, second):
            await proxy.add(other.url, name="other")
            await change(proxy, Endpoint.objects.filter(name="one").delete)
            answer = await second.done()
            assert (answer.status, answer.header("x-olla-endpoint")) == (200, "other")
            gate.set()
            assert (await first.done()).status == 200
        assert len(backend.requests) == 1


async def test_a_request_in_line_goes_where_the_endpoint_is_by_then(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, ScriptedBackend(OK) as moved:
        async with one_in_line(proxy, backend.url) as (first, second):
            await change(proxy, lambda: Endpoint.objects.update(url=moved.url))
            gate.set()
            assert (await first.done()).status == (await second.done()).status == 200
        assert (len(backend.requests), len(moved.requests)) == (1, 1)


async def test_a_request_in_line_finds_that_its_model_is_gone(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend, one_in_line(proxy, backend.url) as (_, second):
        await change(proxy, lambda: DiscoveredModel.objects.update(name="another"))
        gate.set()
        answer = await second.done()
        assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.usefixtures("still_clock")
async def test_a_request_in_line_keeps_to_the_endpoints_rate(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedBackend(gated(gate)) as backend,
        one_in_line(proxy, backend.url, requests_per_minute=2) as (first, second),
    ):
        third = proxy.open("POST", CHAT, {"model": "m"})
        async with asyncio.timeout(30):
            while live.queue.waiting < 2:
                await asyncio.sleep(0.01)
        gate.set()
        assert (await first.done()).status == (await second.done()).status == 200
        answer = await third.done()
        assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.header("retry-after") or 0) <= 60
        assert len(backend.requests) == 2


async def test_more_in_line_than_a_lowered_limit_are_served_one_by_one(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(gated(gate)) as backend:
        await proxy.add(backend.url, name="one", max_concurrent=3)
        opened = [proxy.open("POST", CHAT, {"model": "m"}) for _ in range(6)]
        await backend.wait_requests(3)
        await change(proxy, lambda: Endpoint.objects.update(max_concurrent=1))
        assert (live.queue.waiting, sum(live.in_flight.values())) == (3, 3)
        gate.set()
        assert [(await each.done()).status for each in opened] == [200] * 6
        await proxy.settled()


async def test_the_next_endpoint_is_not_asked_when_it_was_taken_out_meanwhile(proxy: Proxy, settings: Any) -> None:
    settings.OLLA_LOAD_BALANCER = "priority"
    gate = asyncio.Event()
    busy = Reply(503, [(b"Content-Type", b"application/json")], b'{"error":{"message":"busy"}}', before=gate)
    async with ScriptedBackend(busy) as one, ScriptedBackend(OK) as two, ScriptedBackend(OK) as three:
        await proxy.add(one.url, name="one", priority=300)
        await proxy.add(two.url, name="two", priority=200)
        exchange = proxy.open("POST", CHAT, {"model": "m"})
        await one.wait_requests(1)
        await proxy.add(three.url, name="three", priority=100)
        await change(proxy, lambda: EndpointHealth.objects.filter(endpoint__name="two").update(status="offline"))
        gate.set()
        answer = await exchange.done()
        assert (answer.status, answer.header("x-olla-endpoint")) == (200, "three")
        assert not two.requests
        await proxy.settled()
