"""One client connection: bytes in, one request at a time out, refusals, flow control, closing.

    HEAD       waiting for a request head (idle between requests when nothing has come yet)
    BODY       head accepted, body still coming
    ANSWERING  the application has the request; what the client pipelines waits as bytes
    CLOSING    the last answer is on its way; input is read and dropped
    GONE       the connection is lost

End of file from the client counts as gone, also when it only closed its sending half: HTTP clients that still
read do not do that, and the upstream (a GPU) must be freed at once.

What this leans on in Twisted (tests/server/test_internals.py fails when an upgrade changes it): a registered push
producer is paused when more than 64 KiB wait to be written and resumed when they are gone; `connectionLost` of a
protocol that is not IHalfCloseableProtocol follows end of file at once; `abortConnection` resets;
`loseWriteConnection` flushes, then shuts the sending half; a plain TCP transport keeps unsent bytes in
`dataBuffer` and `_tempDataBuffer` and its socket in `socket`.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol

from olla_site.server import access_log
from olla_site.server.exchange import Exchange
from olla_site.server.limits import (
    body_too_large,
    draining,
    headers_too_large,
    overloaded,
    too_slow,
)
from olla_site.server.request_head import RequestHead, RequestParser
from olla_site.server.response_head import Asked, build_response_head
from olla_site.server.websocket import hand_to_websocket
from proxy.errors import OllaError, build_error_body, choose_shape
from proxy.request_id import choose_request_id

if TYPE_CHECKING:
    from olla_site.server.server import OllaServer

# Pipelined bytes held before reading stops (and with it the sight of a client that leaves).
_MAX_PIPELINED = 64 * 1024
# How long a refused client may go on sending while it reads its answer.
_LINGER = 1.0
_HEAD_END = b"\r\n\r\n"
_NEVER = float("inf")


class Phase(Enum):
    """What the connection is doing; the module's docstring says more."""

    HEAD = 1
    BODY = 2
    ANSWERING = 3
    CLOSING = 4
    GONE = 5


