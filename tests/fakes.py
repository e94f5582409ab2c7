"""A scripted backend on a real loopback socket, for every test that needs an endpoint.

    async with ScriptedBackend([Reply(200, body=b"hi"), Cut(b"HTTP/1.1 200 OK\\r\\n")]) as backend:
        ...                          # talk to backend.url / backend.origin
        await backend.wait_requests(2)
        assert backend.requests[0].raw == b"GET / HTTP/1.1\\r\\n..."

What it does is a *script*, one of
  - one step (`Reply`, `Cut`, `Silence`, ...): the answer to every request;
  - a list of steps: one per request over all connections, the last one repeats;
  - a dict of path -> step or list (query strings ignored), e.g. {"/api/tags": json_reply({...})}; the key "*"
    takes the rest, without it they get a 404;
  - a coroutine function `async def script(conn: Conn)`, run once per connection, that calls `await conn.request()`
    (None when the client has gone), `await conn.play(step)`, `conn.write(...)`, `conn.close()`, `conn.reset()`.

Everything it saw is kept: `backend.requests` (raw bytes, parsed parts), `backend.connections` (accepted ever),
`backend.open` (now), `backend.closed`. Waiting is on conditions: `wait_requests(n)`, `wait_connections(n)`,
`wait_closed(n)`, `wait_all_closed()`, each with `within=` seconds, counted as in `come_true`. `refused_origin()`
has no listener.
TLS: `ScriptedBackend(script, tls=make_certificates(tmp_path))`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import inspect
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from endpoints.addressing import Origin

Header = tuple[bytes, bytes]
# A body piece to send, seconds to wait, or an event to wait for.
Piece = bytes | float | int | asyncio.Event


# -- steps: what happens to one request


class Framing(StrEnum):
    """How a Reply says where its body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `chunks` (pieces with pauses between them) makes it chunked, else `body` with Content-Length."""

    status: int = 200
    headers: Sequence[Header] = ()
    body: bytes = b""
    chunks: Iterable[Piece] | None = None
    framing: Framing | None = None
    length: int | None = None  # a Content-Length to lie with; a body too short for it ends with a FIN
    version: bytes = b"1.1"
    reason: bytes = b"OK"
    before: Piece = 0  # waited for before the head
    interim: bytes = b""  # sent before everything, e.g. CONTINUE
    trailers: Sequence[Header] = ()
    extra: bytes = b""  # sent behind the end of the answer
    close: bool = False  # close afterwards without having announced it

    def head(self) -> bytes:
        """Status line and headers as sent."""
        lines = [b"HTTP/%b %d %b" % (self.version, self.status, self.reason)]
        lines += [b"%b: %b" % pair for pair in self.headers]
        kind = self.kind
        if kind is Framing.LENGTH:
            lines.append(b"Content-Length: %d" % (len(self.body) if self.length is None else self.length))
        elif kind is Framing.CHUNKED:
            lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join([*lines, b"", b""])

    @property
    def kind(self) -> Framing:
        """The framing in force."""
        return self.framing or (Framing.LENGTH if self.chunks is None else Framing.CHUNKED)

    async def play(self, conn: Conn, request: Received) -> None:
        """Send it."""
        await pause(self.before)
        conn.write(self.interim)
        if self.kind is Framing.LENGTH and self.chunks is None:
            shown = b"" if request.method == b"HEAD" else self.body
            conn.write(self.head() + shown + self.extra)
        else:
            conn.write(self.head())
            if request.method != b"HEAD":
                await self._play_pieces(conn)
        if self.close or self.kind is Framing.CLOSE or (self.length or 0) > len(self.body):
            await conn.drain()
            conn.close()

    async def _play_pieces(self, conn: Conn) -> None:
        chunked = self.kind is Framing.CHUNKED
        for piece in [self.body] if self.chunks is None else self.chunks:
            if not isinstance(piece, bytes):
                await conn.drain()
                await pause(piece)
            elif piece:
                conn.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await conn.drain()
        if chunked:
            conn.write(b"0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in self.trailers) + b"\r\n" + self.extra)


@dataclass(frozen=True, slots=True)
class Cut:
    """Send these bytes as they are (with pauses, if a sequence), then end the connection: FIN, or RST."""

    after: bytes | Sequence[Piece] = b""
    rst: bool = False

    async def play(self, conn: Conn, request: Received) -> None:
        """Send and end."""
        await Raw(self.after).play(conn, request)
        await conn.drain()
        if self.rst:
            conn.reset()
        else:
            conn.close()


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these bytes as they are (with pauses, if a sequence) and keep the connection open."""

    data: bytes | Sequence[Piece]

    async def play(self, conn: Conn, _request: Received) -> None:
        """Send."""
        for piece in [self.data] if isinstance(self.data, bytes) else self.data:
            if isinstance(piece, bytes):
                conn.write(piece)
            else:
                await pause(piece)


