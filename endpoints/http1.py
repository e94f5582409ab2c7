"""The HTTP/1.1 client protocol on asyncio: an answer as its caller holds it, and the connection it comes over.

Rules: RFC 9112. `AnswerReader` parses, `Connection` moves bytes and watches limits, `Answer` hands the body out.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from math import inf
from time import monotonic
from typing import Protocol

from endpoints.answer_reader import MAX_HEAD, AnswerReader
from endpoints.failures import (
    BadAnswer,
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
    TotalTimeout,
)
from endpoints.outgoing import PIECE_SIZE, Limits, OutgoingHead, Request, sliced

BUFFER_LIMIT = 256 * 1024  # bytes of body held before the endpoint is made to wait


class Answer:
    """An endpoint's answer: the head exactly as received, and the body as an async iterator of bytes.

    Chunked coding is undone, nothing else: a compressed body stays compressed. What arrived together comes out
    together. Iterating raises LostMidBody, IdleTimeout, TotalTimeout or BadAnswer, never ends early. Whoever holds
    an answer must read it to its end or call `aclose()`.
    """

    __slots__ = (
        "_connection", "_loop", "_reader", "_waiter", "deadline", "failure", "headers", "http_version",
        "interrupt", "limits", "reason", "reused", "status", "tap", "total_deadline", "unsent",
    )  # fmt: skip

    def __init__(self, connection: Connection, method: bytes, limits: Limits, started: float) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.http_version = ""
        self.reused = connection.exchanges > 0
        self.limits = limits
        self.failure: DoorError | None = None
        self.deadline = inf
        self.total_deadline = started + limits.total if limits.total else inf
        self.unsent = 0
        self.tap: Callable[[bytes], None] | None = None  # is shown each piece that is iterated over
        self.interrupt: asyncio.Timeout | None = None  # the scope of an upload that an early answer ends
        self._reader = AnswerReader(method)
        self._connection: Connection | None = connection
        self._loop = connection.loop
        self._waiter: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received (perhaps not yet read)."""
        return self._reader.complete

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        reader = self._reader
        while not reader.pieces:
            if self.failure is not None:
                raise self.failure
            if reader.complete:
                raise StopAsyncIteration
            await self._wait(self.limits.idle)
        data = reader.take()
        if self.tap is not None:
            self.tap(data)
        if self._connection is not None:
            self._connection.resume_reading()
        return data

    async def arrives(self, within: float, since: float) -> bool:
        """Whether the next piece, the end or a failure is here; waits for one at most `within` seconds.

        The idle limit runs from `since` (monotonic), so that waiting in several steps does not stretch it.
        """
        if not self._has_news():
            timer = self._loop.call_later(within, self.wake)
            try:
                await self._wait(self.limits.idle, since)
            finally:
                timer.cancel()
        return self._has_news()

    def _has_news(self) -> bool:
        return bool(self._reader.pieces) or self.failure is not None or self._reader.complete

    async def read(self) -> bytes:
        """The rest of the body, whole; without a wait when it is already here."""
        if self._reader.complete:
            return self._reader.take()
        return b"".join([piece async for piece in self])

    async def aclose(self) -> None:
        """Stop reading; a connection with an unfinished answer is closed at once. Safe to call again."""
        self.abandon()

    def abandon(self) -> None:
        """`aclose()` for callers that cannot await."""
        connection, self._connection = self._connection, None
        self._reader.pieces.clear()
        self._reader.stop()
        if connection is not None:
            self.failure = LostMidBody("The answer was closed before its end.")
            connection.abort()

    async def wait_for_head(self) -> None:
        """Wait until the head is here. Raises what went wrong instead."""
        while not self.status and self.failure is None:
            await self._wait(self.limits.first_byte)
        if self.failure is not None and not self.status:
            raise self.failure

    # -- for Connection

    def receive(self, data: bytes) -> bool:
        """Take bytes of the answer; whether it is complete. Raises BadAnswer."""
        reader = self._reader
        reader.feed(data)
        if not self.status:
            if not reader.status:
                return False
            self.status = reader.status
            self.reason = reader.reason
            self.headers = reader.headers
            self.http_version = reader.http_version
            self.wake()
        elif reader.pieces or reader.complete:
            self.wake()
        return reader.complete

    @property
    def overfull(self) -> bool:
        """Whether so much is buffered that reading should pause."""
        return self._reader.buffered > BUFFER_LIMIT

    @property
    def leaves_connection_clean(self) -> bool:
        """Whether the complete answer allows another exchange on its connection (RFC 9112 9.3)."""
        return self._reader.keep_alive and not self._reader.excess

    def end(self, failure: DoorError | None) -> None:
        """The exchange is over: the connection is no longer ours."""
        self._connection = None
        self.failure = failure
        self._reader.stop()
        self.wake()

    def cut(self, *, clean: bool) -> DoorError | None:
        """The failure that the end of the connection means now; None when it completes the answer."""
        if not self._reader.started:
            return NothingReceived(reused=self.reused)
        return self._reader.cut(clean=clean)

    def find_overdue(self, now: float) -> DoorError | None:
        """The limit that has passed, as its failure."""
        if now >= self.total_deadline:
            return TotalTimeout(f"The exchange took longer than {self.limits.total:g} s.")
        if now < self.deadline:
            return None
        if self.status:
            return IdleTimeout(f"The answer made no progress for {self.limits.idle:g} s.")
        return FirstByteTimeout(f"No answer within {self.limits.first_byte:g} s.")

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.interrupt is not None:
            scope, self.interrupt = self.interrupt, None
            scope.reschedule(self._loop.time())

    async def _wait(self, limit: float, since: float | None = None) -> None:
        if self._waiter is not None:
            raise RuntimeError("Two tasks read one answer.")
        self._waiter = self._loop.create_future()
        self.deadline = (monotonic() if since is None else since) + limit if limit else inf
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            self._waiter = None
            self.deadline = inf