class HTTPProtocol(Protocol):
    """The server's side of one HTTP/1.1 connection; also the push producer of its own transport."""

    transport: Any  # Twisted types it as an interface without the producer and TCP methods used here

    def __init__(self, server: OllaServer) -> None:
        self.server = server
        self.parser = RequestParser(server.budget, server.conf.max_body_size)
        self.phase = Phase.HEAD
        self.deadline = _NEVER
        self.exchange: Exchange | None = None
        self.client: tuple[str, int] | None = None
        self.host: tuple[str, int] | None = None
        self.scheme = "http"
        self._buffer = b""
        self._head: RequestHead | None = None
        self._reading_paused = False
        self._room: asyncio.Future[None] | None = None
        self._unsent = 0
        self._checker: Any = None
        self._checked = 0
        self._tail = b""
        self._direct = False
        self._turn = -1

    # Twisted's events

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Called when the client has connected."""
        transport = self.transport
        self._direct = type(transport) is tcp.Server
        if self._direct:
            transport.setTcpNoDelay(True)  # a token must not wait for the next one (Nagle)
            transport.setTcpKeepAlive(True)  # a peer that lost its network is noticed in the end
        peer, host = transport.getPeer(), transport.getHost()
        if hasattr(peer, "port"):
            self.client, self.host = (peer.host, peer.port), (host.host, host.port)
        if ISSLTransport.providedBy(transport):
            self.scheme = "https"
        transport.registerProducer(self, True)
        self.deadline = self.server.clock + self.server.conf.keep_alive_timeout
        self.server.http_connections.add(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Called with what has arrived."""
        if self.phase is Phase.CLOSING:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802 - Twisted's name
        """Called once, however the connection ended."""
        self.phase = Phase.GONE
        self._direct = False
        self.server.http_connections.discard(self)
        self._buffer = b""
        self.parser.release()
        self.resumeProducing()
        if self.exchange is not None:
            self.exchange.client_gone()
            self.exchange = None

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport holds enough unsent bytes."""
        if self._room is None:
            self._room = self.server.loop.create_future()
            self._watch_sending()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport has handed everything to the system."""
        room, self._room = self._room, None
        if room is None:
            return
        if not room.done():
            room.set_result(None)
        if self.phase is Phase.ANSWERING:
            self.deadline = _NEVER
        elif self.phase is Phase.HEAD:
            self._advance()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is gone; `connectionLost` follows."""

    # Requests

    def _advance(self) -> None:
        """Make of the buffer what the phase allows."""
        while self._buffer:
            # A client that pipelines without reading gets no further answers until it reads.
            if self.phase is Phase.HEAD and self._room is None:
                if not self._take_head():
                    return
            elif self.phase is Phase.BODY:
                self._take_body()
            else:
                break
        if len(self._buffer) > _MAX_PIPELINED and not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _take_head(self) -> bool:
        """Parse the next head if it is all there; False when more bytes are needed."""
        buffer = self._buffer
        if buffer[0] in _HEAD_END:  # an empty line before a request is skipped (RFC 9112, 2.2)
            buffer = self._buffer = buffer.lstrip(_HEAD_END)
        end = buffer.find(_HEAD_END) + len(_HEAD_END)
        limit = self.server.conf.max_header_size
        if end < len(_HEAD_END):
            if len(buffer) > limit:
                self.refuse(headers_too_large(limit))
            elif buffer:
                self._take_partial_head(buffer)
            return False
        if end > limit:
            self.refuse(headers_too_large(limit))
            return False
        self._checker = None
        self._buffer = buffer[end:]
        self._head = None
        try:
            self._head = head = self.parser.parse_head(buffer[:end])
            self._admit(head)
        except OllaError as error:
            self.refuse(error)
            return False
        if head.websocket:
            hand_to_websocket(self, head, buffer)
            return False
        if self.parser.complete:
            self._start_exchange(head)
        else:
            self._expect_body(head)
        return True

    def _take_partial_head(self, buffer: bytes) -> None:
        """Judge what there is of a head, so that what can never become one is refused at once."""
        if self._checker is None:
            self._checker = RequestParser.build_checker()
            self.deadline = self.server.clock + self.server.conf.header_timeout + 1
            fresh = buffer
        else:
            fresh = buffer[self._checked :]
        self._checked = len(buffer)
        try:
            RequestParser.check(self._checker, fresh)
        except OllaError as error:
            self.refuse(error)

    def _admit(self, head: RequestHead) -> None:
        """Raise OllaError when the request is refused by its head alone."""
        server = self.server
        limit = server.conf.max_body_size
        if server.draining:
            raise draining()
        if 0 < limit < head.length:
            raise body_too_large(limit)
        if head.length and not server.budget.may_hold(head.length, head.length):
            raise overloaded()

    def _expect_body(self, head: RequestHead) -> None:
        self.phase = Phase.BODY
        self._progress()
        expects = head.watched.get(b"expect", b"").lower() == b"100-continue"
        if expects and head.http_version == "1.1" and not self._buffer:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self) -> None:
        """Feed the parser up to the end of the body at most; what follows is the next request."""
        head, parser, data = self._head, self.parser, self._buffer
        assert head is not None  # noqa: S101 - the phase says so
        before = parser.size
        cut = self._chunked_cut(data) if head.chunked else head.length - before
        self._buffer = data[cut:]
        try:
            parser.feed(data[:cut])
        except OllaError as error:
            self.refuse(error)
            return
        if parser.complete:
            self._tail = b""
            self._start_exchange(head)
        elif parser.size > before:  # chunk extensions and the like are no progress
            self._progress()

    def _chunked_cut(self, data: bytes) -> int:
        """Where to cut so that a chunked body can only end where the cut is: each ends with two line ends."""
        seam = self._tail + data
        end = seam.find(_HEAD_END)
        self._tail = seam[-3:] if end < 0 else b""
        return len(data) if end < 0 else end + len(_HEAD_END) - (len(seam) - len(data))

    def _progress(self) -> None:
        self.deadline = self.server.clock + self.server.conf.body_stall_timeout + 1

    def _start_exchange(self, head: RequestHead) -> None:
        self.phase = Phase.ANSWERING
        self.deadline = _NEVER
        self.exchange = Exchange(self, head, self.parser.take_body() if head.has_body else b"")
        self.exchange.start()

    # What an exchange calls

    def write(self, data: bytes) -> None:
        """Send bytes.

        The first write of a turn of the event loop goes straight to the socket when nothing waits before it:
        Twisted would ask for writability, wait for the next turn and take the question back (a third of a small
        answer's cost). Later writes of the same turn are collected by Twisted and leave together.
        """
        server, transport = self.server, self.transport
        if self._direct and self._turn != server.turn and not transport.dataBuffer and not transport._tempDataLen:
            self._turn = server.begin_turn()
            try:
                sent = transport.socket.send(data)
            except OSError:
                sent = 0  # full, or broken: Twisted finds out and acts
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    @property
    def is_busy(self) -> bool:
        """Whether a request is coming in, being answered, or its answer is still leaving."""
        return self.phase in {Phase.BODY, Phase.ANSWERING, Phase.CLOSING} or self._room is not None

    @property
    def room(self) -> asyncio.Future[None] | None:
        """The future to await before more is sent; None when there is room."""
        return self._room

    def answered(self, *, keep_alive: bool) -> None:
        """The exchange's answer is complete: on to the next request, or close."""
        self.exchange = self._head = None
        self.parser.release()
        if not keep_alive:
            self.close()
            return
        self.phase = Phase.HEAD
        self.deadline = self.server.clock + self.server.conf.keep_alive_timeout
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resumeProducing()
        if self._buffer:
            self._advance()

    # Ends

    def refuse(self, error: OllaError) -> None:
        """Answer with our own JSON error and close; input is dropped for a moment so that it can be read."""
        head, exchange = self._head, self.exchange
        self.exchange = self._head = None
        self.parser.release()
        method = head.method if head else "GET"
        request_id = exchange.request_id if exchange else choose_request_id(self._sent_request_id(head))
        path = head.path if head else ""
        body = build_error_body(error, request_id, choose_shape(path))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-olla-request-id", request_id.encode("ascii")),
            *error.headers,
        ]
        asked = Asked(method, "1.1", keep_alive=False)
        answer = build_response_head(error.status, headers, asked, whole=len(body), date=self.server.date_line)
        self.transport.write(answer.data if answer.empty else answer.data + body)
        self._log_refusal(error, request_id, head, len(body))
        self.close(linger=True)

    @staticmethod
    def _sent_request_id(head: RequestHead | None) -> bytes | None:
        return head.watched.get(b"x-request-id") if head else None

    def _log_refusal(self, error: OllaError, request_id: str, head: RequestHead | None, size: int) -> None:
        if not access_log.is_logging():
            return
        now = time.time()
        access_log.log_request(
            access_log.AccessRecord(
                time=access_log.format_time(now),
                request_id=request_id,
                client=self.client[0] if self.client else "",
                method=head.method if head else "-",
                path=access_log.redact_target(head.raw_path, head.query) if head else "-",
                status=error.status,
                bytes=size,
                ms=0.0,
            ),
            now,
        )

    def close(self, *, linger: bool = False) -> None:
        """Close when everything written has left.

        While the client may still be sending, only the sending half is closed and input is dropped: closing a
        socket with unread input resets it, and the client would lose the answer (RFC 9112, 9.6).
        """
        if self.phase in {Phase.CLOSING, Phase.GONE}:
            return
        linger = linger or bool(self._buffer)
        self.phase = Phase.CLOSING
        self._buffer = b""
        transport = self.transport
        transport.unregisterProducer()
        self.resumeProducing()
        if self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()
        if linger and self._direct:
            self.deadline = self.server.loop.time() + _LINGER
            transport.loseWriteConnection()
        else:
            self._watch_sending()
            transport.loseConnection()

    def leave(self) -> None:
        """Another protocol takes the transport over."""
        self.phase = Phase.GONE
        self._buffer = b""
        self.server.http_connections.discard(self)

    def abort(self) -> None:
        """Reset the connection now: what the client has must not look complete."""
        if self.phase is not Phase.GONE:
            self.phase = Phase.CLOSING
            self._direct = False
            self.exchange = None
            self.transport.abortConnection()

    def expire(self) -> None:
        """Act on a deadline that has passed; the server's sweep calls it."""
        if self.phase is Phase.HEAD and not self._buffer:
            self.close()
        elif self.phase is Phase.HEAD:
            self.refuse(too_slow("request headers"))
        elif self.phase is Phase.BODY:
            self.refuse(too_slow("request body"))
        elif not self._is_sending():
            self.abort_silent_client()

    def abort_silent_client(self) -> None:
        """Give up on a client that takes nothing any more."""
        exchange = self.exchange
        self.abort()
        if exchange is not None:
            exchange.client_gone()

    def _watch_sending(self) -> None:
        """From now on the client must take some bytes within the idle timeout."""
        self._unsent = self._count_unsent()
        self.deadline = self.server.clock + self.server.conf.idle_timeout + 1

    def _is_sending(self) -> bool:
        """Whether the client has taken bytes since the last look; looks again later if so."""
        if self._count_unsent() == self._unsent:
            return False
        self._watch_sending()
        return True

    def _count_unsent(self) -> int:
        """Bytes written that the client's system has not confirmed: ours and the kernel's (tcp(7), SIOCOUTQ)."""
        transport = self.transport
        if not self._direct:
            return 0
        ours = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        kernel = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int(ours + struct.unpack("i", kernel)[0])
