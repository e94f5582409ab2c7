"""Every way a backend can fail, for JSON, SSE and NDJSON: what the client gets, what is counted, what is left.

`FAULTS` is the table. Each row is met twice: by a backend that stands alone (the client is told the truth) and by
one with a healthy neighbour (which answers instead, where nothing has reached the client and nothing is risked).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from endpoints import loading
from endpoints.models import Endpoint
from endpoints.tasks import running_tasks
from endpoints.transport import Transport
from proxy.breaker import BreakerView, GateState
from proxy.live import live
from proxy.upstream import door, open_door
from tests.fakes import (
    CONTINUE,
    Conn,
    Cut,
    Framing,
    Piece,
    Raw,
    Reply,
    Script,
    ScriptedBackend,
    Silence,
    Step,
    come_true,
    make_certificates,
    refused_origin,
)
from tests.proxy.conftest import Exchange, Proxy

pytestmark = pytest.mark.filterwarnings("error")

LIMIT = 0.3  # seconds until a silence is found too long, where that is the fault
PATIENCE = 30.0  # elsewhere: a busy machine is no fault
TEXT = "žluťoučký 🐎"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of answer: how it is asked for, and its parts (each one event, line, or piece of an object)."""

    name: str
    path: str
    asked: dict[str, Any]
    backend_type: str
    content_type: bytes
    parts: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        """The whole answer."""
        return b"".join(self.parts)

    @property
    def streams(self) -> bool:
        """Whether parts reach the client as they come."""
        return self.name != "json"

    @property
    def header(self) -> tuple[bytes, bytes]:
        return b"Content-Type", self.content_type

    def reply(self, **more: Any) -> Reply:
        """A sound answer: one chunk for each part of a stream, Content-Length otherwise."""
        if self.streams:
            more.setdefault("chunks", self.parts)
        return Reply(headers=[self.header, *more.pop("headers", ())], body=self.body, **more)

    def raw(self, body: bytes = b"", head: bytes = b"") -> bytes:
        """The bytes of such an answer up to some point of its body."""
        framing = b"Transfer-Encoding: chunked" if self.streams else b"Content-Length: %d" % len(self.body)
        shown = b"%x\r\n%b\r\n" % (len(body), body) if self.streams and body else body
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b%b\r\n\r\n%b" % (self.content_type, head, framing, shown)


def _chat(part: str) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": part}}]}, ensure_ascii=False).encode()


JSON = Kind(
    "json", "/olla/openai/v1/chat/completions", {"model": "m"}, "openai-compatible", b"application/json",
    (b'{"choices": [', b'{"message": {"content": "' + TEXT.encode(), b'"}}', b"]}"),
)  # fmt: skip
SSE = Kind(
    "sse", "/olla/openai/v1/chat/completions", {"model": "m", "stream": True}, "openai-compatible",
    b"text/event-stream",
    (b"data: " + _chat("a") + b"\n\n", b"data: " + _chat(TEXT) + b"\n\n", b"data: [DONE]\n\n"),
)  # fmt: skip
NDJSON = Kind(
    "ndjson", "/olla/ollama/api/chat", {"model": "m"}, "ollama", b"application/x-ndjson",
    (b'{"response": "a"}\n', b'{"response": "' + TEXT.encode() + b'"}\n', b'{"done": true}\n'),
)  # fmt: skip
KINDS = [JSON, SSE, NDJSON]


class End(StrEnum):
    """How the client's answer ends."""

    WHOLE = "whole"  # every byte the backend meant, and the normal end
    ERROR = "error"  # our own JSON error in place of an answer
    TOLD = "told"  # what had come, then the protocol's own error
    ABORTED = "aborted"  # what had come, then a cut connection


@dataclass(frozen=True, slots=True)
class Seen:
    """What becomes of a fault."""

    end: End = End.WHOLE
    code: str = ""
    status: int = 200
    failed: bool = False
    elsewhere: bool = False  # whether a healthy neighbour answers instead
    body: bytes | None = None  # of the backend, when it is not the kind's


def refused_with(code: str, *, elsewhere: bool) -> Seen:
    """No byte of the answer reached the client."""
    return Seen(End.ERROR, code, 502, failed=True, elsewhere=elsewhere)


