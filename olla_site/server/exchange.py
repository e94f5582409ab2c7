"""One request and its answer: the ASGI conversation (asgi.readthedocs.io, HTTP, version 2.3)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from olla_site.server.aborting import AbortResponse
from olla_site.server.access_log import Finished
from olla_site.server.limits import draining, internal_error
from olla_site.server.request_head import RequestHead
from olla_site.server.response_head import Asked, ResponseHead, build_response_head
from proxy.admission import RECORDED
from proxy.request_id import choose_request_id

if TYPE_CHECKING:
    from olla_site.server.http_protocol import HTTPProtocol

logger = logging.getLogger(__name__)

ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.3"}
# nginx's word for a client that left before its answer; only ever logged.
_CLIENT_CLOSED = 499
_ON_LEAVE = "olla.on_leave"

Message = MutableMapping[str, Any]


class Exchange:
    """The application's `receive` and `send` for one request, and its task."""

    __slots__ = (
        "_began",
        "_body",
        "_headers",
        "_left",
        "_news",
        "_on_leave",
        "_raw_head",
        "_sent",
        "_status",
        "gone",
        "over",
        "protocol",
        "request",
        "request_id",
        "scope",
        "task",
    )

    def __init__(self, protocol: HTTPProtocol, request: RequestHead, body: bytes) -> None:
        self.protocol = protocol
        self.request = request
        self.request_id = choose_request_id(request.watched.get(b"x-request-id"))
        self.scope = self._build_scope()
        self.task: asyncio.Task[None] | None = None
        self.over = False  # nothing more can be sent: answered, refused, aborted or gone
        self.gone = False  # the client left first
        self._body: bytes | None = body
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._raw_head: ResponseHead | None = None
        self._left: int | None = None
        self._sent = 0
        self._news: asyncio.Event | None = None
        self._on_leave: Callable[[], None] | None = None
        self._began = time.perf_counter()

    def _build_scope(self) -> dict[str, Any]:
        request, protocol = self.request, self.protocol
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI_VERSIONS,
            "http_version": request.http_version,
            "method": request.method,
            "scheme": protocol.scheme,
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": protocol.client,
            "server": protocol.host,
            "olla.request_id": self.request_id,
            _ON_LEAVE: self.on_leave,
        }
        if protocol.server.state:
            scope["state"] = protocol.server.state.copy()
        return scope

    def on_leave(self, callback: Callable[[], None] | None) -> None:
        """Have `callback` called when the client leaves before its answer is whole; None calls it off.

        The same news as `http.disconnect`, without a task that waits for it in `receive`.
        """
        self._on_leave = callback
        if self.gone and callback is not None:
            callback()

    def start(self) -> None:
        """Run the application for this request as a task."""
        server = self.protocol.server
        server.exchanges.add(self)
        # Not spawn(): this class keeps the reference, and `run` judges every way a task can end.
        self.task = server.loop.create_task(self.run())

    async def run(self) -> None:
        """Call the application; whatever it does, the connection is left in order."""
        try:
            await self.protocol.server.application(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail()
            raise
        except AbortResponse:
            self._fail()
        except Exception:
            # The outermost door: nobody else can answer for what escapes the application.
            logger.exception("request %s: the application failed", self.request_id)
            self._fail()
        else:
            if not self.over:
                logger.error("request %s: the application ended without a whole answer", self.request_id)
                self._fail()
        finally:
            self.protocol.server.forget(self)
            # A cycle (exchange, scope, callback) would leave the request to the collector, which stops the loop.
            self._on_leave = None
            self.scope.pop(_ON_LEAVE, None)

    def _fail(self) -> None:
        """End an answer that will not be completed: an error of ours, or a cut connection."""
        if self.over:
            return
        self._end()
        if self._status:
            self._log(self._status, aborted=True)
            self.protocol.abort()
        else:
            self.protocol.refuse(draining() if self.protocol.server.draining else internal_error())

    def client_gone(self) -> None:
        """The connection is lost: tell the application, at once."""
        if self.over:
            return
        self.gone = True
        self._end()
        if self._on_leave is not None:
            self._on_leave()
        self.protocol.server.watch_orphan(self)
        self._log(self._status or _CLIENT_CLOSED, aborted=True)

    def _end(self) -> None:
        self.over = True
        if self._news is not None:
            self._news.set()

    # The application's side

    async def receive(self) -> Message:
        """The body in one message, then nothing until there is a disconnect."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.over:
            if self._news is None:
                self._news = asyncio.Event()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the answer; waits while the client reads more slowly than we write.

        After the client has gone it does nothing, but yields, so that a loop of sends cannot hold up the
        news of the disconnect.
        """
        kind = message["type"]
        if self.over:
            if not self.gone:
                raise RuntimeError(f"{kind} after the end of the answer")
            await asyncio.sleep(0)
        elif kind == "http.response.body":
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
            room = self.protocol.room
            if room is not None and not self.over:
                await room
        elif kind == "http.response.start":
            self._take_start(message)
        else:
            raise RuntimeError(f"unexpected ASGI message {kind}")

    def _take_start(self, message: Message) -> None:
        if self._status:
            raise RuntimeError("the answer has started already")
        self._status = message["status"]
        self._headers = message.get("headers", [])
        if self._body is not None:
            self._body = b""
        self.protocol.parser.release()
        # The head leaves with the first bytes of the body, or by itself a moment later.
        self.protocol.server.hold_head(self)

    def flush_head(self) -> None:
        """Send a head that has waited for a body long enough."""
        if self._raw_head is not None or self.over:
            return
        try:
            data = self._build_head(None).data
        except (TypeError, ValueError):
            logger.exception("request %s: the application's headers cannot be sent", self.request_id)
            self._fail()
        else:
            self.protocol.write(data)

    def _build_head(self, whole: int | None) -> ResponseHead:
        request, server = self.request, self.protocol.server
        asked = Asked(request.method, request.http_version, request.keep_alive and not server.draining)
        try:
            head = build_response_head(self._status, self._headers, asked, whole=whole, date=server.date_line)
        except (TypeError, ValueError):
            self._status = 0  # nothing has left: our 500 still can
            raise
        self._raw_head = head
        self._left = head.length
        return head

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if not self._status:
            raise RuntimeError("a body before http.response.start")
        head = self._raw_head
        data = b""
        if head is None:
            head = self._build_head(None if more else len(body))
            data = head.data
        size = len(body)
        if head.empty:
            size = 0
        elif head.chunked:
            data += _chunk(body, last=not more)
        else:
            self._count(size, more=more)
            data = data + body if data else body
        self._sent += size
        if data:
            self.protocol.write(data)
        if not more:
            self._end()
            self._log(self._status)
            self.protocol.answered(keep_alive=head.keep_alive)

    def _count(self, size: int, *, more: bool) -> None:
        """Hold the application to the Content-Length it declared."""
        if self._left is None:
            return
        self._left -= size
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("the body does not have the length its Content-Length says")

    def _log(self, status: int, *, aborted: bool = False) -> None:
        log = self.protocol.server.access_log
        if log.is_on(recorded=self.scope.get(RECORDED, False)):
            seconds = time.perf_counter() - self._began
            identity = self.scope.get("olla.client")
            client = (identity.address, 0) if identity else self.protocol.client
            log.add(
                Finished(time.time(), self.request_id, client, self.request, status, self._sent, seconds, aborted)
            )


def _chunk(body: bytes, *, last: bool) -> bytes:
    """`body` as a chunk (an empty one would end the body), with the end of the body after it if `last`."""
    framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return framed + b"0\r\n\r\n" if last else framed
