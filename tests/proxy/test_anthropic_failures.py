"""The Anthropic routes when things go wrong: before the first byte, in the middle, and when nothing happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from proxy.anthropic_record import MEMORY_SECONDS, AnthropicState, CallRecord, Refused
from proxy.anthropic_relay import AnthropicRelay, UntouchedStream
from proxy.early_start import start_early
from proxy.live import live
from proxy.relay import Ending, RelayResponse
from proxy.upstream import close_door, open_door
from tests.fakes import (
    Conn,
    Cut,
    Raw,
    Reply,
    ScriptedBackend,
    Silence,
    gzip_reply,
    json_reply,
    refused_origin,
    sse_reply,
)
from tests.proxy.anthropic_builders import (
    CHUNKS,
    HEAD,
    MESSAGES,
    USAGE,
    ask,
    chat_stream,
    chunk,
    completion,
    events,
    message,
    native_reply,
    native_stream,
    send,
)
from tests.proxy.builders import make_endpoint, make_inbound
from tests.proxy.conftest import Exchange, Proxy, open_connections
from tests.translation.grammar import read_frames, read_stream
from translation.translator_stats import Outcome

BOTH = pytest.mark.parametrize("kind", ["vllm", "sglang"])  # native, and translated
BOTH_WAYS = pytest.mark.parametrize("stream", [False, True])
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def framed(*pieces: bytes) -> bytes:
    """A chunked answer that has not ended."""
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def totals() -> Any:
    return live.anthropic.totals


# -- before the first byte


@pytest.mark.parametrize(
    ("status", "shown", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (409, 409, "conflict_error"),
        (413, 413, "request_too_large"),
        (422, 400, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (503, 503, "api_error"),
        (504, 504, "timeout_error"),
        (529, 529, "overloaded_error"),
        (302, 502, "api_error"),
    ],
)
@BOTH_WAYS
async def test_it_tells_a_chat_backends_error_in_the_envelope(
    proxy: Proxy, status: int, shown: int, kind: str, stream: bool
) -> None:
    body = {"error": {"message": "no luck", "type": "x", "code": None}}
    reply = json_reply(body, status, headers=[(b"Retry-After", b"7"), (b"x-secret", b"1")])
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=stream))
        assert answer.status == shown
        assert answer.json()["error"] == {"type": kind, "message": "no luck"}
        assert answer.json()["request_id"] == answer.header("request-id") == answer.header("x-olla-request-id")
        assert answer.header("retry-after") == "7"
        assert answer.header("x-secret") is None
        assert answer.header("x-olla-endpoint") == "one"
        assert answer.header("x-olla-mode") == "translation"
    assert totals().upstream_errors == 1
    assert totals().successes == 0


@BOTH_WAYS
async def test_it_relays_a_native_error_byte_for_byte(proxy: Proxy, stream: bool) -> None:
    body = b'{ "type":"error", "error":{"type":"invalid_request_error","message":"prompt is too long"} }'
    async with ScriptedBackend(Reply(400, [(b"retry-after", b"3")], body)) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await send(proxy, ask(stream=stream))
        assert (answer.status, answer.body) == (400, body)
        assert answer.header("retry-after") == "3"
        assert answer.header("x-olla-mode") == "passthrough"
        assert answer.header("request-id")
    assert totals().upstream_errors == 1


async def test_it_relays_a_chunked_native_error_whole(proxy: Proxy) -> None:
    body = b'{"type":"error","error":{"type":"not_found_error","message":"gone"}}'
    async with ScriptedBackend(Reply(404, chunks=[body[:9], body[9:]])) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await send(proxy)
    assert (answer.status, answer.body) == (404, body)
    assert answer.header("content-length") == str(len(body))


@pytest.mark.parametrize(
    ("body", "wording"),
    [
        (
            {"error": {"code": "context_length_exceeded", "message":
             "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
             "(4000 in the messages, 1000 in the completion)."}},
            "input length and `max_tokens` exceed context limit: 4000 + 1000 > 4096",
        ),
        (
            {"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096,
                       "message": "the request exceeds the available context size"}},
            "prompt is too long: 9000 tokens > 4096 maximum",
        ),
    ],
)  # fmt: skip
async def test_it_tells_an_overflow_in_the_words_clients_recover_from(
    proxy: Proxy, body: Any, wording: str
) -> None:
    async with ScriptedBackend(json_reply(body, 400)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"].startswith(wording)


@BOTH
@BOTH_WAYS
async def test_it_answers_502_when_nobody_can_be_reached(proxy: Proxy, kind: str, stream: bool) -> None:
    with refused_origin() as origin:
        await proxy.add(f"http://{origin.authority}", backend_type=kind)
        answer = await send(proxy, ask(stream=stream))
    assert answer.status == 502
    assert answer.json()["error"]["type"] == "api_error"
    assert answer.header("content-type") == "application/json"
    await proxy.settled()
    assert totals().requests == 1
    assert totals().successes == totals().upstream_errors == 0


@BOTH
@BOTH_WAYS
async def test_it_answers_504_when_time_runs_out(proxy: Proxy, kind: str, stream: bool) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, backend_type=kind, first_byte_timeout=1)
        answer = await send(proxy, ask(stream=stream))
    assert answer.status == 504
    assert answer.json()["error"]["type"] == "timeout_error"


@BOTH
@BOTH_WAYS
async def test_it_tries_elsewhere_before_the_first_byte(proxy: Proxy, kind: str, stream: bool) -> None:
    good = {
        "/v1/messages": native_stream() if stream else native_reply(),
        "/v1/chat/completions": chat_stream() if stream else json_reply(completion()),
    }
    async with ScriptedBackend(Cut(HEAD)) as bad, ScriptedBackend(good) as other:
        await proxy.add(bad.url, name="bad", backend_type=kind)
        await proxy.add(other.url, name="good", backend_type=kind)
        for _ in range(2):
            answer = await send(proxy, ask(stream=stream))
            assert answer.status == 200
            assert answer.header("x-olla-endpoint") == "good"
        assert bad.requests
    await proxy.settled()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>oops</html>"),
        json_reply({"choices": []}),
        json_reply({"choices": [{"index": 0}]}),
        json_reply([1]),
        Reply(body=b""),
    ],
)
async def test_it_answers_502_for_a_success_that_is_none(proxy: Proxy, reply: Reply) -> None:
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
    assert answer.status == 502
    assert answer.json()["error"]["type"] == "api_error"
    assert totals().upstream_errors == 1


@BOTH_WAYS
async def test_it_judges_an_error_in_a_success_by_what_it_says(proxy: Proxy, stream: bool) -> None:
    value = {"error": {"message": "busy", "type": "overloaded_error", "code": 503}}
    reply = sse_reply([value]) if stream else json_reply(value)
    good = chat_stream() if stream else json_reply(completion())
    async with ScriptedBackend(reply) as backend, ScriptedBackend(good) as other:
        await proxy.add(backend.url, name="a", priority=200)
        answer = await send(proxy, ask(stream=stream))
        assert answer.status == 503
        assert answer.json()["error"]["message"] == "busy"
        await proxy.add(other.url, name="b", priority=100)
        with override_settings(OLLA_LOAD_BALANCER="priority"):
            answer = await send(proxy, ask(stream=stream))
        assert answer.header("x-olla-endpoint") == "b"
        assert len(backend.requests) == 2


async def test_it_reads_an_error_body_no_further_than_its_limit(proxy: Proxy) -> None:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(b"HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not conn.gone.is_set():
            conn.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await conn.drain()

    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
        assert answer.status == 400
        assert len(answer.json()["error"]["message"]) == 300
        await backend.wait_all_closed()


# -- in the middle


async def test_it_ends_a_translated_stream_that_died_with_an_error_event(proxy: Proxy) -> None:
    for number, end in enumerate(
        [Cut(framed(*map(data, CHUNKS[:2]))), Cut(framed(*map(data, CHUNKS[:2])), rst=True)]
    ):
        async with ScriptedBackend(end) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"])
            answer = await send(proxy, {**ask(stream=True), "model": f"m{number}"})
        stream = read_stream(answer.body)
        assert answer.status == 200
        assert answer.complete
        assert not answer.aborted
        assert stream.error["type"] == "api_error"
        assert "message_stop" not in [event["type"] for event in stream.events]
    await proxy.settled()
    assert totals().stream_failures == 2


@pytest.mark.parametrize("keep", [2, 3])
async def test_it_ends_a_native_stream_that_died_with_an_error_event(proxy: Proxy, keep: int) -> None:
    whole = b"".join(events()[:keep])
    for sent in (whole, whole + b"event: content_blo"):
        async with ScriptedBackend(Cut(framed(sent))) as backend:
            await proxy.add(backend.url, name=f"e{len(sent)}", models=[f"m{len(sent)}"], backend_type="vllm")
            answer = await send(proxy, {**ask(stream=True), "model": f"m{len(sent)}"})
        assert answer.complete
        assert answer.body.startswith(sent)
        last = read_frames(b"event: " + answer.body.rpartition(b"event: ")[2])[0]
        assert last["error"]["type"] == "api_error"
        assert last["request_id"] == answer.header("request-id")
        assert b"message_stop" not in answer.body
        rest = answer.body.removeprefix(sent)
        assert rest.startswith(b"event: error" if sent == whole else b"\n\nevent: error")
    await proxy.settled()
    assert totals().stream_failures == 2


async def test_it_aborts_a_native_body_that_died_where_no_event_can_tell(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    async with ScriptedBackend(Cut(head + b"{" * 1000)) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await send(proxy)
    assert answer.aborted
    await proxy.settled()


async def test_it_answers_502_when_a_whole_message_is_cut(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    async with ScriptedBackend(Cut(head + b'{"choices"')) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
    assert answer.status == 502
    assert answer.json()["error"]["type"] == "api_error"


async def test_it_needs_no_end_mark_after_a_finish_reason(proxy: Proxy) -> None:
    async with ScriptedBackend(sse_reply(CHUNKS, done=False)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
    assert read_stream(answer.body).message["stop_reason"] == "end_turn"


async def test_it_counts_a_backend_that_died_after_its_last_word_as_a_success(proxy: Proxy) -> None:
    async with ScriptedBackend(Cut(framed(*map(data, CHUNKS[:4])))) as backend:
        endpoint = await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
    assert read_stream(answer.body).message["stop_reason"] == "end_turn"
    await proxy.settled()
    assert totals().successes == 1
    assert live.failures[endpoint.pk] == 1


@pytest.mark.parametrize("lines", [CHUNKS[:3], [chunk({"content": "a"}), {"error": {"message": "died"}}]])
async def test_it_never_makes_a_clean_end_of_one_that_was_none(proxy: Proxy, lines: list[Any]) -> None:
    async with ScriptedBackend(sse_reply(lines, done=False, gap=0.1)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
    stream = read_stream(answer.body)
    assert stream.error["type"] == "api_error"
    assert "stop" not in stream.outline
    assert totals().stream_failures == 1


async def test_it_leaves_the_breaker_alone_when_only_words_were_missing(proxy: Proxy) -> None:
    async with ScriptedBackend(sse_reply(CHUNKS[:3], done=False)) as backend:
        endpoint = await proxy.add(backend.url)
        for _ in range(6):
            assert (await send(proxy, ask(stream=True))).status == 200
        assert endpoint.pk not in live.failures
    assert totals().stream_failures == 6


async def test_it_closes_after_an_error_event_whatever_follows(proxy: Proxy) -> None:
    lines = [
        chunk({"content": "a"}),
        {"error": {"message": "died"}},
        chunk({"content": "b"}),
        chunk(finish="stop"),
    ]
    async with ScriptedBackend(sse_reply(lines, gap=0.1)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
    assert b'"b"' not in answer.body
    assert read_frames(answer.body)[-1]["type"] == "error"


async def test_it_makes_events_of_a_message_and_a_message_of_events(proxy: Proxy) -> None:
    async with ScriptedBackend([json_reply(completion()), chat_stream(), gzip_reply(chat_text())]) as backend:
        await proxy.add(backend.url)
        streamed = await send(proxy, ask(stream=True))
        whole = await send(proxy)
        unzipped = await send(proxy, ask(stream=True))
    for answer in (streamed, unzipped):
        assert answer.header("content-type") == "text/event-stream"
        assert read_stream(answer.body).message["content"] == [{"type": "text", "text": "Hi there"}]
    assert whole.json()["content"] == [{"type": "text", "text": "Hi there"}]
    assert totals().successes == 3


def chat_text() -> bytes:
    return b"".join(map(data, CHUNKS)) + b"data: [DONE]\n\n"


async def test_it_survives_an_event_cut_at_every_byte(proxy: Proxy) -> None:
    text = chat_text()
    pieces = [text[i : i + 1] for i in range(len(text))]
    async with ScriptedBackend(Reply(headers=[(b"Content-Type", b"text/event-stream")], chunks=pieces)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
    assert read_stream(answer.body).message["content"] == [{"type": "text", "text": "Hi there"}]


# -- a client that leaves


def silent() -> Any:
    return Silence()


def head_only() -> Any:
    return Raw(HEAD)


def begun(native: bool) -> Any:
    pieces = events()[:3] if native else [data(each) for each in CHUNKS[:2]]
    return Raw(framed(*pieces))


@BOTH
@pytest.mark.parametrize("when", ["silent", "head", "middle"])
async def test_it_frees_the_backend_when_the_client_leaves(proxy: Proxy, kind: str, when: str) -> None:
    scripts: dict[str, Callable[[], Any]] = {
        "silent": silent, "head": head_only, "middle": lambda: begun(kind == "vllm"),
    }  # fmt: skip
    async with ScriptedBackend(scripts[when]()) as backend:
        endpoint = await proxy.add(backend.url, backend_type=kind)
        exchange = proxy.open("POST", MESSAGES, ask(stream=True))
        await backend.wait_requests(1)
        if when == "middle":
            await exchange.wait_bytes(100)
        exchange.leave()
        await backend.wait_all_closed(within=10)
        await exchange.done()
        await proxy.settled()
        assert open_connections() == 0
        assert endpoint.pk not in live.failures
    assert totals().client_aborts == 1
    assert totals().requests == 1
    assert live.tallies.all.hang_ups == 1


@BOTH
async def test_it_frees_the_backend_when_the_client_leaves_an_unstreamed_message(proxy: Proxy, kind: str) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, backend_type=kind)
        exchange = proxy.open("POST", MESSAGES, ask())
        await backend.wait_requests(1)
        exchange.leave()
        await backend.wait_all_closed(within=10)
        await exchange.done()
        await proxy.settled()
    assert totals().client_aborts == 1


# -- silence


@BOTH
async def test_it_pings_while_the_backend_is_silent_in_the_middle(proxy: Proxy, kind: str) -> None:
    gate = asyncio.Event()
    if kind == "vllm":
        parts = events()
        reply = native_stream(*parts[:3], gate, *parts[3:])
    else:
        lines = [data(each) for each in CHUNKS]
        chunks: list[Any] = [*lines[:2], gate, *lines[2:], b"data: [DONE]\n\n"]
        reply = Reply(headers=[(b"Content-Type", b"text/event-stream")], chunks=chunks)
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with override_settings(OLLA_TRANSLATORS_ANTHROPIC_PING_INTERVAL=0.1):
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 3)
            gate.set()
            await exchange.done()
    assert read_stream(exchange.body).message["content"] == [{"type": "text", "text": "Hi there"}]
    await proxy.settled()


async def wait_pings(exchange: Exchange, count: int) -> None:
    async with asyncio.timeout(60), exchange.arrived:
        await exchange.arrived.wait_for(lambda: exchange.body.count(b"event: ping") >= count)


async def test_it_never_pings_inside_a_native_event_nor_a_compressed_stream(proxy: Proxy) -> None:
    first, *rest = events()
    gate = asyncio.Event()
    coded = [(b"Content-Encoding", b"x-own")]
    for number, headers in enumerate([[], coded]):
        gate.clear()
        script = native_stream(first[:20], gate, first[20:], *rest, headers=headers)
        async with ScriptedBackend(script) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"], backend_type="vllm")
            with override_settings(OLLA_TRANSLATORS_ANTHROPIC_PING_INTERVAL=0.1):
                fields = {**ask(stream=True), "model": f"m{number}"}
                exchange = proxy.open("POST", MESSAGES, fields)
                await exchange.wait_bytes(20)
                await asyncio.sleep(0.4)
                gate.set()
                await exchange.done()
        assert exchange.body == b"".join([first, *rest])


async def test_it_still_heeds_the_idle_limit_while_it_pings(proxy: Proxy) -> None:
    async with ScriptedBackend(begun(native=False)) as backend:
        endpoint = await proxy.add(backend.url, idle_timeout=4)
        with override_settings(OLLA_TRANSLATORS_ANTHROPIC_PING_INTERVAL=0.2):
            answer = await send(proxy, ask(stream=True))
        stream = read_stream(answer.body)
        assert stream.pings >= 2
        assert stream.error["type"] == "timeout_error"
        await proxy.settled()
        assert live.failures[endpoint.pk] == 1


EARLY = override_settings(OLLA_TRANSLATORS_ANTHROPIC_START_AFTER=0.2, OLLA_TRANSLATORS_ANTHROPIC_PING_INTERVAL=0.1)


@BOTH
async def test_it_begins_with_pings_when_no_backend_has_answered_for_long(proxy: Proxy, kind: str) -> None:
    gate = asyncio.Event()
    parts = events() if kind == "vllm" else [*(data(each) for each in CHUNKS), b"data: [DONE]\n\n"]
    reply = Reply(headers=[(b"Content-Type", b"text/event-stream")], chunks=parts, before=gate)
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with EARLY:
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 3)
            assert exchange.status == 200
            gate.set()
            await exchange.done()
    pings, _, rest = exchange.body.rpartition(PING)
    assert pings.replace(PING, b"") == b""
    assert read_stream(rest).message["content"] == [{"type": "text", "text": "Hi there"}]
    await proxy.settled()
    assert totals().successes == 1


@BOTH
@pytest.mark.parametrize(
    ("late", "error"),
    [
        (json_reply({"error": {"message": "no luck"}}, 400), "invalid_request_error"),
        (
            json_reply({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, 429),
            "rate_limit_error",
        ),
        (Cut(b""), "api_error"),
    ],
)
async def test_it_tells_a_failure_after_that_as_an_event(proxy: Proxy, kind: str, late: Any, error: str) -> None:
    gate = asyncio.Event()

    async def script(conn: Conn) -> None:
        request = await conn.request()
        await gate.wait()
        if request is not None:
            await conn.play(late, request)

    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with EARLY:
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 2)
            gate.set()
            await exchange.done()
    last = read_frames(exchange.body)[-1]
    assert last["type"] == "error"
    assert last["error"]["type"] == error
    assert exchange.complete
    await proxy.settled()


async def test_it_still_tries_elsewhere_after_the_pings_began(proxy: Proxy) -> None:
    gate = asyncio.Event()
    bad, good = Reply(503, before=gate), chat_stream()
    async with ScriptedBackend(bad) as one, ScriptedBackend(good) as two:
        await proxy.add(one.url, name="a", priority=200)
        await proxy.add(two.url, name="b", priority=100)
        with EARLY, override_settings(OLLA_LOAD_BALANCER="priority"):
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 2)
            gate.set()
            await exchange.done()
        assert len(two.requests) == 1
    assert read_stream(exchange.body.replace(PING, b"")).message["stop_reason"] == "end_turn"


@BOTH
async def test_it_frees_the_backend_of_a_client_that_leaves_among_the_pings(proxy: Proxy, kind: str) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with EARLY:
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 2)
            exchange.leave()
            await backend.wait_all_closed(within=10)
            await exchange.done()
        await proxy.settled()
    assert totals().client_aborts == 1


@BOTH
async def test_it_frees_the_backend_of_a_client_that_leaves_after_the_pings(proxy: Proxy, kind: str) -> None:
    gate = asyncio.Event()

    async def script(conn: Conn) -> None:
        request = await conn.request()
        await gate.wait()
        if request is not None:
            await conn.play(begun(native=kind == "vllm"), request)
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with EARLY:
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 2)
            gate.set()
            async with asyncio.timeout(60), exchange.arrived:
                await exchange.arrived.wait_for(lambda: b"message_start" in exchange.body)
            exchange.leave()
            await backend.wait_all_closed(within=10)
            await exchange.done()
        await proxy.settled()
        assert open_connections() == 0
    assert totals().client_aborts == 1


async def test_it_tells_a_fault_of_its_own_in_the_middle_as_an_event(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(UntouchedStream):
        def feed(self, chunk: bytes, now: float) -> bytes:
            raise LookupError("a mistake of ours")

    endings: list[Ending] = []
    async with ScriptedBackend(native_stream(b"event: ping\n", b"data: {}\n\n")) as backend:
        endpoint = make_endpoint(url=backend.url)
        inbound = make_inbound(body=b"{}", method="POST")
        answer = await open_door().send(endpoint, inbound)
        first = b"event: cut"
        stream = Faulty("r", first, time.monotonic(), 60)
        relay = AnthropicRelay(200, [], answer=answer, first=first, stream=stream, on_end=endings.append)
        chunks = [each async for each in relay]
        await relay.aclose()
        await close_door()
    assert read_frames(chunks[1].removeprefix(b"\n\n"))[0]["error"]["type"] == "api_error"
    assert len(chunks) == 2
    assert endings == [Ending.BROKEN]
    assert "a mistake of ours" in caplog.text


async def test_it_tells_a_fault_of_its_own_behind_the_pings_as_an_event() -> None:
    async def faulty() -> RelayResponse:
        await asyncio.sleep(0.05)
        raise LookupError

    answer = await start_early(faulty(), make_inbound(), 0.001)
    chunks = [each async for each in answer]
    await answer.aclose()
    assert chunks[0] == PING
    assert read_frames(chunks[-1])[0]["error"]["type"] == "api_error"


async def test_it_closes_an_answer_that_comes_when_the_client_has_just_left() -> None:
    closed: list[bool] = []

    class Late(RelayResponse):
        async def aclose(self) -> None:
            closed.append(True)

    async def stubborn() -> RelayResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return Late(200, [])
        raise AssertionError

    task = asyncio.get_running_loop().create_task(start_early(stubborn(), make_inbound(), 60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_it_tells_a_whole_message_where_events_were_promised_as_an_error(proxy: Proxy) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(json_reply(message(), before=gate)) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        with EARLY:
            exchange = proxy.open("POST", MESSAGES, ask(stream=True))
            await wait_pings(exchange, 1)
            gate.set()
            await exchange.done()
    assert read_frames(exchange.body)[-1]["error"]["type"] == "api_error"


# -- limits and statistics


async def test_it_answers_529_when_the_line_is_full(proxy: Proxy) -> None:
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url, max_concurrent=1)
        with override_settings(OLLA_QUEUE_LENGTH=0):
            live.reset()
            waiting = proxy.open("POST", MESSAGES, ask())
            await backend.wait_requests(1)
            answer = await send(proxy)
            waiting.leave()
            await waiting.done()
    assert answer.status == 529
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert answer.header("retry-after") == "1"


async def test_it_opens_the_breaker_for_failures_on_this_route_too(proxy: Proxy) -> None:
    async with ScriptedBackend(Reply(503)) as backend:
        await proxy.add(backend.url)
        for _ in range(5):
            assert (await send(proxy)).status == 503
        answer = await send(proxy)
        assert len(backend.requests) == 5
    assert answer.status == 503
    assert answer.json()["error"]["type"] == "api_error"


@pytest.mark.parametrize("name", ["x-olla-session-id", "x-claude-code-session-id"])
async def test_it_keeps_a_conversation_at_its_endpoint(proxy: Proxy, name: str) -> None:
    async with ScriptedBackend(native_reply()) as one, ScriptedBackend(json_reply(completion())) as two:
        await proxy.add(one.url, name="a", backend_type="vllm")
        await proxy.add(two.url, name="b")
        with override_settings(OLLA_STICKY_SESSIONS=True):
            live.reset()
            answers = [await send(proxy, headers=[(name, "s")]) for _ in range(4)]
    assert {each.header("x-olla-session-id") for each in answers} == {"s"}
    assert [each.header("x-olla-sticky-session") for each in answers] == ["miss", "hit", "hit", "hit"]
    assert len({each.header("x-olla-endpoint") for each in answers}) == 1


async def test_it_counts_by_real_outcome(proxy: Proxy) -> None:
    assert live.anthropic.report()["translators"] == []
    chat = [chat_stream(), json_reply(completion()), json_reply({"error": "no"}, 400)]
    async with ScriptedBackend(native_reply()) as native, ScriptedBackend(chat) as backend:
        await proxy.add(native.url, name="n", models=["nm"], backend_type="vllm")
        await proxy.add(backend.url, name="c")
        await send(proxy, {**ask(), "model": "nm"})
        await send(proxy, ask(stream=True, top_k=3))
        await send(proxy)
        await send(proxy)
        await send(proxy, {**ask(), "model": "nobody"})
        await send(proxy, {})
    report = live.anthropic.report()
    (entry,) = report["translators"]
    assert entry | {
        "translator_name": "anthropic", "total_requests": 6, "successful_requests": 3, "failed_requests": 3,
        "success_rate": "50.0%", "passthrough_requests": 1, "translation_requests": 5, "streaming_requests": 1,
        "upstream_errors": 1, "fallback_cannot_passthrough": 3,
        "fallback_no_compatible_endpoints": 1, "input_tokens": 2 * USAGE["prompt_tokens"],
        "output_tokens": 2 * USAGE["completion_tokens"], "by_endpoint": {"c": 3, "n": 1},
        "by_model": {"m": 3, "nm": 1}, "dropped_features": {"top_k": 1},
    } == entry  # fmt: skip
    assert entry["first_byte_p50_ms"] > 0
    assert report["summary"]["total_requests"] == 6


def test_it_forgets_after_a_while_what_an_endpoint_refused() -> None:
    state, endpoint = AnthropicState(), make_endpoint()
    state.remember(endpoint, Refused.NATIVE_PATH, 100.0)
    assert not state.knows(endpoint, Refused.NATIVE_PATH, 100.0 + MEMORY_SECONDS)
    assert state.knows(endpoint, Refused.STREAM_OPTIONS, 100.0)
    assert state.knows(endpoint, Refused.NATIVE_PATH, 101.0 + MEMORY_SECONDS)
    assert state.knows(make_endpoint(url="http://elsewhere.local"), Refused.NATIVE_PATH, 100.0)


def test_it_counts_each_request_once() -> None:
    state = AnthropicState()
    record = CallRecord(state, 0.0)
    record.end(Outcome.CLIENT_ABORT)
    record.end(Outcome.SUCCESS)
    assert (state.totals.requests, state.totals.client_aborts, state.totals.successes) == (1, 1, 0)