@dataclass(frozen=True, slots=True)
class Silence:
    """Read the request and never answer; ends when the client goes."""

    async def play(self, conn: Conn, _request: Received) -> None:
        """Wait for the client to go."""
        await conn.gone.wait()


Step = Reply | Cut | Raw | Silence
Script = Step | Sequence[Step] | Mapping[str, "Step | Sequence[Step]"] | Callable[["Conn"], Awaitable[None]]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def pause(piece: Piece) -> None:
    """Wait for seconds or an event; bytes are no pause."""
    if isinstance(piece, asyncio.Event):
        await piece.wait()
    elif isinstance(piece, (int, float)) and piece:
        await asyncio.sleep(piece)


LOOK = 0.005  # seconds between two looks
_QUICK = 50  # turns of the loop, in which most of what a test waits for has happened


async def come_true(condition: Callable[[], bool], within: float = 30) -> None:
    """Wait until a condition of this process comes true. Raises TimeoutError.

    The seconds are counted in looks, not by the clock: a machine that leaves this process waiting for a second
    takes one look off, not the whole of what the test allows.
    """
    for look in range(_QUICK + round(within / LOOK)):
        if condition():
            return
        await asyncio.sleep(LOOK if look >= _QUICK else 0)
    if not condition():
        raise TimeoutError(f"waited {within} s in vain")


# -- ready-made replies


def json_reply(value: object, status: int = 200, headers: Sequence[Header] = (), **more: Any) -> Reply:
    """A JSON answer with Content-Length."""
    body = json.dumps(value).encode()
    return Reply(status, [(b"Content-Type", b"application/json"), *headers], body, **more)


def sse_reply(events: Iterable[object], *, done: bool = True, gap: Piece = 0, **more: Any) -> Reply:
    """OpenAI-style server-sent events, one chunk each; str and bytes go as they are, other values as JSON."""
    lines = [*events, *(["[DONE]"] if done else [])]
    chunks = [b"data: " + _text(event) + b"\n\n" for event in lines]
    return Reply(200, [(b"Content-Type", b"text/event-stream")], chunks=list(_with_gaps(chunks, gap)), **more)


def ndjson_reply(values: Iterable[object], *, gap: Piece = 0, **more: Any) -> Reply:
    """Ollama-style lines of JSON, one chunk each."""
    chunks = [_text(value) + b"\n" for value in values]
    return Reply(200, [(b"Content-Type", b"application/x-ndjson")], chunks=list(_with_gaps(chunks, gap)), **more)


def gzip_reply(body: bytes, content_type: bytes = b"application/json") -> Reply:
    """A compressed answer; a proxy must pass the compressed bytes on."""
    headers = [(b"Content-Type", content_type), (b"Content-Encoding", b"gzip")]
    return Reply(200, headers, gzip.compress(body, mtime=0))


def redirect_reply(location: str, status: int = 302) -> Reply:
    """A redirect nobody should follow."""
    return Reply(status, [(b"Location", location.encode())], reason=b"Found")


def _text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _with_gaps(chunks: Sequence[bytes], gap: Piece) -> Iterator[Piece]:
    for position, chunk in enumerate(chunks):
        if position and gap:
            yield gap
        yield chunk


