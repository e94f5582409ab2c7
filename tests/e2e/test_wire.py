"""Streams through the real server, seen from raw sockets: many at once, honest ends, slow readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.seed import seed_database
from tests.e2e.wire import UNLIMITED, Wire, ask, asking, assert_calm, nothing_open, trickling
from tests.fakes import Conn, Cut, Piece, Reply, Script, ScriptedBackend, sse_reply
from tests.live import LiveServer, steady_port

CHAT = "/olla/openai/v1/chat/completions"
FIELDS = {"model": "m", "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
# A backend that keeps no connection spares the test the time until the server drops idle ones.
ONCE = (b"Connection", b"close")
FIRST = b"data: 1\n\n"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def port() -> int:
    """A port that the tests' backends take in turn."""
    return steady_port()


@pytest.fixture(scope="module")
def hasty_port() -> int:
    """The same for an endpoint that is given up after half a second of silence."""
    return steady_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int, hasty_port: int) -> Iterator[LiveServer]:
    """A server before one endpoint, and a hasty one of another kind."""
    data_dir: Path = tmp_path_factory.mktemp("wire")
    one, hasty = (f"http://127.0.0.1:{each}" for each in (port, hasty_port))
    rows: list[dict[str, Any]] = [
        {"name": "one", "url": one, "kind": "openai-compatible", "models": ["m"]},
        {"name": "hasty", "url": hasty, "kind": "ollama", "models": ["h"], "columns": {"idle_timeout": 0.5}},
    ]
    seed_database(data_dir, rows)
    env = {**UNLIMITED, "OLLA_BREAKER_THRESHOLD": "0", "OLLA_SNAPSHOT_INTERVAL": "0.1"}
    with LiveServer(data_dir=data_dir, env=env) as live_server:
        yield live_server


@asynccontextmanager
async def backend_of(server: LiveServer, port: int, script: Script) -> AsyncIterator[ScriptedBackend]:
    """The endpoint's backend; in the end the server is calm and has nothing open."""
    async with ScriptedBackend(script, port=port) as backend:
        yield backend
        await nothing_open(server, {port})
        await backend.wait_all_closed()
    assert_calm(server)


def chunk(data: bytes) -> bytes:
    """A chunk as it is framed."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_it_starts_256_streams_to_one_backend_at_once(server: LiveServer, port: int) -> None:
    gate = asyncio.Event()

    async def script(conn: Conn) -> None:
        request = await conn.request()
        assert request is not None
        conn.write(HEAD % b"text/event-stream\r\nConnection: close" + chunk(FIRST))
        await gate.wait()
        mine = b"data: %d\n\n" % request.json()["ticket"]
        conn.write(chunk(mine) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await conn.request()

    async def one(ticket: int) -> None:
        async with asking(server, CHAT, {**FIELDS, "ticket": ticket}) as wire:
            assert await wire.read_head() == 200
            assert await wire.read_until(len(FIRST)) == FIRST
            started.release()
            await wire.read_until(1 << 60)
            assert wire.finished
            assert bytes(wire.body) == FIRST + b"data: %d\n\n" % ticket + b"data: [DONE]\n\n"

    started = asyncio.Semaphore(0)
    async with backend_of(server, port, script) as backend:
        clients = [asyncio.ensure_future(one(ticket)) for ticket in range(256)]
        async with asyncio.timeout(60):
            for _ in clients:
                await started.acquire()
        # Every one of them has its first event while none has ended: nobody waits for another's place.
        assert (len(backend.requests), backend.open) == (256, 256)
        gate.set()
        await asyncio.gather(*clients)


# What is sent, then what comes after `begun`: the client has the head of its answer.
ENDS: dict[str, Callable[[bytes, asyncio.Event], Cut]] = {
    "fin": lambda data, begun: Cut([data, begun]),
    "rst": lambda data, begun: Cut([data, begun], rst=True),
    "garbage": lambda data, begun: Cut([data, begun, b"no chunk at all\r\n", 0.1]),
}


async def read_to(wire: Wire, begun: asyncio.Event) -> None:
    """Read head and body to their end, which comes once the head is there."""
    await wire.read_head()
    begun.set()
    await wire.read_until(1 << 60)


@pytest.mark.parametrize("end", ENDS)
async def test_it_ends_a_broken_event_stream_by_an_error_and_a_proper_end(
    server: LiveServer, port: int, end: str
) -> None:
    begun = asyncio.Event()
    script = ENDS[end](HEAD % b"text/event-stream" + chunk(FIRST), begun)
    async with backend_of(server, port, script), asking(server, CHAT, FIELDS) as wire:
        await read_to(wire, begun)
        assert (wire.status, wire.finished) == (200, True)
        assert wire.body.startswith(FIRST)
        event = json.loads(wire.body.removeprefix(FIRST).removeprefix(b"data: "))
        assert event["error"]["code"] == "upstream_invalid"
        assert b"[DONE]" not in wire.body
        await assert_next_works(wire)


async def assert_next_works(wire: Wire) -> None:
    """The client's connection is in order: it carries another request."""
    wire.writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wire.body.clear()
    wire.finished = False
    assert await wire.read_head() == 200
    await wire.read_until(1 << 60)
    assert json.loads(wire.body)["name"]


