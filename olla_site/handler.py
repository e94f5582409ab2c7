"""APIHandler: Django's ASGI handler for machine traffic, without thread hops.

Stock Django hops to a thread to close each response, to log each 4xx and to answer each exception, and leaves
a view's generator open when a client leaves mid-stream. Here the request is lazy, resolving is remembered, an
exception becomes JSON in this one place, a disconnect cancels the view, and whatever the request opened is
closed on every path. `request_started` and `request_finished` are not sent.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import Http404, HttpResponse, QueryDict, parse_cookie
from django.urls import ResolverMatch, get_resolver
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from endpoints import tasks
from endpoints.conf import conf
from olla_site.server.aborting import AbortResponse
from proxy import finished
from proxy.admission import begin_refused
from proxy.errors import ErrorCode, OllaError, build_error_body, choose_shape, shape_headers, shown_status
from proxy.inbound import get_header
from proxy.record import RequestRecord, no_record
from proxy.relay import RelayResponse
from proxy.request_id import choose_request_id, current_request
from proxy.violations import violations

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = HttpResponse | RelayResponse

_REMEMBERED_PATHS = 4096
_LONGEST_REMEMBERED = 512  # characters: a path may be as long as a head, and whoever asks chooses it


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class APIRequest(ASGIRequest):
    """An ASGIRequest whose META and friends are built only when somebody looks."""

    def __init__(self, scope: Scope, body: bytes, request_id: str) -> None:
        # Not calling up: the parent's constructor builds all that is lazy here.
        self.scope = scope
        self.request_id = request_id
        self.method = scope["method"]
        self.path = self.path_info = scope["path"]
        self.script_name = ""
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        # What every answer to this request carries, and what is to be done once it has ended.
        self.answer_headers: list[tuple[bytes, bytes]] = []
        self.closers: list[Callable[[], None]] = []
        # Of a request that asks to be forwarded; its view makes it.
        self.record: RequestRecord | None = None
        self.resolver_match = None
        self._body = body
        self._stream = io.BytesIO(body)
        self._read_started = False
        self._post_parse_error = False

    @cached_property
    def META(self) -> dict[str, Any]:  # type: ignore[override]  # noqa: N802
        return ASGIRequest(self.scope, io.BytesIO()).META

    @cached_property
    def GET(self) -> QueryDict:  # type: ignore[override]  # noqa: N802
        # Any byte may stand in a query; what is not UTF-8 is replaced, where Django would answer 500.
        return QueryDict(self.scope["query_string"].decode("utf-8", "replace"))

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]  # noqa: N802
        return parse_cookie((get_header(self.raw_headers, b"cookie") or b"").decode("latin-1"))


class APIHandler(ASGIHandler):
    """Answers what `asgi.py` sends to the machine door."""

    def load_middleware(self, is_async: bool = True) -> None:
        """Build the chain of API_MIDDLEWARE, all of which must be async."""
        self._matches: dict[str, ResolverMatch] = {}
        chain: Callable[[Any], Awaitable[Answer]] = self._answer_view
        for path in reversed(settings.API_MIDDLEWARE):
            middleware = import_string(path)
            if not getattr(middleware, "async_capable", False):
                raise ImproperlyConfigured(f"{path} is in API_MIDDLEWARE but is not async-capable.")
            chain = middleware(chain)
        self._chain = chain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Answer one request."""
        request_id = scope.get("olla.request_id") or choose_request_id(
            get_header(scope["headers"], b"x-request-id")
        )
        current_request.set(request_id)
        try:
            request = APIRequest(scope, await read_body(receive), request_id)
        except ClientGoneError:
            return  # what never was a whole request has no record
        except OllaError as error:
            await refuse_early(error, scope, request_id, send)
            return
        finished.begin()
        try:
            await self._answer(request, receive, send)
        finally:
            finished.end()

    async def _answer(self, request: APIRequest, receive: Receive, send: Send) -> None:
        """Run the view and send its answer, until done or the client has left."""
        watch = _Watch(request.scope, receive)
        answer: Answer | None = None
        try:
            answer = await self._chain(request)
            await send_answer(answer, request.method or "", send, request.record)
        except asyncio.CancelledError:
            if not watch.client_left:
                raise
        finally:
            await watch.stop()
            for close in request.closers:
                close()
            try:
                if isinstance(answer, RelayResponse):
                    await answer.aclose()
            finally:
                finished.finish(request.record, client_left=watch.client_left)

    async def _answer_view(self, request: APIRequest) -> Answer:
        """The view's answer or its error, with the headers the request has collected on its way."""
        answer = await self._view_or_error(request)
        if request.answer_headers:
            add_headers(answer, request.answer_headers)
        return answer

    async def _view_or_error(self, request: APIRequest) -> Answer:
        """The view's answer, or the JSON of the exception it raised; carries the request id."""
        try:
            match = self._resolve(request)
            answer: Answer = await match.func(request, *match.args, **match.kwargs)
        except OllaError as error:
            return _refusal(error, request)
        except Http404:
            missing = OllaError(ErrorCode.NOT_FOUND, "There is nothing at this address. See /olla/models.")
            return _refusal(missing, request)
        except Exception:  # the one place where an unforeseen exception becomes an answer
            logger.exception("request %s failed", request.request_id)
            failed = OllaError(
                ErrorCode.INTERNAL_ERROR, f"This server failed; its log has the cause under {request.request_id}."
            )
            return _refusal(failed, request)
        if isinstance(answer, HttpResponse):
            answer["X-Olla-Request-ID"] = request.request_id
            answer["X-Content-Type-Options"] = "nosniff"
        return answer

    def _resolve(self, request: APIRequest) -> ResolverMatch:
        """The view of a path, remembered: resolving costs more than the rest of Django's path."""
        match = self._matches.get(request.path)
        if match is None:
            match = get_resolver().resolve(request.path)
            if len(self._matches) >= _REMEMBERED_PATHS:
                self._matches.clear()
            if len(request.path) <= _LONGEST_REMEMBERED:
                self._matches[request.path] = match
        request.resolver_match = match
        return match


