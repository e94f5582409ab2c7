"""Streams: chunk by chunk, byte for byte, honestly ended, and stopped when the client leaves."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from endpoints import loading
from proxy.live import live
from tests.fakes import Conn, Cut, Raw, Reply, ScriptedBackend, Silence, json_reply, sse_reply
from tests.proxy.conftest import Exchange, Proxy, open_connections

SSE = (b"Content-Type", b"text/event-stream")
NDJSON = (b"Content-Type", b"application/x-ndjson")


@pytest.mark.parametrize("size", [1, 64 * 1024])
async def test_it_passes_each_chunk_on_before_the_next_but_one_is_sent(proxy: Proxy, size: int) -> None:
    gates = [asyncio.Event() for _ in range(8)]
    chunks: list[Any] = []
    for gate in gates:
        chunks += [gate, os.urandom(size)]
    async with ScriptedBackend(Reply(headers=[SSE], chunks=chunks)) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", "/olla/openai/v1/chat/completions", {"model": "m", "stream": True})
        for number, gate in enumerate(gates, 1):
            gate.set()
            await exchange.wait_bytes(number * size)
            assert len(exchange.body) == number * size
        await exchange.done()
    assert exchange.body == b"".join(piece for piece in chunks if isinstance(piece, bytes))
    assert exchange.complete


async def test_it_relays_a_large_chunked_body_byte_for_byte(proxy: Proxy, long_form: bool) -> None:
    piece = os.urandom(64 * 1024)
    count = 1600 if long_form else 400
    async with ScriptedBackend(Reply(headers=[SSE], chunks=[piece] * count)) as backend:
        await proxy.add(backend.url)
        answer = await proxy.open("POST", "/olla/openai/v1/completions", {"model": "m"}).done(within=60)
    wanted = hashlib.sha256()
    for _ in range(count):
        wanted.update(piece)
    assert hashlib.sha256(answer.body).hexdigest() == wanted.hexdigest()


async def test_it_leaves_characters_cut_anywhere_and_compressed_events_untouched(proxy: Proxy) -> None:
    text = "data: žluťoučký 🐎\n\n".encode()
    zipped = gzip.compress(text * 50, mtime=0)
    cases = [
        Reply(headers=[SSE], chunks=[text[i : i + 1] for i in range(len(text))]),
        Reply(headers=[SSE, (b"Content-Encoding", b"gzip")], chunks=[zipped[:7], 0.01, zipped[7:]]),
    ]
    for number, (reply, wanted) in enumerate(zip(cases, [text, zipped], strict=True)):
        async with ScriptedBackend(reply) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"])
            answer = await proxy.call("POST", "/olla/openai/v1/completions", {"model": f"m{number}"})
            assert answer.body == wanted


async def test_it_ends_a_broken_event_stream_with_an_error_event(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for number, (sent, gap) in enumerate([(b"data: 1\n\n", b""), (b'data: {"hal', b"\n\n")]):
        async with ScriptedBackend(Cut(head + b"%x\r\n%b\r\n" % (len(sent), sent))) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"])
            answer = await proxy.call("POST", "/olla/openai/v1/completions", {"model": f"m{number}"})
            assert answer.complete
            assert not answer.aborted
            assert answer.body.startswith(sent + gap + b"data: ")
            event = json.loads(answer.body.removeprefix(sent + gap).removeprefix(b"data: "))
            assert event["error"]["code"] == "upstream_invalid"
            assert event["olla_context"]["endpoint"] == f"e{number}"
            assert event["olla_context"]["request_id"] == answer.header("x-olla-request-id")
    await proxy.settled()


async def test_it_ends_a_broken_ndjson_stream_with_an_error_object(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with ScriptedBackend(Cut(head + b'8\r\n{"a": 1}\r\n')) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        answer = await proxy.call("POST", "/olla/ollama/api/chat", {"model": "m"})
    lines = answer.body.splitlines()
    assert json.loads(lines[0]) == {"a": 1}
    assert "broke off" in json.loads(lines[1])["error"]


async def test_it_aborts_any_other_broken_body(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 100000\r\n\r\n"
    async with ScriptedBackend(Cut(head + b"x" * 1000)) as backend:
        await proxy.add(backend.url)
        answer = await proxy.call("POST", "/olla/openai/v1/audio/speech", {"model": "m"})
    assert answer.aborted
    assert not answer.complete
    await proxy.settled()


async def test_it_tries_elsewhere_when_a_stream_dies_before_its_first_chunk(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with ScriptedBackend(Cut(head)) as bad, ScriptedBackend(sse_reply([{"x": 1}])) as good:
        await proxy.add(bad.url, name="a")
        await proxy.add(good.url, name="b")
        for _ in range(2):
            answer = await proxy.chat(stream=True)
            assert answer.header("x-olla-endpoint") == "b"
        assert bad.requests


async def test_it_never_repeats_a_request_of_which_a_byte_was_passed_on(proxy: Proxy) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    cut = Cut(head + b"9\r\ndata: 1\n\n\r\n")
    async with ScriptedBackend(cut) as one, ScriptedBackend(cut) as two:
        await proxy.add(one.url, name="a")
        await proxy.add(two.url, name="b")
        await proxy.chat(stream=True)
        assert len(one.requests) + len(two.requests) == 1


def _silent() -> Any:
    return Silence()


def _head_only() -> Any:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await conn.request()

    return script


def _endless() -> Any:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        conn.write(b"9\r\ndata: 1\n\n\r\n")
        await conn.request()

    return script


@pytest.mark.parametrize("script", [_silent, _head_only, _endless])
async def test_it_stops_the_backend_when_the_client_leaves_and_blames_nobody(
    proxy: Proxy, script: Callable[[], Any]
) -> None:
    async with ScriptedBackend(script()) as backend:
        endpoint = await proxy.add(backend.url)
        exchange = proxy.open("POST", "/olla/openai/v1/chat/completions", {"model": "m", "stream": True})
        await backend.wait_requests(1)
        if script is _endless:
            await exchange.wait_bytes(9)
        exchange.leave()
        await backend.wait_all_closed(within=10)
        await exchange.done()
        await proxy.settled()
        assert open_connections() == 0
        assert endpoint.pk not in live.failures
        assert endpoint.pk not in live.demoted


async def test_it_survives_many_clients_leaving_at_once(proxy: Proxy) -> None:
    async with ScriptedBackend(_endless()) as backend:
        await proxy.add(backend.url)
        opened = [proxy.open("POST", "/olla/openai/v1/completions", {"model": "m"}) for _ in range(40)]
        await backend.wait_requests(40)
        for exchange in opened[::2]:
            exchange.leave()
        await backend.wait_closed(20, within=10)
        assert sum(live.in_flight.values()) == 20
        for exchange in opened[1::2]:
            exchange.leave()
        await asyncio.gather(*(exchange.done() for exchange in opened))
        await proxy.settled()


async def test_a_warm_request_makes_no_thread_hop_and_no_query(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedBackend(json_reply({"ok": True})) as backend:
        await proxy.add(backend.url)
        assert (await proxy.chat()).status == 200
        hops: list[Any] = []
        submit = ThreadPoolExecutor.submit

        def counted(self: ThreadPoolExecutor, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            hops.append(fn)
            return submit(self, fn, *args, **kwargs)

        def forbidden(*_: Any) -> Any:
            raise AssertionError("a query")

        monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
        with connections["default"].execute_wrapper(forbidden):
            calls: list[Exchange] = [
                await proxy.chat(),
                await proxy.chat(prefix="proxy"),
                await proxy.call("GET", "/olla/openai/v1/models"),
                await proxy.call("POST", "/olla/openai/v1/chat/completions", {"model": "unknown"}),
                await proxy.call("GET", "/internal/health"),
            ]
        assert [call.status for call in calls] == [200, 200, 200, 404, 200]
        assert hops == []


async def test_it_answers_from_the_last_snapshot_whatever_the_database_does(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"ok": True})) as backend:
        await proxy.add(backend.url)
        revision = loading.current().revision
        assert (await proxy.chat()).status == 200
        assert loading.current().revision == revision


async def test_it_survives_garbage_from_a_backend(proxy: Proxy) -> None:
    for number, garbage in enumerate([b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n"]):
        async with ScriptedBackend(Raw(garbage)) as backend:
            await proxy.add(backend.url, name=f"e{number}", models=[f"m{number}"], first_byte_timeout=2)
            answer = await proxy.call("POST", "/olla/openai/v1/completions", {"model": f"m{number}"})
            assert answer.status == 502
            assert answer.json()["error"]["code"] in {"upstream_invalid", "upstream_timeout"}