def broken(kind: Kind, code: str = "upstream_invalid", *, elsewhere: bool = True) -> Seen:
    """Broke off inside the body: streams have begun by then, an object has not."""
    return Seen(End.TOLD, code, failed=True) if kind.streams else refused_with(code, elsewhere=elsewhere)


Play = Callable[[Kind], Script]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: what the backend does, and what is seen of it."""

    name: str
    play: Play
    seen: Callable[[Kind], Seen]
    limit: float = PATIENCE  # seconds for the first byte, and for each later one

    def slug(self) -> str:
        """The name as part of a test's."""
        return self.name.replace(" ", "-")


def _torn(at: bytes, inside: int) -> Callable[[Kind], bytes]:
    """The body up to some byte behind the first place of `at`."""
    return lambda kind: kind.body[: kind.body.index(at) + inside]


def _until(kind: Kind, body: bytes, *, rst: bool = False) -> Cut:
    # A moment before a reset, or the kernel may drop what was sent.
    return Cut([kind.raw(body), 0.05], rst=rst)


def _length(kind: Kind, off: int) -> Reply:
    length = len(kind.body) + off
    if off > 0:
        return Reply(headers=[kind.header], body=kind.body, length=length)
    return Reply(headers=[kind.header], body=kind.body[:off], extra=kind.body[off:])


def _zipped(kind: Kind) -> bytes:
    return gzip.compress(kind.body, mtime=0)


def _zip_reply(kind: Kind) -> Reply:
    body = _zipped(kind)
    headers = [kind.header, (b"Content-Encoding", b"gzip")]
    return Reply(headers=headers, chunks=[body[:9], 0.01, body[9:]]) if kind.streams else Reply(200, headers, body)


def _zip_cut(kind: Kind) -> Cut:
    return Cut([kind.raw(_zipped(kind)[:20], b"Content-Encoding: gzip\r\n"), 0.05])