@pytest.mark.parametrize("end", ENDS)
async def test_it_ends_a_broken_line_stream_by_an_error_and_a_proper_end(
    server: LiveServer, port: int, end: str
) -> None:
    begun = asyncio.Event()
    script = ENDS[end](HEAD % b"application/x-ndjson" + chunk(b'{"a": 1}\n{"b'), begun)
    async with backend_of(server, port, script), asking(server, CHAT, FIELDS) as wire:
        await read_to(wire, begun)
        assert (wire.status, wire.finished) == (200, True)
        assert wire.body.startswith(b'{"a": 1}\n{"b\n')
        assert "broke off" in json.loads(wire.body.splitlines()[-1])["error"]


# A body of known length holds whatever it holds, so garbage breaks only a chunked one.
@pytest.mark.parametrize(
    ("length", "end"), [(0, end) for end in ENDS] + [(1_000_000, end) for end in ENDS if end != "garbage"]
)
async def test_it_cuts_the_connection_of_any_other_broken_body(
    server: LiveServer, port: int, length: int, end: str
) -> None:
    head = HEAD % b"audio/wav" if not length else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    data, begun = b"x" * 1000, asyncio.Event()
    script = ENDS[end](head + (data if length else chunk(data)), begun)
    async with backend_of(server, port, script), asking(server, CHAT, FIELDS) as wire:
        await read_to(wire, begun)
        assert (wire.status, wire.finished) == (200, False)
        assert data.startswith(wire.body)
        assert await wire.at_end()


async def test_it_tells_an_idle_timeout_in_the_stream(server: LiveServer, hasty_port: int) -> None:
    async with backend_of(server, hasty_port, sse_reply(["1", "2"], gap=3600)):
        wire = await ask(server, "/olla/ollama/v1/chat/completions", {**FIELDS, "model": "h"})
        assert wire.finished
        event = json.loads(wire.body.removeprefix(FIRST).removeprefix(b"data: "))
        assert event["error"]["code"] == "upstream_timeout"


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


SLOWLY_READ = {
    "application/json": (b'{"texts": [', b'"' + b"x" * 65000 + b'",', b"null]}"),
    "text/event-stream": (FIRST, b"data: " + b"x" * 65000 + b"\n\n", b"data: [DONE]\n\n"),
    "application/x-ndjson": (b"{}\n", b'{"response": "' + b"x" * 65000 + b'"}\n', b'{"done": true}\n'),
}


@pytest.mark.parametrize("media", SLOWLY_READ)
async def test_a_client_that_reads_a_byte_at_a_time_holds_up_its_backend_and_nobody_else(
    server: LiveServer, port: int, media: str, long_form: bool
) -> None:
    """The rest waits at the backend, not in memory here; and the client gets all of it in the end."""
    first, block, last = SLOWLY_READ[media]
    count = (200 if long_form else 24) * 16
    sent = 0

    def pieces() -> Iterator[Piece]:
        nonlocal sent
        yield first
        for _ in range(count):
            sent += len(block)
            yield block
        yield last

    slow = Reply(headers=[(b"Content-Type", media.encode()), ONCE], chunks=pieces())
    script: Script = {"/v1/chat/completions": slow, "/v1/embeddings": Reply(headers=[ONCE], body=b"{}")}
    async with backend_of(server, port, script) as backend, trickling(server, CHAT, FIELDS) as client:
        before = resident(server.pid)
        for _ in range(60 if long_form else 10):
            await client.read(1)
            assert (await ask(server, "/olla/openai/v1/embeddings", {"model": "m", "input": "x"})).status == 200
            await asyncio.sleep(1 if long_form else 0.05)
            # What is on its way is in the sockets' buffers, whose size is the system's affair.
            assert sent < 20 * MEGABYTE
        assert resident(server.pid) - before < 10 * MEGABYTE
        client.hurry()
        async with asyncio.timeout(60):
            while not client.finished:
                await client.read(MEGABYTE)
        assert client.body == first + block * count + last
        assert [each.path for each in backend.requests].count("/v1/chat/completions") == 1


async def test_it_frees_the_backend_of_a_slow_reader_who_leaves(server: LiveServer, port: int) -> None:
    endless = Reply(headers=[(b"Content-Type", b"audio/wav")], chunks=[b"x" * 65536] * 1600)
    async with backend_of(server, port, endless) as backend, asking(server, CHAT, FIELDS) as wire:
        assert await wire.read_head() == 200
        await asyncio.sleep(0.3)  # long enough to fill the buffers on the way; nothing depends on it
        wire.writer.transport.abort()
        await backend.wait_all_closed()
