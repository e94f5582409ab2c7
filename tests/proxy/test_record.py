"""One request is one record, finished once, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from proxy import finished
from proxy.finished import subscribe, unsubscribe
from proxy.live import live
from proxy.record import Ending, Outcome, RequestRecord, build_attempts, build_trace, no_record, success_rate
from tests.fakes import Cut, Reply, ScriptedBackend, Silence, come_true, json_reply, sse_reply
from tests.proxy.conftest import Proxy

CHAT = "/olla/openai/v1/chat/completions"
MESSAGES = "/olla/anthropic/v1/messages"
SSE = (b"Content-Type", b"text/event-stream")
SAY = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


async def test_it_tells_a_whole_answer(proxy: Proxy, records: list[RequestRecord]) -> None:
    async with ScriptedBackend(json_reply({"ok": True})) as backend:
        endpoint = await proxy.add(backend.url, name="gpu")
        answer = await proxy.call("POST", CHAT, {"model": "m"}, [("X-Request-ID", "r-1")])
    [record] = records
    assert (record.request_id, record.method, record.path, record.prefix) == ("r-1", "POST", CHAT, "openai")
    assert (record.client, record.peer, record.client_key) == ("10.1.2.3", "10.1.2.3", None)
    assert (record.model, record.sent_model, record.stream, record.mode) == ("m", "m", False, None)
    assert (record.status, record.error_code, record.outcome) == (200, None, Outcome.SUCCESS)
    assert (record.request_bytes, record.response_bytes) == (len(b'{"model": "m"}'), len(answer.body))
    assert record.endpoint is not None
    assert (record.endpoint.id, record.endpoint.name) == (endpoint.pk, "gpu")
    assert record.first_byte is not None
    assert 0 < record.first_byte <= record.seconds
    assert record.ending is Ending.COMPLETE
    [attempt] = build_attempts(record)
    assert (attempt.endpoint, attempt.status, attempt.verdict, attempt.error) == (
        "gpu",
        200,
        "good",
        "",
    )
    assert attempt.ms is not None
    assert 0 <= attempt.began_ms <= attempt.began_ms + attempt.ms <= record.seconds * 1000
    trace = build_trace(record)
    assert (trace["action"], trace["strategy"], trace["reason"]) == ("routed", "strict", "model_found")
    assert (trace["candidates"], trace["rule"]) == ([["gpu"]], None)


async def test_it_tells_each_attempt_of_a_request_that_was_tried_elsewhere(
    proxy: Proxy, records: list[RequestRecord], settings: Any
) -> None:
    settings.OLLA_LOAD_BALANCER = "priority"
    async with ScriptedBackend(json_reply({}, status=503)) as bad, ScriptedBackend(json_reply({})) as good:
        await proxy.add("http://127.0.0.1:1", name="a", priority=300)
        await proxy.add(bad.url, name="b", priority=200)
        await proxy.add(good.url, name="c", priority=100)
        await proxy.chat()
    [record] = records
    told = [(each.endpoint, each.status, each.verdict, each.error) for each in build_attempts(record)]
    assert told == [
        ("a", None, "failed", "not_connected_refused"),
        ("b", 503, "failed", ""),
        ("c", 200, "good", ""),
    ]
    assert record.outcome is Outcome.SUCCESS
    assert record.endpoint is not None
    assert record.endpoint.name == "c"
    await proxy.settled()


@pytest.mark.parametrize(
    ("reply", "outcome", "code", "status"),
    [
        (json_reply({"error": "no"}, status=400), Outcome.REJECTED, None, 400),
        (json_reply({"error": "busy"}, status=429), Outcome.BACKEND_ERROR, None, 429),
        (json_reply({"error": "oh"}, status=500), Outcome.BACKEND_ERROR, None, 500),
        (Cut(b""), Outcome.BACKEND_ERROR, "upstream_unreachable", 502),
        (Cut(b"nonsense\r\n\r\n"), Outcome.BACKEND_ERROR, "upstream_invalid", 502),
    ],
)
async def test_it_counts_what_a_backend_did_to_its_account(
    proxy: Proxy, records: list[RequestRecord], reply: Any, outcome: Outcome, code: str | None, status: int
) -> None:
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat()
    [record] = records
    assert (record.outcome, record.error_code, record.status) == (outcome, code, status)
    assert answer.status == status
    assert record.response_bytes == len(answer.body)
    await proxy.settled()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "prefix"),
    [
        ("POST", "/olla/nobody/v1/chat/completions", {"model": "m"}, 404, "unknown_provider", "nobody"),
        ("POST", CHAT, {"model": "other"}, 404, "model_not_found", "openai"),
        ("POST", CHAT, b"{", 400, "invalid_json", "openai"),
        ("POST", "/olla/ollama/v1/chat/completions", {"model": "m"}, 404, "no_endpoints", "ollama"),
        ("POST", "/olla/openai/a/../b", b"", 400, "invalid_request", "openai"),
        ("POST", MESSAGES, {"model": "m"}, 400, "invalid_request", "anthropic"),
        ("POST", "/olla/openai/" + "x" * 100, b"x" * 2000, 413, "request_too_large", "openai"),
        ("POST", "/olla/anthropic/v1/messages/count_tokens", b"[]", 400, "invalid_json", "anthropic"),
    ],
)
async def test_it_tells_what_was_refused(
    proxy: Proxy,
    records: list[RequestRecord],
    settings: Any,
    method: str,
    path: str,
    body: Any,
    status: int,
    code: str,
    prefix: str,
) -> None:
    settings.OLLA_MAX_BODY_SIZE = 1500
    await proxy.add("http://127.0.0.1:1")
    answer = await proxy.call(method, path, body)
    [record] = records
    assert (answer.status, record.status, record.error_code) == (status, status, code)
    assert (record.outcome, record.prefix, record.attempts) == (Outcome.REJECTED, prefix, [])
    assert record.response_bytes == len(answer.body)


@pytest.mark.usefixtures("still_clock")
async def test_it_tells_requests_over_the_rate_and_of_endpoints_that_are_down(
    proxy: Proxy, records: list[RequestRecord], settings: Any
) -> None:
    await proxy.add("http://127.0.0.1:1", status="offline")
    await proxy.chat()
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = 1
    await proxy.chat()
    assert [(each.status, each.error_code, each.outcome) for each in records] == [
        (503, "model_unavailable", Outcome.BACKEND_ERROR),
        (429, "rate_limited", Outcome.REJECTED),
    ]


async def test_it_holds_an_invented_model_against_nobody(
    proxy: Proxy, records: list[RequestRecord], settings: Any
) -> None:
    settings.OLLA_ROUTING_STRATEGY = "discovery"
    settings.OLLA_DISCOVERY_REFRESH_ON_MISS = "0"
    await proxy.add("http://127.0.0.1:1", status="offline")
    for model in ("m", "invented"):
        await proxy.chat(model=model)
    assert [(each.status, each.error_code, each.outcome) for each in records] == [
        (503, "model_unavailable", Outcome.BACKEND_ERROR),
        (503, "model_unavailable", Outcome.REJECTED),
    ]


async def test_it_keeps_no_record_of_lists(proxy: Proxy, records: list[RequestRecord]) -> None:
    await proxy.add("http://127.0.0.1:1")
    for path in ("/olla/openai/v1/models", "/olla/openai/v1/models/none", "/olla/models", "/version", "/olla/x"):
        await proxy.call("GET", path)
    assert [each.path for each in records] == ["/olla/x"]


async def test_it_tells_a_stream_that_breaks_off(proxy: Proxy, records: list[RequestRecord]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with ScriptedBackend(Cut(head + b"9\r\ndata: 1\n\n\r\n")) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat(stream=True)
    [record] = records
    assert (record.outcome, record.status, record.stream) == (Outcome.BROKEN, 200, True)
    assert record.response_bytes == len(answer.body)
    assert build_attempts(record)[0].error == "broke_off"
    assert build_attempts(record)[0].verdict == "failed"


async def test_it_tells_an_answer_that_had_to_be_aborted(proxy: Proxy, records: list[RequestRecord]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 100000\r\n\r\n"
    async with ScriptedBackend(Cut(head + b"x" * 1000)) as backend:
        await proxy.add(backend.url)
        answer = await proxy.call("POST", "/olla/openai/v1/audio/speech", {"model": "m"})
    [record] = records
    assert answer.aborted
    assert (record.outcome, record.status, record.response_bytes) == (Outcome.BROKEN, 200, 1000)


async def test_it_counts_a_client_that_leaves_before_the_answer_to_nobody(
    proxy: Proxy, records: list[RequestRecord]
) -> None:
    async with ScriptedBackend(Silence()) as backend:
        endpoint = await proxy.add(backend.url)
        exchange = proxy.open("POST", CHAT, {"model": "m"})
        await backend.wait_requests(1)
        exchange.leave()
        await exchange.done()
    [record] = records
    assert (record.outcome, record.status, record.first_byte) == (Outcome.CLIENT_GONE, None, None)
    assert build_attempts(record)[0].verdict == "unknown"
    assert (live.tallies.all.hang_ups, live.requests[endpoint.pk], live.failures[endpoint.pk]) == (1, 1, 0)


@pytest.mark.parametrize("prefix", ["openai", "anthropic"])
async def test_it_counts_a_client_that_leaves_a_stream_to_nobody(
    proxy: Proxy, records: list[RequestRecord], prefix: str
) -> None:
    gate = asyncio.Event()
    first = b'data: {"choices":[{"index":0,"delta":{"content":"yes"}}]}\n\n'
    async with ScriptedBackend(Reply(headers=[SSE], chunks=[first, gate])) as backend:
        endpoint = await proxy.add(backend.url)
        path = CHAT if prefix == "openai" else MESSAGES
        exchange = proxy.open("POST", path, {**SAY, "stream": True})
        await exchange.wait_bytes(1)
        exchange.leave()
        await exchange.done()
        gate.set()
    [record] = records
    assert (record.outcome, record.status, record.stream) == (Outcome.CLIENT_GONE, 200, True)
    assert record.response_bytes == len(exchange.body)
    assert record.first_byte is not None
    assert (live.tallies.all.hang_ups, live.failures[endpoint.pk]) == (1, 0)


async def test_it_tells_a_client_that_leaves_the_line_and_one_that_is_turned_away(
    proxy: Proxy, records: list[RequestRecord], settings: Any
) -> None:
    settings.OLLA_QUEUE_TIMEOUT = 0.5
    live.reset()
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, max_concurrent=1)
        holder = proxy.open("POST", CHAT, {"model": "m"})
        await backend.wait_requests(1)
        turned_away = await proxy.chat()
        waiting = proxy.open("POST", CHAT, {"model": "m"})
        await come_true(lambda: live.queue.waiting == 1)
        waiting.leave()
        await waiting.done()
        holder.leave()
        await holder.done()
    full, left, held = records
    assert turned_away.status == 503
    assert (full.outcome, full.error_code, full.attempts) == (Outcome.BACKEND_ERROR, "queue_full", [])
    assert full.queue_wait >= 0.45
    assert (left.outcome, left.attempts, left.queue_wait > 0) == (Outcome.CLIENT_GONE, [], True)
    assert (held.outcome, held.queue_wait) == (Outcome.CLIENT_GONE, 0.0)


async def test_it_tells_a_translated_message_with_its_tokens(proxy: Proxy, records: list[RequestRecord]) -> None:
    async with ScriptedBackend(json_reply(COMPLETION)) as backend:
        await proxy.add(backend.url)
        answer = await proxy.call("POST", MESSAGES, SAY)
    [record] = records
    assert (record.outcome, record.mode, record.prefix) == (Outcome.SUCCESS, "translation", "anthropic")
    assert (record.model, record.response_bytes) == ("m", len(answer.body))
    assert record.usage is not None
    assert (record.usage.input_tokens, record.usage.output_tokens, record.total_tokens) == (7, 3, 10)


async def test_it_tells_a_message_that_was_passed_through(proxy: Proxy, records: list[RequestRecord]) -> None:
    body = {"type": "message", "content": [], "usage": {"input_tokens": 1, "output_tokens": 2}}
    async with ScriptedBackend(json_reply(body)) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        await proxy.call("POST", MESSAGES, SAY)
    assert [(each.outcome, each.mode) for each in records] == [(Outcome.SUCCESS, "passthrough")]


async def test_it_tells_a_translated_stream_whose_last_word_is_an_error(
    proxy: Proxy, records: list[RequestRecord]
) -> None:
    delta = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    failed = b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    gate = asyncio.Event()
    async with ScriptedBackend(
        [Reply(headers=[SSE], chunks=[delta, gate, failed]), Reply(headers=[SSE], chunks=[failed])]
    ) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", MESSAGES, {**SAY, "stream": True})
        await exchange.wait_bytes(1)
        gate.set()
        await exchange.done()
        await proxy.call("POST", MESSAGES, {**SAY, "stream": True})
    told = [(each.outcome, each.status) for each in records]
    assert told == [(Outcome.BROKEN, 200), (Outcome.BACKEND_ERROR, 500)]


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (
            sse_reply([{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}]),
            "success",
            None,
        ),
        (json_reply({"error": {"message": "x"}}, status=500), "backend_error", None),
        (json_reply({"error": {"message": "x"}}, status=400), "rejected", None),
        (Cut(b""), "backend_error", "upstream_unreachable"),
    ],
)
async def test_it_judges_an_answer_that_began_early_by_what_came_of_it(
    proxy: Proxy,
    records: list[RequestRecord],
    settings: Any,
    reply: Any,
    outcome: str,
    code: str | None,
) -> None:
    settings.OLLA_TRANSLATORS_ANTHROPIC_START_AFTER = 0.02
    gate = asyncio.Event()

    async def wait_then_play(conn: Any) -> None:
        request = await conn.request()
        await gate.wait()
        assert request is not None
        await conn.play(reply, request)

    async with ScriptedBackend(wait_then_play) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", MESSAGES, {**SAY, "stream": True})
        await exchange.wait_bytes(1)
        gate.set()
        await exchange.done()
    assert [(each.outcome, each.status, each.error_code) for each in records] == [(outcome, 200, code)]
    assert records[0].response_bytes == len(exchange.body)
    await proxy.settled()


async def test_it_tells_a_client_that_leaves_an_answer_that_began_early(
    proxy: Proxy, records: list[RequestRecord], settings: Any
) -> None:
    settings.OLLA_TRANSLATORS_ANTHROPIC_START_AFTER = 0.02
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", MESSAGES, {**SAY, "stream": True})
        await exchange.wait_bytes(1)
        exchange.leave()
        await exchange.done()
    assert [each.outcome for each in records] == [Outcome.CLIENT_GONE]
    assert live.tallies.all.hang_ups == 1


async def test_it_tells_a_request_ended_by_this_server(proxy: Proxy, records: list[RequestRecord]) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", CHAT, {"model": "m"})
        await backend.wait_requests(1)
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
    assert [(each.outcome, each.status) for each in records] == [(Outcome.BROKEN, None)]
    assert live.tallies.all.hang_ups == 0


async def test_it_tells_counted_tokens(proxy: Proxy, records: list[RequestRecord]) -> None:
    async with ScriptedBackend(json_reply({"count": 5})) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await proxy.call("POST", "/olla/anthropic/v1/messages/count_tokens", SAY)
    assert answer.status == 200
    [record] = records
    assert (record.outcome, record.status, len(record.attempts)) == (Outcome.SUCCESS, 200, 1)


async def test_it_goes_on_when_a_subscriber_fails(
    proxy: Proxy, records: list[RequestRecord], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(records: Sequence[RequestRecord]) -> None:
        raise RuntimeError("the disk is full")

    unsubscribe(records.extend)
    subscribe(fail)
    subscribe(records.extend)
    try:
        async with ScriptedBackend(json_reply({})) as backend:
            await proxy.add(backend.url)
            answer = await proxy.chat()
    finally:
        unsubscribe(fail)
    assert (answer.status, len(records)) == (200, 1)
    assert "a subscriber to finished requests failed" in caplog.text


@pytest.mark.parametrize(("open_now", "told_at"), [(1, 8), (8, 8), (20, 20), (500, 32)])
async def test_it_tells_as_many_at_once_as_requests_are_open(open_now: int, told_at: int) -> None:
    told: list[RequestRecord] = []
    finished.flush()
    subscribe(told.extend)
    try:
        for _ in range(open_now):
            finished.begin()
        # Without a pause, so that time tells nobody.
        for number in range(told_at):
            assert told == []
            finished.finish(RequestRecord(f"{number}", 0.0, 0.0, "GET", "/", "openai"))
        assert [each.request_id for each in told] == [f"{number}" for number in range(told_at)]
    finally:
        unsubscribe(told.extend)
        for _ in range(open_now):
            finished.end()
        live.reset()


async def test_it_counts_no_request_as_open_that_has_ended(proxy: Proxy) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url)
        exchanges = [proxy.open("POST", CHAT, {"model": "m"}) for _ in range(10)]
        await backend.wait_requests(10)
        assert finished.at_once() == 10
        for each in exchanges[:5]:
            each.leave()
        for each in exchanges[5:]:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in exchanges), return_exceptions=True)
    assert finished.at_once() == 8


def test_it_leaves_refusals_and_hang_ups_out_of_the_success_rate() -> None:
    counts = {Outcome.SUCCESS: 3, Outcome.BROKEN: 1, Outcome.REJECTED: 50, Outcome.CLIENT_GONE: 50}
    assert success_rate(counts) == 75.0
    assert success_rate({Outcome.REJECTED: 5}) is None


def test_it_adds_up_what_is_said_of_usage() -> None:
    assert (no_record().total_tokens, no_record().tokens_per_second) == (None, None)
    record = no_record()
    record.note_usage(input_tokens=5, load_ms=3.5)
    record.note_usage(output_tokens=20)
    # Of what is no stream nobody knows how long it was being written.
    figures = [(record.total_tokens, record.tokens_per_second)]
    record.stream, record.first_byte, record.seconds = True, 1.0, 3.0
    figures.append((record.total_tokens, record.tokens_per_second))
    assert figures == [(25, None), (25, 10.0)]
    record.note_usage(total_tokens=30, tokens_per_second=12.5)
    assert (record.total_tokens, record.tokens_per_second) == (30, 12.5)
    assert record.usage is not None
    assert record.usage.metrics == {"load_ms": 3.5}


def test_it_is_finished_once() -> None:
    record = no_record()
    record.status = 200
    assert record.finish(2.0, client_left=False)
    assert not record.finish(9.0, client_left=True)
    assert (record.seconds, record.outcome) == (2.0, Outcome.SUCCESS)
    assert json.dumps(build_trace(record)) == "{}"