class _Watch:
    """Cancels the current task when the client leaves, and takes that cancellation back."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive) -> None:
        self.client_left = False
        self._task = asyncio.current_task()
        # OllaServer calls back; under any other server a task waits for the news.
        self._on_leave = scope.get("olla.on_leave")
        self._watcher: asyncio.Task[None] | None = None
        if self._on_leave is None:
            self._watcher = tasks.spawn(self._listen(receive), "client watch")
        else:
            self._on_leave(self._leave)

    async def _listen(self, receive: Receive) -> None:
        message = await receive()
        if message["type"] == "http.disconnect":
            self._leave()

    def _leave(self) -> None:
        if self._task is not None:
            self.client_left = True
            self._task.cancel()

    async def stop(self) -> None:
        """End the watch. A cancellation it sent may still be on its way: it lands here and ends here."""
        if self._watcher is not None:
            self._watcher.cancel()
        elif self._on_leave is not None:
            self._on_leave(None)
        if not self.client_left or self._task is None:
            return
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        self._task.uncancel()


async def read_body(receive: Receive) -> bytes:
    """The whole request body in memory. Raises ClientGoneError, or OllaError when it is over the limit.

    OllaServer refuses earlier; this holds under any other server.
    """
    parts: list[bytes] = []
    size, limit = 0, conf().max_body_size
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if limit and size > limit:
            raise OllaError(ErrorCode.REQUEST_TOO_LARGE, f"The request body is over {limit} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _refusal(error: OllaError, request: APIRequest) -> HttpResponse:
    """The response an error becomes, noted in the request's record."""
    if request.record is not None:
        finished.note_error(request.record, error)
    return error_answer(error, request.path, request.request_id)


async def refuse_early(error: OllaError, scope: Scope, request_id: str, send: Send) -> None:
    """Answer with an error before there is a request for a view."""
    record = begin_refused(scope, request_id, error)
    try:
        await send_answer(error_answer(error, scope["path"], request_id), scope["method"], send, record)
    finally:
        finished.finish(record)


def error_answer(error: OllaError, path: str, request_id: str) -> HttpResponse:
    """The response an error becomes."""
    violations.note_error(error.code)
    shape = choose_shape(path)
    answer = HttpResponse(
        build_error_body(error, request_id, shape),
        status=shown_status(error, shape),
        content_type="application/json",
    )
    for name, value in error.headers:
        answer[name.decode("latin-1")] = value.decode("latin-1")
    for field, text in shape_headers(error, request_id, shape):
        answer[field] = text
    answer["X-Olla-Request-ID"] = request_id
    answer["X-Content-Type-Options"] = "nosniff"
    return answer


def add_headers(answer: Answer, headers: list[tuple[bytes, bytes]]) -> None:
    """Set headers of ours, in place of any a backend sent under the same names."""
    if isinstance(answer, RelayResponse):
        names = {name.lower() for name, _ in headers}
        answer.raw_headers = [pair for pair in answer.raw_headers if pair[0].lower() not in names]
        answer.raw_headers += headers
        return
    for name, value in headers:
        answer[name.decode("latin-1")] = value.decode("latin-1")


async def send_answer(answer: Answer, method: str, send: Send, record: RequestRecord | None = None) -> None:
    """Send any answer of the API door. Raises AbortResponse when a relayed body broke off."""
    if record is None:
        record = no_record()
    record.status = answer.status_code
    if isinstance(answer, RelayResponse):
        await _send_relay(answer, method, send, record)
        return
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.items()]
    body = answer.content
    if not answer.has_header("Content-Length"):
        headers.append((b"Content-Length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    body = b"" if method == "HEAD" else body
    await send({"type": "http.response.body", "body": body})
    record.note_sent(len(body), time.monotonic())


async def _send_relay(answer: RelayResponse, method: str, send: Send, record: RequestRecord) -> None:
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    if answer.body is not None or method == "HEAD":
        body = b"" if method == "HEAD" else answer.body or b""
        await send({"type": "http.response.body", "body": body})
        record.note_sent(len(body), time.monotonic())
        answer.complete()
        return
    try:
        async for chunk in answer:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if record.first_byte is None:
                record.note_sent(0, time.monotonic())
            record.response_bytes += len(chunk)
            record.response_chunks += 1
    except OllaError as error:
        raise AbortResponse(error.message) from error
    await send({"type": "http.response.body", "body": b""})