class Owner(Protocol):
    """Who is told when a connection is free again or gone."""

    def on_free(self, connection: Connection) -> None:
        """The exchange ended and another may follow."""

    def on_lost(self, connection: Connection) -> None:
        """The socket is closed."""


class Connection(asyncio.BufferedProtocol):
    """One socket to an endpoint, carrying one exchange at a time.

    `buffer` is where asyncio receives; all connections of a loop share one, as its content is copied out at once.
    (A plain Protocol's recv makes a 256 KiB bytes object for each read: measured up to 20 us for 100 bytes.)
    """

    __slots__ = ("_buffer", "_can_write", "_reading_paused", "_sent", "_transport", "answer", "closed",
                 "exchanges", "idle_since", "loop", "owner")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self.loop = loop
        self._buffer = buffer
        self.owner: Owner | None = None
        self.answer: Answer | None = None
        self.exchanges = 0
        self.idle_since = 0.0
        self.closed = False  # closing counts
        self._transport: asyncio.Transport
        self._can_write: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._sent = False

    async def exchange(self, request: Request, wire: OutgoingHead, limits: Limits, started: float) -> Answer:
        """Send one request and wait for the head of its answer. Raises DoorError."""
        if self.closed:
            raise NotConnected(NotConnectedReason.CLOSED, "The endpoint closed the connection before the request.")
        answer = self.answer = Answer(self, request.method, limits, started)
        self.exchanges += 1
        body = request.body
        try:
            if isinstance(body, bytes) and len(body) <= PIECE_SIZE and not wire.chunked:
                self._sent = True
                self._transport.write(wire.head + body)
            else:
                await self._upload(answer, wire, sliced(body) if isinstance(body, bytes) else body)
            await answer.wait_for_head()
        finally:
            if not answer.status:
                answer.abandon()
        return answer

    def abort(self) -> None:
        """Close the socket now, dropping what is unread and unsent."""
        self.answer = None
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def shut(self) -> None:
        """Close the socket and tell whoever waits for the answer."""
        answer = self.answer
        if answer is not None:
            answer.end(
                LostMidBody("The transport was closed.")
                if answer.status
                else NothingReceived(reused=answer.reused)
            )
        self.abort()

    def sweep(self, now: float) -> None:
        """End the exchange when one of its limits has passed."""
        answer = self.answer
        if answer is None:
            return
        if not answer.status and answer.deadline < inf:
            unsent = self._transport.get_write_buffer_size()
            if unsent != answer.unsent:
                # The request itself is still making progress: the first-byte clock starts when that ends.
                answer.unsent = unsent
                answer.deadline = now + answer.limits.first_byte
        failure = answer.find_overdue(now)
        if failure is not None:
            self._end(answer, failure)

    def resume_reading(self) -> None:
        """There is room again."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    # -- callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(self._buffer[:nbytes]))

    def _receive(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self.abort()  # nobody asked: this connection must not carry another answer
            return
        try:
            complete = answer.receive(data)
        except BadAnswer as failure:
            self._end(answer, failure)
            return
        if complete:
            self._end(answer, None)
        elif answer.overfull and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._cut(clean=self._ended_orderly())

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is not None and self.answer is not None:
            self._read_last_words()
        self._cut(clean=False)  # an orderly end was told by eof_received
        self._allow_writing()
        if self.owner is not None:
            self.owner.on_lost(self)

    def pause_writing(self) -> None:
        self._can_write = self.loop.create_future()

    def resume_writing(self) -> None:
        self._allow_writing()

    # -- inside

    def _end(self, answer: Answer, failure: DoorError | None) -> None:
        """The exchange is over; keep the connection if nothing speaks against it."""
        self.answer = None
        answer.end(failure)
        if (
            failure is None
            and self._sent
            and answer.leaves_connection_clean
            and self.owner is not None
            and not self.closed
            and not self._transport.get_write_buffer_size()
        ):
            self.owner.on_free(self)
        else:
            self.abort()

    def _cut(self, *, clean: bool) -> None:
        answer = self.answer
        if answer is None:
            self.abort()
            return
        self.closed, already = True, self.closed
        self._end(answer, answer.cut(clean=clean))
        if not already:
            self._transport.abort()

    def _ended_orderly(self) -> bool:
        """Over TLS only close_notify ends a body (RFC 9112 9.8): anybody on the way can forge a FIN."""
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)  # OpenSSL gives the empty end of file after close_notify only
        except ssl.SSLError:
            return False

    def _read_last_words(self) -> None:
        """An endpoint that refuses a body answers and closes; our write then fails before the answer was read.

        asyncio drops a connection whose write failed without reading it again, but the kernel still has the bytes.
        """
        if self._transport.get_extra_info("sslcontext") is not None:
            return
        try:
            data = os.read(self._transport.get_extra_info("socket").fileno(), MAX_HEAD)
        except OSError:
            return
        if data:
            self._receive(data)

    def _allow_writing(self) -> None:
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _upload(self, answer: Answer, wire: OutgoingHead, body: AsyncIterable[bytes]) -> None:
        """Write head and body in step with the socket, until sent or until the answer comes first."""
        self._sent = False
        self._transport.write(wire.head)
        try:
            async with asyncio.timeout(None) as scope:
                answer.interrupt = scope
                await self._write_pieces(answer, wire, body)
        except TimeoutError:
            if not scope.expired():
                raise  # the body's own
        finally:
            answer.interrupt = None

    async def _write_pieces(self, answer: Answer, wire: OutgoingHead, body: AsyncIterable[bytes]) -> None:
        size = 0
        async for piece in body:
            if self._transport.is_closing():
                return  # a write failed; connection_lost comes next and may still bring an answer
            if not piece:
                continue
            size += len(piece)
            if wire.length is not None and size > wire.length:
                raise ValueError("The body is longer than its Content-Length.")
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if wire.chunked else piece)
            if size == wire.length:
                self._sent = True  # before any wait: the answer may come in the same moment
            elif self._can_write is not None:
                answer.deadline = monotonic() + answer.limits.first_byte if answer.limits.first_byte else inf
                await self._can_write
                answer.deadline = inf  # waiting for our own side now
        if wire.length is not None and size < wire.length:
            raise ValueError("The body is shorter than its Content-Length.")
        if wire.chunked:
            self._transport.write(b"0\r\n\r\n")
            self._sent = True
