"""One client connection: bytes in, one request at a time out, refusals.

`Phase` in client_connection.py names what a connection is doing. End of file from the client counts as gone, also
when it only closed its sending half: HTTP clients that still read do not do that, and the upstream (a GPU) must be
freed at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from olla_site.server.access_log import Finished
from olla_site.server.client_connection import NEVER, ClientConnection, Phase
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
from proxy.admission import record_refusal
from proxy.errors import OllaError, build_error_body, choose_shape, shape_headers, shown_status
from proxy.request_id import choose_request_id
from proxy.violations import violations

if TYPE_CHECKING:
    from olla_site.server.server import OllaServer

# Pipelined bytes held before reading stops (and with it the sight of a client that leaves).
_MAX_PIPELINED = 64 * 1024
_HEAD_END = b"\r\n\r\n"


class HTTPProtocol(ClientConnection):
    """The server's side of one HTTP/1.1 connection."""

    def __init__(self, server: OllaServer) -> None:
        super().__init__(server)
        self.parser = RequestParser(server.budget, server.conf.max_body_size)
        self.exchange: Exchange | None = None
        self._head: RequestHead | None = None
        self._checker: Any = None
        self._checked = 0
        self._tail = b""

    @property
    def is_busy(self) -> bool:
        """Whether a request is coming in, being answered, or its answer is still leaving."""
        return self.room is not None or self.phase in {Phase.BODY, Phase.ANSWERING, Phase.CLOSING}

    # Events

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Called when the client has connected."""
        super().connectionMade()
        self.server.http_connections.add(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Called with what has arrived."""
        if self.phase in {Phase.CLOSING, Phase.LINGERING}:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802 - Twisted's name
        """Called once, however the connection ended."""
        super().connectionLost(reason)
        self.parser.release()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def room_made(self) -> None:
        """More may be sent: also the answer to what is pipelined."""
        if self.phase is Phase.ANSWERING:
            self.deadline = NEVER
        elif self.phase is Phase.HEAD:
            self._advance()

    def expire(self) -> None:
        """Act on a deadline that has passed; the server's sweep calls it."""
        if self.phase is Phase.HEAD and not self._buffer:
            self.close()
        elif self.phase is Phase.HEAD:
            self.refuse(too_slow("request headers"))
        elif self.phase is Phase.BODY:
            self.refuse(too_slow("request body"))
        else:
            self.give_up_unless_sending()

    # Requests

    def _advance(self) -> None:
        """Make of the buffer what the phase allows."""
        while self._buffer:
            # A client that pipelines without reading gets no further answers until it reads.
            if self.phase is Phase.HEAD and self.room is None:
                if not self._take_head():
                    return
            elif self.phase is Phase.BODY:
                self._take_body()
            else:
                break
        if len(self._buffer) > _MAX_PIPELINED:
            self.pause_reading()

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
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        self.deadline = NEVER
        self.exchange = Exchange(self, head, self.parser.take_body() if head.has_body else b"")
        self.exchange.start()

    def answered(self, *, keep_alive: bool) -> None:
        """The exchange's answer is complete: on to the next request, or close."""
        self.exchange = self._head = None
        self.parser.release()
        if not keep_alive:
            self.close()
            return
        self.phase = Phase.HEAD
        self.deadline = self.server.clock + self.server.conf.keep_alive_timeout
        self.resume_reading()
        if self._buffer:
            self._advance()

    def refuse(self, error: OllaError) -> None:
        """Answer with our own JSON error and close; input is dropped for a moment so that it can be read."""
        head, exchange = self._head, self.exchange
        self.exchange = self._head = None
        self.parser.release()
        method = head.method if head else "GET"
        request_id = exchange.request_id if exchange else choose_request_id(self._sent_request_id(head))
        path = head.path if head else ""
        violations.note_error(error.code)
        shape = choose_shape(path)
        body = build_error_body(error, request_id, shape)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-olla-request-id", request_id.encode("ascii")),
            *error.headers,
            *((name.encode(), value.encode("ascii")) for name, value in shape_headers(error, request_id, shape)),
        ]
        asked = Asked(method, "1.1", keep_alive=False)
        status = shown_status(error, shape)
        answer = build_response_head(status, headers, asked, whole=len(body), date=self.server.date_line)
        self.write(answer.data if answer.empty else answer.data + body)
        recorded = False
        if head is not None and exchange is None:  # what has reached the application is recorded there
            recorded = record_refusal(self._scope_of(head), request_id, error, len(body))
        log = self.server.access_log
        if log.is_on(recorded=recorded):
            log.add(
                Finished(time.time(), request_id, self.client, head, error.status, len(body), 0.0, aborted=False)
            )
        self.close(refused=True)

    def _scope_of(self, head: RequestHead) -> dict[str, Any]:
        """As much of the ASGI scope as a record is made of."""
        return {
            "method": head.method,
            "scheme": self.scheme,
            "path": head.path,
            "headers": head.headers,
            "client": self.client,
        }

    @staticmethod
    def _sent_request_id(head: RequestHead | None) -> bytes | None:
        return head.watched.get(b"x-request-id") if head else None
