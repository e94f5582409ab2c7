"""RelayResponse: a backend's answer on its way to the client.

Chunks pass as they come. A body that breaks off is told honestly: an SSE stream ends with an error event, an
NDJSON stream with an error object, everything else by aborting the connection. Closed exactly once, by
whoever sends it (`olla_site.handler`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from enum import StrEnum

import msgspec

from endpoints.transport import Answer, DoorError
from proxy.errors import ErrorCode, OllaError, build_context, error_type
from proxy.inbound import RawHeaders
from proxy.record import Ending
from proxy.upstream import failure_code


class StreamKind(StrEnum):
    """How a broken body can be told in its own protocol."""

    SSE = "sse"
    NDJSON = "ndjson"
    OPAQUE = "opaque"


def stream_kind(headers: RawHeaders) -> StreamKind:
    """Judge by Content-Type; an encoded or length-declared body cannot take an added end."""
    kind = StreamKind.OPAQUE
    for name, value in headers:
        lowered = name.lower()
        if lowered in (b"content-encoding", b"content-length") and value.strip().lower() != b"identity":
            return StreamKind.OPAQUE
        if lowered == b"content-type":
            media = value.split(b";", 1)[0].strip().lower()
            if media == b"text/event-stream":
                kind = StreamKind.SSE
            elif media in (b"application/x-ndjson", b"application/ndjson", b"application/jsonl"):
                kind = StreamKind.NDJSON
    return kind


class RelayResponse:
    """Status, header byte pairs and either a ready `body` or an upstream answer to iterate.

    Has as much of Django's response interface as async middleware needs.
    """

    streaming = True

    def __init__(
        self,
        status_code: int,
        raw_headers: RawHeaders,
        *,
        answer: Answer | None = None,
        body: bytes | None = None,
        first: bytes | None = None,
        on_end: Callable[[Ending], None] | None = None,
    ) -> None:
        self.status_code = status_code
        self.raw_headers = raw_headers
        self.body = body
        self._answer = answer
        self._first = first
        self._on_end = on_end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._relay()

    async def _relay(self) -> AsyncIterator[bytes]:
        if self._answer is None:
            return
        last = self._first or b""
        try:
            if last:
                yield last
            async for chunk in self._answer:
                last = chunk
                yield chunk
        except DoorError as error:
            self._end(Ending.BROKEN)
            message = f"The endpoint's answer broke off: {error}."
            code = failure_code(error)
            tail = self._honest_end(last, code, message)
            if tail is None:
                raise OllaError(code, message) from error
            yield tail
        self._end(Ending.COMPLETE)

    def _honest_end(self, last: bytes, code: ErrorCode, message: str) -> bytes | None:
        """The protocol's own error as last bytes; None when only an abort can tell."""
        kind = stream_kind(self.raw_headers)
        if kind is StreamKind.SSE:
            detail = {"message": message, "type": error_type(502), "code": code}
            context = build_context(self["x-olla-endpoint"], self["x-olla-request-id"] or "")
            event = msgspec.json.encode({"error": detail, "olla_context": context})
            return _gap(last, b"\n\n") + b"data: " + event + b"\n\n"
        if kind is StreamKind.NDJSON:
            return _gap(last, b"\n") + msgspec.json.encode({"error": message}) + b"\n"
        return None

    def complete(self) -> None:
        """Say that a ready body was handed to the server whole."""
        self._end(Ending.COMPLETE)

    async def aclose(self) -> None:
        """Release the upstream. Before the body's end that aborts it, which stops the generation."""
        self._end(Ending.CLIENT_GONE)
        if self._answer is not None:
            self._answer.abandon()

    def _end(self, ending: Ending) -> None:
        """Report the first ending only."""
        report, self._on_end = self._on_end, None
        if report is not None:
            report(ending)

    # What middleware written for Django's responses uses.

    @property
    def headers(self) -> RelayResponse:
        """The response itself: a mapping of its headers."""
        return self

    def has_header(self, name: str) -> bool:
        """Whether a header is set, without regard to case."""
        return self[name] is not None

    __contains__ = has_header

    def __getitem__(self, name: str) -> str | None:
        wanted = name.lower().encode("latin-1")
        for key, value in self.raw_headers:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return None

    def __setitem__(self, name: str, value: str) -> None:
        wanted = name.lower().encode("latin-1")
        self.raw_headers = [pair for pair in self.raw_headers if pair[0].lower() != wanted]
        self.raw_headers.append((name.encode("latin-1"), value.encode("latin-1")))


def _gap(last: bytes, wanted: bytes) -> bytes:
    """What closes an unfinished line or event before the error; nothing when it is closed."""
    closed = last.replace(b"\r", b"").endswith(wanted) or not last
    return b"" if closed else wanted


__all__ = ["Ending", "RelayResponse", "StreamKind", "stream_kind"]