# -- what came in


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came over the wire."""

    raw: bytes  # head and body, byte for byte
    method: bytes
    target: bytes  # path and query as written
    headers: tuple[Header, ...]  # order, case and duplicates kept
    body: bytes  # chunked coding undone
    connection: int  # which connection, counted from 0

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.split(b"?", 1)[0].decode("latin-1")

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)


class Conn(asyncio.Protocol):
    """One accepted connection, as a script sees it."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self.backend = backend
        self.number = -1
        self.gone = asyncio.Event()  # the client closed or reset, or we ended it
        self.reset_by_client = False
        self.received = bytearray()  # not yet read by request()
        self.total_received = 0
        self.transport: asyncio.Transport
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def request(self) -> Received | None:
        """The next whole request; None when the client has gone."""
        head = await self._read_until(b"\r\n\r\n")
        if head is None:
            return None
        start, *lines = head[:-4].split(b"\r\n")
        method, target, _ = start.split(b" ", 2)
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(b":") for line in lines))
        named = {name.lower(): value for name, value in headers}
        rest = await self._read_body(named)
        if rest is None:
            return None
        raw, body = rest
        found = Received(head + raw, method, target, headers, body, self.number)
        self.backend.note_request(found)
        return found

    async def request_head(self) -> bytes | None:
        """The next request's head alone, raw and not counted; its body stays in `received`."""
        return await self._read_until(b"\r\n\r\n")

    async def play(self, step: Step, request: Received) -> None:
        """Answer `request` with a step."""
        await step.play(self, request)

    def write(self, data: bytes) -> None:
        """Send now; nothing happens once the connection is gone."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written."""
        await asyncio.sleep(0)
        await self._writable.wait()

    def close(self) -> None:
        """End with a FIN after what was written."""
        self.transport.close()

    def reset(self) -> None:
        """End with a RST (SO_LINGER 0)."""
        sock = self.transport.get_extra_info("socket")
        if sock.fileno() < 0:
            return  # closed in the same moment
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def stop_reading(self) -> None:
        """Let the client's bytes pile up in the kernel."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resume_reading()

    # -- callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.backend.note_connection(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.total_received += len(data)
        self._news.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reset_by_client = isinstance(exc, ConnectionResetError)
        self._end()
        self.backend.note_closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- inside

    def _end(self) -> None:
        self.gone.set()
        self._news.set()
        self._writable.set()

    async def _more(self) -> bool:
        """Wait for bytes; False when none will come."""
        if self.gone.is_set():
            return False
        self._news.clear()
        await self._news.wait()
        return True

    async def _read_until(self, mark: bytes) -> bytes | None:
        while mark not in self.received:
            if not await self._more():
                return None
        return self._take(self.received.index(mark) + len(mark))

    async def _read_exactly(self, size: int) -> bytes | None:
        while len(self.received) < size:
            if not await self._more():
                return None
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    async def _read_body(self, named: Mapping[bytes, bytes]) -> tuple[bytes, bytes] | None:
        if named.get(b"transfer-encoding", b"").lower() != b"chunked":
            body = await self._read_exactly(int(named.get(b"content-length", b"0")))
            return None if body is None else (body, body)
        raw = body = b""
        while True:
            line = await self._read_until(b"\r\n")
            data = None if line is None else await self._read_exactly(int(line, 16) + 2)
            if line is None or data is None:
                return None
            raw, body = raw + line + data, body + data[:-2]
            if data == b"\r\n":
                return raw, body


# -- the backend


@dataclass(slots=True)
class _Steps:
    """Steps handed out one per request, the last one for ever."""

    steps: Sequence[Step]
    used: int = 0

    def next(self) -> Step:
        step = self.steps[min(self.used, len(self.steps) - 1)]
        self.used += 1
        return step


@dataclass(slots=True)
class TLSFiles:
    """A server's certificate and key, and the authority that vouches for it."""

    ca_file: str
    cert_file: str
    key_file: str

    def server_context(self) -> ssl.SSLContext:
        """A server's TLS settings with this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


NOT_FOUND = Reply(404, body=b"not scripted", reason=b"Not Found")


@dataclass(slots=True)
class ScriptedBackend:
    """A server on 127.0.0.1 that does what its script says and keeps what it saw."""

    script: Script = field(default_factory=Reply)
    tls: TLSFiles | None = None
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    read_limit: int = 0  # bytes of the socket's receive buffer; small ones make clients wait
    requests: list[Received] = field(default_factory=list, init=False)
    conns: list[Conn] = field(default_factory=list, init=False)  # every connection accepted
    closed: int = field(default=0, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)
    _tasks: dict[Conn, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _routes: dict[str, _Steps] = field(default_factory=dict, init=False)

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return len(self.conns)

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self.conns) - self.closed

    @property
    def origin(self) -> Origin:
        """Where it listens."""
        return Origin("https" if self.tls else "http", self.host, self.port)

    @property
    def url(self) -> str:
        """Its base URL without a trailing slash."""
        return f"{self.origin.scheme}://{self.origin.authority}"

    async def wait_requests(self, count: int, within: float = 30) -> None:
        """Wait until `count` whole requests have come."""
        await self.wait_for(lambda: len(self.requests) >= count, within, f"{count} requests")

    async def wait_connections(self, count: int, within: float = 30) -> None:
        """Wait until `count` connections were accepted."""
        await self.wait_for(lambda: self.connections >= count, within, f"{count} connections")

    async def wait_closed(self, count: int, within: float = 30) -> None:
        """Wait until `count` connections have ended."""
        await self.wait_for(lambda: self.closed >= count, within, f"{count} closed connections")

    async def wait_all_closed(self, within: float = 30) -> None:
        """Wait until no connection is open."""
        await self.wait_for(lambda: not self.open, within, "no open connection")

    async def wait_for(self, condition: Callable[[], bool], within: float, what: str) -> None:
        """Wait until a connection, a request or an end makes `condition` true. Raises AssertionError."""
        try:
            await come_true(condition, within)
        except TimeoutError:
            seen = f"{self.connections} connections, {len(self.requests)} requests, {self.closed} closed"
            raise AssertionError(f"waited {within} s for {what}; saw {seen}") from None

    def forget(self) -> None:
        """Drop what is kept of the past: requests and connections that have ended."""
        self.requests.clear()
        ended = {conn for conn in self.conns if conn.gone.is_set()}
        self.conns = [conn for conn in self.conns if conn not in ended]
        self.closed -= len(ended)
        self._tasks = {conn: task for conn, task in self._tasks.items() if conn not in ended}

    async def __aenter__(self) -> ScriptedBackend:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.read_limit:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.read_limit)
        sock.bind((self.host, self.port))
        self.port = sock.getsockname()[1]
        context = self.tls.server_context() if self.tls else None
        self._server = await loop.create_server(lambda: Conn(self), sock=sock, ssl=context, backlog=1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and end every connection; raises what a script raised."""
        if self._server is not None:
            self._server.close()
        for conn in self.conns:
            conn.transport.abort()
        for task in self._tasks.values():
            task.cancel()
        results = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.wait_all_closed()
        for result in results:
            if isinstance(result, Exception):
                raise result

    # -- for Conn

    def note_connection(self, conn: Conn) -> None:
        """A connection was accepted: run its script."""
        conn.number = len(self.conns)
        self.conns.append(conn)
        task = asyncio.get_running_loop().create_task(self._serve(conn))
        self._tasks[conn] = task

    def note_request(self, request: Received) -> None:
        """A whole request came."""
        self.requests.append(request)

    def note_closed(self, conn: Conn) -> None:
        """A connection ended; so does the step it was in the middle of."""
        self.closed += 1
        if not inspect.iscoroutinefunction(self.script):
            self._tasks[conn].cancel()

    async def _serve(self, conn: Conn) -> None:
        if inspect.iscoroutinefunction(self.script):
            await self.script(conn)
            return
        while not conn.transport.is_closing():
            request = await conn.request()
            if request is None:
                return
            await self._choose(request).play(conn, request)

    def _choose(self, request: Received) -> Step:
        if not isinstance(self.script, Mapping):
            return self._steps("*", self.script).next()
        for path in (request.path, "*"):
            if path in self.script:
                return self._steps(path, self.script[path]).next()
        return NOT_FOUND

    def _steps(self, path: str, steps: Any) -> _Steps:
        if path not in self._routes:
            self._routes[path] = _Steps(steps if isinstance(steps, Sequence) else [steps])
        return self._routes[path]