def _slowly(data: bytes, pause: float, pieces: int) -> list[Piece]:
    step = max(len(data) // pieces, 1)
    made: list[Piece] = []
    for at in range(0, len(data), step):
        made += [pause, data[at : at + step]]
    return made


def _bytewise(kind: Kind, count: int) -> Reply:
    body = (kind.body * (count // len(kind.body) + 1))[:count]
    return Reply(headers=[kind.header], chunks=[body[i : i + 1] for i in range(count)])


_SAID = b'{"error": {"message": "no"}}'


def _status(status: int, *headers: tuple[bytes, bytes]) -> Play:
    return lambda kind: Reply(status, [kind.header, *headers], _SAID)


def _said(status: int, *, failed: bool = False, elsewhere: bool = False) -> Seen:
    return Seen(End.WHOLE, status=status, failed=failed, elsewhere=elsewhere, body=_SAID)


_HALF_EVENT = _torn("ž".encode(), 0)
_HALF_CHARACTER = _torn("🐎".encode(), 2)
_LONG_LINE = b"data: " + b"x" * (1 << 20) + b"\n\n"

FAULTS = [
    Fault("silence", lambda _: Silence(), lambda _: refused_with("upstream_timeout", elsewhere=False), LIMIT),
    Fault(
        "head too slow", lambda kind: Raw(_slowly(kind.raw(), 0.2, 12)),
        lambda _: refused_with("upstream_timeout", elsewhere=False), LIMIT),
    Fault("head slow", lambda kind: Raw([*_slowly(kind.raw(), 0.01, 8), kind.raw(kind.body)[len(kind.raw()):],
                                          b"0\r\n\r\n" if kind.streams else b""]), lambda _: Seen()),
    Fault("dies at once", lambda _: Cut(b""), lambda _: refused_with("upstream_unreachable", elsewhere=True)),
    Fault("resets at once", lambda _: Cut(b"", rst=True),
          lambda _: refused_with("upstream_unreachable", elsewhere=True)),
    Fault("cut inside the head", lambda kind: Cut(kind.raw()[:30]),
          lambda _: refused_with("upstream_invalid", elsewhere=True)),
    Fault("cut after the head", lambda kind: _until(kind, b""),
          lambda _: refused_with("upstream_invalid", elsewhere=True)),
    Fault("reset after the head", lambda kind: _until(kind, b"", rst=True),
          lambda _: refused_with("upstream_invalid", elsewhere=True)),
    Fault("silent after the head", lambda kind: Raw(kind.raw()),
          lambda _: refused_with("upstream_timeout", elsewhere=False), LIMIT),
    Fault("slow drip", lambda kind: kind.reply(chunks=_slowly(kind.body, 0.45, 5)), lambda _: Seen(), 2),
    Fault("stalls inside", lambda kind: Raw(kind.raw(_HALF_EVENT(kind))),
          lambda kind: broken(kind, "upstream_timeout", elsewhere=False), LIMIT),
    Fault("cut between events", lambda kind: _until(kind, kind.parts[0]), broken),
    Fault("cut inside an event", lambda kind: _until(kind, _HALF_EVENT(kind)), broken),
    Fault("reset inside an event", lambda kind: _until(kind, _HALF_EVENT(kind), rst=True), broken),
    Fault("cut inside a character", lambda kind: _until(kind, _HALF_CHARACTER(kind)), broken),
    Fault("declares too much", lambda kind: _length(kind, 10),
          lambda kind: Seen(End.ABORTED, failed=True) if kind.streams
          else refused_with("upstream_invalid", elsewhere=True)),
    Fault("declares too little", lambda kind: _length(kind, -4), lambda kind: Seen(body=kind.body[:-4])),
    Fault("compressed", _zip_reply, lambda kind: Seen(body=_zipped(kind))),
    Fault("compressed and cut", _zip_cut,
          lambda kind: Seen(End.ABORTED, failed=True) if kind.streams
          else refused_with("upstream_invalid", elsewhere=True)),
    Fault("error in a 200", _status(200), lambda _: _said(200)),
    Fault("400", _status(400), lambda _: _said(400)),
    Fault("500", _status(500), lambda _: _said(500)),
    Fault("502", _status(502), lambda _: _said(502, failed=True, elsewhere=True)),
    Fault("503", _status(503), lambda _: _said(503, failed=True, elsewhere=True)),
    Fault("504", _status(504), lambda _: _said(504, failed=True)),
    Fault("429", _status(429, (b"Retry-After", b"7")), lambda _: _said(429, elsewhere=True)),
    Fault("redirect", _status(307, (b"Location", b"http://127.0.0.1:9/other")), lambda _: _said(307)),
    Fault("ten thousand chunks", lambda kind: _bytewise(kind, 10_000),
          lambda kind: Seen(body=(kind.body * 200)[:10_000])),
    Fault("32 KB header", lambda kind: kind.reply(headers=[(b"X-Big", b"x" * 32_000)]), lambda _: Seen()),
    Fault("70 KB header", lambda kind: kind.reply(headers=[(b"X-Big", b"x" * 70_000)]),
          lambda _: refused_with("upstream_invalid", elsewhere=False)),
    Fault("1 MB line", lambda kind: kind.reply(chunks=[_LONG_LINE, kind.body]),
          lambda kind: Seen(body=_LONG_LINE + kind.body)),
    Fault("HTTP/1.0", lambda kind: kind.reply(chunks=None, version=b"1.0", framing=Framing.CLOSE),
          lambda _: Seen()),
    Fault("HTTP/1.0 reset", lambda kind: Cut(
        [b"HTTP/1.0 200 OK\r\nContent-Type: %b\r\n\r\n%b" % (kind.content_type, kind.parts[0]), 0.05], rst=True),
        lambda kind: Seen(End.TOLD, "upstream_invalid", failed=True) if kind.streams
        else Seen(End.ABORTED, failed=True)),
    Fault("100-continue", lambda kind: kind.reply(interim=CONTINUE * 2), lambda _: Seen()),
    Fault("closes without a word", lambda kind: kind.reply(close=True), lambda _: Seen()),
    Fault("switches protocols", lambda _: Raw(b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
          lambda _: refused_with("upstream_invalid", elsewhere=False)),
]  # fmt: skip

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_fault = pytest.mark.parametrize("fault", FAULTS, ids=Fault.slug)


# -- what is asked and what is left


def ask(proxy: Proxy, kind: Kind) -> Exchange:
    """Start a request for an answer of this kind."""
    return proxy.open("POST", kind.path, kind.asked)


async def add(proxy: Proxy, kind: Kind, url: str, name: str = "one", **columns: Any) -> Endpoint:
    """Register an endpoint for this kind of answer; `limit` is its patience for the first and each later byte."""
    limit = columns.pop("limit", PATIENCE)
    limits = {"first_byte_timeout": limit, "idle_timeout": limit}
    return await proxy.add(url, name=name, backend_type=kind.backend_type, **limits, **columns)


def view(endpoint: Endpoint) -> BreakerView:
    """The endpoint's breaker."""
    return live.breaker.view(endpoint.pk, time.monotonic())


async def assert_nothing_left(proxy: Proxy, *backends: ScriptedBackend) -> None:
    """No task, no request in flight, no connection but whole idle ones, which the backends have open too."""
    await proxy.settled()
    assert running_tasks() == 0
    assert not live.in_flight

    def all_idle() -> bool:
        # Counted anew at each look: an end that is on its way is noticed by each side in its own time.
        everything, idle = door().transport.count_connections()
        return everything == idle == sum(each.open for each in backends)

    await come_true(all_idle, 2)


def assert_counted(endpoint: Endpoint, failures: int) -> None:
    """Breaker and counters agree on the failures of an endpoint."""
    assert view(endpoint) == BreakerView(GateState.CLOSED, failures, None, None)
    assert live.failures[endpoint.pk] == failures
    assert live.tallies.all.hang_ups == 0


def assert_seen(answer: Exchange, kind: Kind, seen: Seen) -> None:
    """The client got what the table says."""
    assert answer.status == seen.status
    assert answer.header("x-olla-request-id")
    body = kind.body if seen.body is None else seen.body
    if seen.end is End.WHOLE:
        assert answer.complete
        assert without_context(answer.body) == body
    elif seen.end is End.ERROR:
        assert answer.complete
        assert_own_error(answer, kind, seen.code)
    elif seen.end is End.ABORTED:
        assert answer.aborted
        assert not answer.complete
    else:
        assert answer.complete
        assert_told(answer, kind, seen.code)


def without_context(body: bytes) -> bytes:
    """A backend's error object less what is added to it on the way."""
    said, added, _ = body.partition(b',"olla_context":')
    return said + b"}" if added else body


def assert_own_error(answer: Exchange, kind: Kind, code: str) -> None:
    """Our error, in the shape the client's library reads."""
    error = answer.json()["error"]
    if kind is NDJSON:
        assert isinstance(error, str)
    else:
        assert error["code"] == code


def assert_told(answer: Exchange, kind: Kind, code: str) -> None:
    """The bytes that came, then one error in the stream's own protocol, and never its normal end."""
    mark = b"data: " if kind is SSE else b"\n"
    sent, _, last = answer.body.rstrip(b"\n").rpartition(mark)
    error = json.loads(last)["error"]
    assert "broke off" in (error["message"] if kind is SSE else error)
    if kind is SSE:
        assert error["code"] == code
        assert answer.body.endswith(b"\n\n")
    assert kind.body.startswith(sent.rstrip(b"\n"))
    assert b"[DONE]" not in answer.body
    assert b'"done": true' not in answer.body


# -- the table


@every_kind
@every_fault
async def test_it_tells_a_client_the_truth_and_leaves_nothing_behind(
    proxy: Proxy, fault: Fault, kind: Kind
) -> None:
    seen = fault.seen(kind)
    async with ScriptedBackend(fault.play(kind)) as backend:
        endpoint = await add(proxy, kind, backend.url, limit=fault.limit)
        answer = await ask(proxy, kind).done()
        assert_seen(answer, kind, seen)
        assert len(backend.requests) == 1
        assert_counted(endpoint, int(seen.failed))
        await assert_nothing_left(proxy, backend)


def is_trouble(seen: Seen) -> bool:
    """Whether the client would rather have another answer."""
    return seen.end is not End.WHOLE or seen.status != 200


TROUBLES = [fault for fault in FAULTS if any(is_trouble(fault.seen(kind)) for kind in KINDS)]


@every_kind
@pytest.mark.parametrize("fault", TROUBLES, ids=Fault.slug)
async def test_it_asks_a_neighbour_where_nothing_is_risked(
    proxy: Proxy, settings: Any, fault: Fault, kind: Kind
) -> None:
    settings.OLLA_LOAD_BALANCER = "priority"
    seen = fault.seen(kind)
    async with ScriptedBackend(fault.play(kind)) as bad, ScriptedBackend(kind.reply()) as good:
        endpoint = await add(proxy, kind, bad.url, priority=200, limit=fault.limit)
        neighbour = await add(proxy, kind, good.url, name="good")
        answer = await ask(proxy, kind).done()
        assert_seen(answer, kind, Seen() if seen.elsewhere else seen)
        assert (len(bad.requests), len(good.requests)) == (1, int(seen.elsewhere))
        assert_counted(endpoint, int(seen.failed))
        assert_counted(neighbour, 0)
        await assert_nothing_left(proxy, bad, good)


# -- no connection


@every_kind
async def test_it_says_that_an_endpoint_refuses(proxy: Proxy, kind: Kind) -> None:
    with refused_origin() as origin:
        endpoint = await add(proxy, kind, f"http://{origin.authority}")
        assert_seen(await ask(proxy, kind).done(), kind, refused_with("upstream_unreachable", elsewhere=True))
        assert_counted(endpoint, 1)
        assert endpoint.pk in live.demoted
        await assert_nothing_left(proxy)


def resolving(answers: Callable[[str], Sequence[str]]) -> None:
    """Open the door with a name service of the test's own."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return answers(host)

    open_door(Transport(resolver=resolve))


def _no_such_name(host: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")


@every_kind
@pytest.mark.parametrize(
    "answers",
    [_no_such_name, lambda _: [], lambda _: ["169.254.169.254"], lambda _: ["::ffff:169.254.169.254", "fe80::1"]],
    ids=["no-such-name", "no-address", "metadata", "link-local"],
)
async def test_it_never_connects_to_a_name_without_an_allowed_address(
    proxy: Proxy, kind: Kind, answers: Callable[[str], Sequence[str]]
) -> None:
    resolving(answers)
    endpoint = await add(proxy, kind, "http://gpu.example:8000")
    assert_seen(await ask(proxy, kind).done(), kind, refused_with("upstream_unreachable", elsewhere=True))
    assert_counted(endpoint, 1)
    await assert_nothing_left(proxy)


@every_kind
async def test_it_asks_a_neighbour_of_a_name_without_an_allowed_address(
    proxy: Proxy, settings: Any, kind: Kind
) -> None:
    settings.OLLA_LOAD_BALANCER = "priority"
    resolving(lambda _: ["169.254.169.254"])
    endpoint = await add(proxy, kind, "http://gpu.example:8000", priority=200)
    async with ScriptedBackend(kind.reply()) as good:
        await add(proxy, kind, good.url, name="good")
        assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert_counted(endpoint, 1)
        await assert_nothing_left(proxy, good)


@every_kind
async def test_it_looks_at_the_address_of_each_connection_anew(proxy: Proxy, kind: Kind) -> None:
    async with ScriptedBackend(kind.reply(close=True)) as backend:
        turns = iter([["127.0.0.1"], ["169.254.169.254"]])
        resolving(lambda _: next(turns))
        endpoint = await add(proxy, kind, f"http://gpu.example:{backend.port}")
        assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert_seen(await ask(proxy, kind).done(), kind, refused_with("upstream_unreachable", elsewhere=True))
        assert len(backend.requests) == 1
        assert_counted(endpoint, 1)
        await assert_nothing_left(proxy, backend)


@every_kind
@pytest.mark.parametrize(("expired", "status"), [(False, 200), (True, 502)])
async def test_it_checks_the_dates_of_a_certificate(
    proxy: Proxy, tmp_path: Path, settings: Any, kind: Kind, expired: bool, status: int
) -> None:
    files = make_certificates(tmp_path, expired=expired)
    settings.OLLA_CA_DIR = str(tmp_path)
    async with ScriptedBackend(kind.reply(), tls=files) as backend:
        endpoint = await add(proxy, kind, backend.url, ca_file=Path(files.ca_file).name)
        answer = await ask(proxy, kind).done()
        seen = refused_with("upstream_unreachable", elsewhere=True) if expired else Seen()
        assert answer.status == status
        assert_seen(answer, kind, seen)
        assert len(backend.requests) == int(not expired)
        assert_counted(endpoint, int(expired))
        await assert_nothing_left(proxy, backend)


# -- clients that leave


@asynccontextmanager
async def connecting(_kind: Kind) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An endpoint whose name is being looked up for ever."""
    reached = asyncio.Event()

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        reached.set()
        await asyncio.Event().wait()
        return []

    open_door(Transport(resolver=resolve))
    yield "http://gpu.example:8000", reached


@asynccontextmanager
async def handshaking(_kind: Kind) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An endpoint that never answers the TLS greeting."""
    reached = asyncio.Event()

    async def script(conn: Conn) -> None:
        while not conn.received and not conn.gone.is_set():
            await asyncio.sleep(0.01)
        reached.set()
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend:
        yield f"https://127.0.0.1:{backend.port}", reached
        await backend.wait_all_closed(within=10)


def pausing(sent: Callable[[Kind], bytes]) -> Callable[[Kind], Any]:
    """An endpoint that stops for ever after these bytes of its answer."""

    @asynccontextmanager
    async def pausing_endpoint(kind: Kind) -> AsyncIterator[tuple[str, asyncio.Event]]:
        reached = asyncio.Event()

        async def script(conn: Conn) -> None:
            await conn.request()
            conn.write(sent(kind))
            reached.set()
            await conn.gone.wait()

        async with ScriptedBackend(script) as backend:
            yield backend.url, reached
            await backend.wait_all_closed(within=10)

    return pausing_endpoint


STAGES = {
    "connecting": connecting,
    "handshaking": handshaking,
    "before-the-head": pausing(lambda _: b""),
    "inside-the-head": pausing(lambda kind: kind.raw()[:30]),
    "before-the-body": pausing(Kind.raw),
    "inside-the-body": pausing(lambda kind: kind.raw(_HALF_EVENT(kind))),
}


@every_kind
@pytest.mark.parametrize("stage", STAGES)
async def test_it_frees_everything_when_the_client_leaves(proxy: Proxy, stage: str, kind: Kind) -> None:
    async with STAGES[stage](kind) as (url, reached):
        endpoint = await add(proxy, kind, url, connect_timeout=30, verify_tls=False)
        exchange = ask(proxy, kind)
        await come_true(reached.is_set)
        if stage == "inside-the-body" and kind.streams:
            await exchange.wait_bytes(1)
        exchange.leave()
        await exchange.done(within=PATIENCE / 2)
        await proxy.settled()
    assert not exchange.complete
    assert live.tallies.all.hang_ups == 1
    assert live.failures[endpoint.pk] == 0
    assert endpoint.pk not in live.demoted
    assert view(endpoint) == BreakerView(GateState.CLOSED, 0, None, None)
    await assert_nothing_left(proxy)
    assert door().transport.count_connections() == (0, 0)


# -- endpoints that change


async def _edit(endpoint: Endpoint) -> None:
    endpoint.name, endpoint.url = "renamed", "http://127.0.0.1:9"
    await sync_to_async(endpoint.save)()


async def _disable(endpoint: Endpoint) -> None:
    endpoint.state = "disabled"
    await sync_to_async(endpoint.save)()


async def _delete(endpoint: Endpoint) -> None:
    await sync_to_async(endpoint.delete)()


@every_kind
@pytest.mark.parametrize("change", [_edit, _disable, _delete], ids=["edited", "disabled", "deleted"])
async def test_an_answer_goes_on_to_its_end_when_its_endpoint_changes(
    proxy: Proxy, change: Any, kind: Kind
) -> None:
    gate = asyncio.Event()
    large = Kind(**{**_fields(kind), "parts": (b"x" * 70_000, *kind.parts)})
    pieces: list[Piece] = [large.parts[0], gate, *large.parts[1:]]
    async with ScriptedBackend(Reply(headers=[kind.header], chunks=pieces)) as backend:
        endpoint = await add(proxy, kind, backend.url)
        number = endpoint.pk
        exchange = ask(proxy, kind)
        await exchange.wait_bytes(70_000)
        await change(endpoint)
        await sync_to_async(loading.refresh)(force=True)
        assert live.in_flight == {number: 1}
        assert (await ask(proxy, kind).done()).status >= 400
        failures = live.failures[number]
        gate.set()
        assert_seen(await exchange.done(), large, Seen())
        assert live.failures[number] == failures
        await assert_nothing_left(proxy, backend)


def _fields(kind: Kind) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in Kind.__slots__}


# -- what the next request meets


@every_kind
async def test_it_asks_anew_when_a_kept_connection_closes_just_before_its_next_request(
    proxy: Proxy, kind: Kind
) -> None:
    """Whether our next request or the backend's FIN comes first is left to chance: both must be well."""
    async with ScriptedBackend(kind.reply(close=True)) as backend:
        endpoint = await add(proxy, kind, backend.url)
        for _ in range(30):
            assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert_counted(endpoint, 0)
        await assert_nothing_left(proxy, backend)


@every_kind
async def test_it_gives_no_byte_of_one_answer_to_the_next(proxy: Proxy, kind: Kind) -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with ScriptedBackend([kind.reply(extra=smuggled), kind.reply()]) as backend:
        await add(proxy, kind, backend.url)
        for _ in range(2):
            assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert backend.connections == 2
        await assert_nothing_left(proxy, backend)


@every_kind
async def test_it_goes_on_after_one_500(proxy: Proxy, kind: Kind) -> None:
    async with ScriptedBackend([Reply(500, [kind.header], b"oops"), kind.reply()]) as backend:
        endpoint = await add(proxy, kind, backend.url)
        assert (await ask(proxy, kind).done()).body == b"oops"
        assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert_counted(endpoint, 0)
        await assert_nothing_left(proxy, backend)


@every_kind
async def test_a_good_answer_makes_up_for_failures_and_an_error_of_the_client_does_too(
    proxy: Proxy, kind: Kind
) -> None:
    down, fine = Reply(503, [kind.header], b"{}"), kind.reply()
    async with ScriptedBackend([*[down] * 4, fine, *[down] * 4, Reply(500, body=b"{}"), *[down] * 4]) as backend:
        endpoint = await add(proxy, kind, backend.url)
        statuses = [(await ask(proxy, kind).done()).status for _ in range(14)]
        assert statuses == [503] * 4 + [200] + [503] * 4 + [500] + [503] * 4
        assert view(endpoint).failures == 4


@every_kind
async def test_it_passes_on_a_redirect_and_a_rest_as_they_were_said(proxy: Proxy, kind: Kind) -> None:
    elsewhere = Reply(302, [(b"Location", b"https://other.example/x")])
    tired = Reply(429, [kind.header, (b"Retry-After", b"7")], b"{}")
    async with ScriptedBackend([elsewhere, tired]) as backend:
        endpoint = await add(proxy, kind, backend.url)
        answer = await ask(proxy, kind).done()
        assert (answer.status, answer.header("location")) == (302, "https://other.example/x")
        answer = await ask(proxy, kind).done()
        assert (answer.status, answer.header("retry-after")) == (429, "7")
        assert set(live.resting) == {endpoint.pk}
        assert (await ask(proxy, kind).done()).status == 503
        assert len(backend.requests) == 2
        assert_counted(endpoint, 0)


@every_kind
async def test_it_answers_a_client_that_expects_100_continue_by_itself(proxy: Proxy, kind: Kind) -> None:
    async with ScriptedBackend(kind.reply()) as backend:
        await add(proxy, kind, backend.url)
        answer = await proxy.open("POST", kind.path, kind.asked, headers=[("Expect", "100-continue")]).done()
        assert_seen(answer, kind, Seen())
        assert backend.requests[0].header("expect") is None


@every_kind
async def test_it_relays_a_huge_answer(proxy: Proxy, kind: Kind, long_form: bool) -> None:
    block = bytes(range(256)) * 256
    count = (100 if long_form else 12) * 16
    huge = [block] * count
    reply = Reply(headers=[kind.header], chunks=huge if kind.streams else None, body=b"".join(huge))
    async with ScriptedBackend(reply) as backend:
        endpoint = await add(proxy, kind, backend.url)
        answer = await ask(proxy, kind).done(within=60)
        assert answer.complete
        assert answer.body == b"".join(huge)
        assert_counted(endpoint, 0)
        await assert_nothing_left(proxy, backend)


@every_kind
async def test_it_survives_all_faults_in_a_row(proxy: Proxy, settings: Any, kind: Kind) -> None:
    """Whatever came before, the next answer is whole, and in the end nothing is left of any of them."""
    settings.OLLA_BREAKER_THRESHOLD = 0
    live.reset()
    # A kept connection that dies at once is tried anew, so that those two would meet the next step.
    left_out = {"dies at once", "resets at once", "ten thousand chunks"}
    quick = [each for each in FAULTS if each.name not in left_out and each.limit == PATIENCE]
    steps = [step for fault in quick for step in (fault.play(kind), kind.reply())]
    async with ScriptedBackend(steps) as backend:  # type: ignore[arg-type]
        await add(proxy, kind, backend.url)
        for fault in quick:
            assert_seen(await ask(proxy, kind).done(), kind, fault.seen(kind))
            live.resting.clear()
            assert_seen(await ask(proxy, kind).done(), kind, Seen())
        await assert_nothing_left(proxy, backend)


# -- candidates that change while a request waits


def _busy_after(gate: asyncio.Event) -> Step:
    return Reply(503, before=gate, body=b"{}")


@every_kind
@pytest.mark.parametrize("failing", [lambda gate: Cut([gate]), _busy_after], ids=["dies", "503"])
async def test_it_asks_an_endpoint_that_came_while_the_request_waited_at_one_that_fails(
    proxy: Proxy, kind: Kind, failing: Callable[[asyncio.Event], Step]
) -> None:
    gate = asyncio.Event()
    async with ScriptedBackend(failing(gate)) as old, ScriptedBackend(kind.reply()) as fresh:
        await add(proxy, kind, old.url)
        exchange = ask(proxy, kind)
        await old.wait_requests(1)
        await add(proxy, kind, fresh.url, name="fresh")
        gate.set()
        assert_seen(await exchange.done(), kind, Seen())
        assert exchange.header("x-olla-endpoint") == "fresh"
        assert (len(old.requests), len(fresh.requests)) == (1, 1)
        await assert_nothing_left(proxy, old, fresh)


@every_kind
async def test_it_asks_no_endpoint_twice(proxy: Proxy, kind: Kind) -> None:
    async with ScriptedBackend(Cut()) as one, ScriptedBackend(Cut()) as two:
        await add(proxy, kind, one.url)
        await add(proxy, kind, two.url, name="two")
        assert (await ask(proxy, kind).done()).status == 502
        assert (len(one.requests), len(two.requests)) == (1, 1)


@every_kind
async def test_a_place_is_free_again_when_its_client_or_one_in_line_leaves(proxy: Proxy, kind: Kind) -> None:
    gate = asyncio.Event()
    held = Reply(headers=[kind.header], chunks=[b"x", gate, b"y"])
    async with ScriptedBackend([held, held, kind.reply()]) as backend:
        endpoint = await add(proxy, kind, backend.url, max_concurrent=1)
        first = ask(proxy, kind)
        await first.wait_bytes(1)
        in_line = [ask(proxy, kind) for _ in range(3)]
        await come_true(lambda: live.queue.waiting == 3)
        in_line[0].leave()
        await in_line[0].done()
        assert (live.queue.waiting, live.in_flight[endpoint.pk], live.tallies.all.hang_ups) == (2, 1, 1)
        first.leave()  # the place goes to the next in line
        await first.done()
        await in_line[1].wait_bytes(1)
        in_line[1].leave()
        await in_line[1].done()
        assert_seen(await in_line[2].done(), kind, Seen())
        assert len(backend.requests) == 3
        assert view(endpoint).failures == 0
        await assert_nothing_left(proxy, backend)


@every_kind
async def test_no_place_is_lost_when_a_client_leaves_in_the_moment_of_its_turn(proxy: Proxy, kind: Kind) -> None:
    async with ScriptedBackend(kind.reply()) as backend:
        await add(proxy, kind, backend.url, max_concurrent=1)
        for _ in range(10):
            opened = [ask(proxy, kind) for _ in range(5)]
            await come_true(lambda: any(each.task.done() for each in opened))  # noqa: B023
            for each in opened[1::2]:
                each.leave()
            await asyncio.gather(*(each.done() for each in opened))
        assert_seen(await ask(proxy, kind).done(), kind, Seen())
        assert live.queue.waiting == 0
        await assert_nothing_left(proxy, backend)
