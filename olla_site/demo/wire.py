"""HTTP/1.1 for the demo backend: keep-alive, chunked streams, and a client that leaves ends its request.

A connection handles one request at a time; pipelined ones wait. When the connection is lost the handler's
task is cancelled, so that generation stops at once, as a real inference server should.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools

from endpoints.tasks import spawn

logger = logging.getLogger(__name__)

MAX_BODY = 512 * 1024 * 1024
LABEL = ("X-Demo-Backend", "1")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole. Header names are lower-case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keep_alive: bool

    @property
    def path(self) -> str:
        """The decoded path without the query."""
        return unquote(self.target.partition("?")[0])

    def header(self, name: str) -> str:
        """The first value of a header, empty when absent."""
        return next((value for key, value in self.headers if key == name), "")


class Answer:
    """The answer to one request: `send` for a whole one, or `start`, `write`..., `finish` for a stream."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.status = 0
        self.sent = 0
        self.finished = False

    async def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Answer with a whole body."""
        await self._head(status, content_type, ("Content-Length", str(len(body))))
        if self._request.method != "HEAD":
            await self._put(body)
        self._end()

    async def send_json(self, status: int, value: Any) -> None:
        """Answer with a JSON document."""
        await self.send(status, json.dumps(value, ensure_ascii=False).encode())

    async def start(self, status: int, content_type: str) -> None:
        """Begin a chunked answer."""
        await self._head(status, content_type, ("Transfer-Encoding", "chunked"))

    async def write(self, chunk: bytes) -> None:
        """Send one chunk; waits while the client is slower than we are."""
        await self._put(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    async def finish(self) -> None:
        """End a chunked answer."""
        await self._put(b"0\r\n\r\n")
        self._end()

    async def _head(self, status: int, content_type: str, framing: tuple[str, str]) -> None:
        self.status = status
        pairs = [("Content-Type", content_type), framing, LABEL, ("X-Demo-Backend-Name", self._connection.label)]
        if not self._request.keep_alive:
            pairs.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in pairs)]
        await self._put(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def _put(self, data: bytes) -> None:
        self.sent += len(data)
        await self._connection.put(data)

    def _end(self) -> None:
        self.finished = True


Handle = Callable[[Request, Answer], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection. httptools calls the `on_...` methods while it parses."""

    def __init__(self, handle: Handle, label: str, connections: set[Connection]) -> None:
        self.label = label
        self._handle = handle
        self._connections = connections
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - narrows the type
        self._transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._transport.close()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    # httptools' side

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._chunks: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            raise ValueError("the body is larger than the demo backend takes")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=tuple(self._headers),
            body=b"".join(self._chunks),
            keep_alive=self._parser.should_keep_alive(),
        )
        self._chunks = []
        self._waiting.append(request)
        if self._task is None or self._task.done():
            self._task = spawn(self._work(), "demo connection")

    async def _work(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            answer = Answer(self, request)
            try:
                await self._handle(request, answer)
            finally:
                if not answer.finished:
                    self._transport.abort()
            if not request.keep_alive:
                self._transport.close()

    async def put(self, data: bytes) -> None:
        """Write, then wait until the client has taken most of it."""
        self._transport.write(data)
        await self._room.wait()

    def abort(self) -> asyncio.Task[None] | None:
        """Drop the connection at once; its handler's task, if one runs, ends soon after."""
        self._transport.abort()
        return self._task