@contextmanager
def refused_origin() -> Iterator[Origin]:
    """An origin whose port is held but not listened on: connecting is refused at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield Origin("http", "127.0.0.1", sock.getsockname()[1])


async def stream_of(*pieces: Piece) -> AsyncIterator[bytes]:
    """A request body that comes in pieces, with pauses."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            await pause(piece)


# -- certificates


def make_certificates(
    folder: Path, *, names: Sequence[str] = ("localhost", "127.0.0.1"), expired: bool = False
) -> TLSFiles:
    """A fresh authority in `folder` and a server certificate for `names` (host names or addresses)."""
    now = dt.datetime.now(dt.UTC)
    until = now - dt.timedelta(days=1) if expired else now + dt.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, now + dt.timedelta(days=1), [
        x509.BasicConstraints(ca=True, path_length=None),
    ])  # fmt: skip
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    certificate = _certificate(subject, ca_name, key, ca_key, until, [alternatives])
    files = TLSFiles(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    pem = serialization.Encoding.PEM
    Path(files.ca_file).write_bytes(ca.public_bytes(pem))
    Path(files.cert_file).write_bytes(certificate.public_bytes(pem))
    Path(files.key_file).write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    until: dt.datetime,
    extensions: Sequence[x509.ExtensionType],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - dt.timedelta(days=10))
        .not_valid_after(until)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, hashes.SHA256())
