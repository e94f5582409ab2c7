"""Breaker, rests, sticky sessions and aliases as a client meets them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from endpoints import loading
from endpoints.models import ModelAlias
from proxy.breaker import GateState
from proxy.live import live
from tests.fakes import Conn, Cut, Reply, ScriptedBackend, Silence, come_true, json_reply
from tests.proxy.conftest import Proxy

OK = {"ok": True}
CHAT = "/olla/openai/v1/chat/completions"


async def test_six_clients_that_hang_up_before_the_head_leave_the_endpoint_serving(proxy: Proxy) -> None:
    async with ScriptedBackend([*[Silence()] * 6, json_reply(OK)]) as backend:
        endpoint = await proxy.add(backend.url)
        for number in range(6):
            exchange = proxy.open("POST", CHAT, {"model": "m"})
            await backend.wait_requests(number + 1)
            exchange.leave()
            await exchange.done()
        await proxy.settled()
        assert (await proxy.chat()).status == 200
        assert live.breaker.view(endpoint.pk, time.monotonic()).state is GateState.CLOSED


async def test_it_opens_the_breaker_after_failures_and_lets_others_answer(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"error": "x"}, 503)) as bad, ScriptedBackend(json_reply(OK)) as good:
        endpoint = await proxy.add(bad.url, name="bad")
        await proxy.add(good.url, name="good")
        for _ in range(20):
            assert (await proxy.chat()).status == 200
        assert len(bad.requests) == 5
        assert live.breaker.view(endpoint.pk, time.monotonic()).state is GateState.OPEN


async def test_it_answers_503_when_every_breaker_is_open(proxy: Proxy) -> None:
    async with ScriptedBackend(Cut(b"")) as bad:
        await proxy.add(bad.url)
        for _ in range(5):
            assert (await proxy.chat()).status == 502
        answer = await proxy.chat()
        assert (answer.status, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert len(bad.requests) == 5


async def test_it_leaves_an_endpoint_alone_that_asked_for_a_rest(proxy: Proxy) -> None:
    tired = json_reply({"error": "slow down"}, 429, headers=[(b"Retry-After", b"60")])
    async with ScriptedBackend(tired) as one, ScriptedBackend(json_reply(OK)) as two:
        await proxy.add(one.url, name="one")
        await proxy.add(two.url, name="two")
        for _ in range(6):
            assert (await proxy.chat()).status == 200
        assert len(one.requests) == 1


async def test_it_keeps_a_conversation_at_one_endpoint(proxy: Proxy, settings: Any) -> None:
    settings.OLLA_STICKY_SESSIONS = True
    live.reset()
    async with ScriptedBackend(json_reply(OK)) as one, ScriptedBackend(json_reply(OK)) as two:
        await proxy.add(one.url, name="one")
        await proxy.add(two.url, name="two")
        session = [("X-Olla-Session-ID", "conv-1")]
        first = await proxy.call("POST", CHAT, {"model": "m"}, headers=session)
        assert first.header("x-olla-sticky-session") == "miss"
        assert first.header("x-olla-session-id") == "conv-1"
        for _ in range(5):
            answer = await proxy.call("POST", CHAT, {"model": "m"}, headers=session)
            assert answer.header("x-olla-sticky-session") == "hit"
            assert answer.header("x-olla-sticky-key-source") == "session_header"
            assert answer.header("x-olla-endpoint") == first.header("x-olla-endpoint")


async def test_it_sends_an_alias_as_the_endpoints_own_model_and_touches_no_other_byte(proxy: Proxy) -> None:
    body = b'{ "temperature":0.10, "model" : "fast" ,"messages":[{"model":"fast"}] }'
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(backend.url, models=["org/Real:8b"])
        await sync_to_async(ModelAlias.objects.create)(name="fast", targets="gone\norg/real:8b")
        await sync_to_async(loading.refresh)(force=True)
        answer = await proxy.call("POST", CHAT, body)
        sent = backend.requests[0].body
        assert sent == b'{ "temperature":0.10, "model" : "org/Real:8b" ,"messages":[{"model":"fast"}] }'
        assert answer.header("x-olla-model") == "fast"
        assert answer.header("x-olla-model-used") == "org/Real:8b"
        assert answer.header("x-olla-routing-strategy") == "alias"
        listed = await proxy.call("GET", "/olla/openai/v1/models")
        assert [each["id"] for each in listed.json()["data"]] == ["fast", "org/Real:8b"]


async def test_it_sends_an_alias_in_an_upload_too(proxy: Proxy) -> None:
    form = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nfast\r\n--B--\r\n'
    async with ScriptedBackend(json_reply(OK)) as backend:
        await proxy.add(backend.url, models=["whisper-large"])
        await sync_to_async(ModelAlias.objects.create)(name="fast", targets="whisper-large")
        await sync_to_async(loading.refresh)(force=True)
        kind = [("Content-Type", "multipart/form-data; boundary=B")]
        answer = await proxy.call("POST", "/olla/openai/v1/audio/transcriptions", form, headers=kind)
        assert answer.status == 200
        assert backend.requests[0].body == form.replace(b"fast", b"whisper-large")


async def test_it_starts_many_streams_to_one_backend_at_once(proxy: Proxy, long_form: bool) -> None:
    count = 256 if long_form else 100

    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        conn.write(b"9\r\ndata: 1\n\n\r\n")
        await conn.request()

    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url)
        opened = [proxy.open("POST", CHAT, {"model": "m", "stream": True}) for _ in range(count)]
        await backend.wait_requests(count)
        for exchange in opened:
            await exchange.wait_bytes(9)
            exchange.leave()
        for exchange in opened:
            await exchange.done()
        await proxy.settled()


async def test_it_waits_in_line_for_an_endpoint_that_is_full_and_says_how_long(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(
        Reply(200, [(b"Content-Type", b"application/json")], b"{}", before=gate)
    ) as backend:
        await proxy.add(backend.url, max_concurrent=2)
        opened = [proxy.open("POST", CHAT, {"model": "m"}) for _ in range(5)]
        await backend.wait_requests(2)
        await come_true(lambda: live.queue.waiting == 3)
        opened[4].leave()
        await opened[4].done()
        assert live.queue.waiting == 2
        gate.set()
        answers = [await each.done() for each in opened[:4]]
        assert [each.status for each in answers] == [200] * 4
        assert [each.header("x-olla-queue-wait") is None for each in answers] == [True, True, False, False]
        assert len(backend.requests) == 4
        await proxy.settled()


async def test_it_answers_503_when_the_line_is_full_or_too_slow(proxy: Proxy, settings: Any) -> None:
    settings.OLLA_QUEUE_LENGTH = 1
    settings.OLLA_QUEUE_TIMEOUT = 0.3
    live.reset()
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, max_concurrent=1)
        first = proxy.open("POST", CHAT, {"model": "m"})
        await backend.wait_requests(1)
        waiting = proxy.open("POST", CHAT, {"model": "m"})
        await come_true(lambda: live.queue.waiting == 1)
        refused = await proxy.chat()
        late = await waiting.done()
        for answer in (refused, late):
            assert (answer.status, answer.json()["error"]["code"]) == (503, "queue_full")
            assert answer.header("retry-after") == "1"
        first.leave()
        await first.done()
        await proxy.settled()


async def test_it_never_waits_in_line_with_a_place_in_hand(proxy: Proxy) -> None:
    busy = json_reply({"error": {"message": "loading"}}, 503)
    slow = Reply(503, [(b"Content-Type", b"application/json")], busy.body, before=0.2)
    async with ScriptedBackend(slow) as one, ScriptedBackend(slow) as two:
        await proxy.add(one.url, name="one", max_concurrent=1)
        await proxy.add(two.url, name="two", max_concurrent=1)
        opened = [proxy.open("POST", CHAT, {"model": "m"}) for _ in range(2)]
        answers = [await each.done() for each in opened]
        assert [each.status for each in answers] == [503, 503]
        assert [each.json()["error"] for each in answers] == [{"message": "loading"}] * 2
        await proxy.settled()


@pytest.mark.usefixtures("still_clock")
async def test_it_leaves_an_endpoint_that_has_used_up_its_minute(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(OK)) as one, ScriptedBackend(json_reply(OK)) as two:
        await proxy.add(one.url, name="one", requests_per_minute=2)
        await proxy.add(two.url, name="two", requests_per_minute=3)
        for _ in range(5):
            assert (await proxy.chat()).status == 200
        assert (len(one.requests), len(two.requests)) == (2, 3)
        refused = await proxy.chat()
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.header("retry-after") or 0) <= 60


async def test_it_retries_the_statuses_an_endpoint_names_instead_of_the_usual(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"error": "x"}, 500)) as one, ScriptedBackend(json_reply(OK)) as two:
        await proxy.add(one.url, name="one", retry_statuses="500")
        await proxy.add(two.url, name="two")
        for _ in range(4):
            assert (await proxy.chat()).status == 200
        assert one.requests
