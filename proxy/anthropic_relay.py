"""Streams of Anthropic events on their way to the client, kept alive while the backend is silent.

A translated stream goes through `translation.AnthropicStream`; one that is passed through keeps its bytes and
gets pings only between two events. Either ends with an `error` event when the backend dies, never with a fake
end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from endpoints.transport import Answer, DoorError
from proxy.errors import STATUSES, ErrorCode
from proxy.inbound import RawHeaders
from proxy.record import Ending
from proxy.relay import RelayResponse
from proxy.upstream import failure_code
from translation.errors import TranslationError, build_envelope

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# The end of a chunked body is usually a moment behind the last event; the connection is worth waiting for it.
_LAST_WAIT = 0.2
_SHORTEST_WAIT = 0.05
OUR_FAULT = TranslationError("This server failed while it answered; its log has the cause.", status=500)

logger = logging.getLogger(__name__)


class EventStream(Protocol):
    """What the relay asks of a stream: bytes of the backend in, bytes for the client out."""

    @property
    def done(self) -> bool:
        """Whether nothing more will come out."""

    @property
    def next_ping(self) -> float:
        """When a ping is due (monotonic)."""

    def feed(self, chunk: bytes, now: float) -> bytes:
        """What the next bytes of the backend make."""

    def finish(self, now: float) -> bytes:
        """What the end of the backend's body makes."""

    def fail(self, error: TranslationError, now: float) -> bytes:
        """What its failure makes."""

    def due_ping(self, now: float) -> bytes:
        """A ping, if one is due and may stand here."""


class UntouchedStream:
    """A native stream, byte for byte; knows where an event has ended, so that pings stand between events."""

    def __init__(self, request_id: str, first: bytes, now: float, interval: float) -> None:
        self.done = False
        self.failed = False
        self._request_id = request_id
        self._tail = first[-4:]
        self._last_output = now
        self._interval = interval

    @property
    def next_ping(self) -> float:
        """When a ping is due; if an event is half sent then, it is left out."""
        return self._last_output + self._interval

    def feed(self, chunk: bytes, now: float) -> bytes:
        """The same bytes."""
        self._tail = (self._tail + chunk)[-4:]
        self._last_output = now
        return chunk

    def finish(self, now: float) -> bytes:
        """Nothing is added to an end."""
        self.done = True
        return b""

    def fail(self, error: TranslationError, now: float) -> bytes:
        """An error event, after the end of an event that was cut."""
        self.done = self.failed = True
        gap = b"" if self._at_boundary() else b"\n\n"
        return gap + build_error_event(error, self._request_id)

    def due_ping(self, now: float) -> bytes:
        """A ping between two events."""
        if now < self.next_ping:
            return b""
        self._last_output = now
        return PING if self._at_boundary() else b""

    def _at_boundary(self) -> bool:
        return not self._tail or self._tail.replace(b"\r", b"").endswith(b"\n\n")


class AnthropicRelay(RelayResponse):
    """A RelayResponse whose body goes through an EventStream."""

    def __init__(
        self,
        status_code: int,
        raw_headers: RawHeaders,
        *,
        answer: Answer,
        first: bytes,
        stream: EventStream,
        on_end: Callable[[Ending], None],
    ) -> None:
        super().__init__(status_code, raw_headers, answer=answer, first=first, on_end=on_end)
        self._source = answer
        self._stream = stream

    async def _relay(self) -> AsyncIterator[bytes]:
        ending = Ending.COMPLETE
        try:
            if self._first:
                yield self._first
            async for frames in self._translate():
                yield frames
        except DoorError as error:
            ending = Ending.BROKEN
            frames = self._stream.fail(explain_failure(error), time.monotonic())
            if frames:
                yield frames
        except Exception:  # a fault of ours, which the client must not take for an end
            logger.exception("an answer on its way failed")
            ending = Ending.BROKEN
            yield self._stream.fail(OUR_FAULT, time.monotonic())
        self._end(ending)

    async def _translate(self) -> AsyncIterator[bytes]:
        """The frames of the rest of the answer. Raises DoorError."""
        stream, source = self._stream, self._source
        since = time.monotonic()
        while not stream.done:
            within = max(stream.next_ping - time.monotonic(), _SHORTEST_WAIT)
            if not await source.arrives(within, since):
                ping = stream.due_ping(time.monotonic())
                if ping:
                    yield ping
                continue
            chunk = await anext(source, None)
            now = time.monotonic()
            frames = stream.finish(now) if chunk is None else stream.feed(chunk, now)
            if frames:
                yield frames
            since = time.monotonic()
        if not source.complete:
            await source.arrives(_LAST_WAIT, time.monotonic())


def explain_failure(error: DoorError) -> TranslationError:
    """What an Anthropic client is told of a backend that died while it answered."""
    timed_out = failure_code(error) is ErrorCode.UPSTREAM_TIMEOUT
    status = 504 if timed_out else STATUSES[ErrorCode.UPSTREAM_INVALID]
    return TranslationError(f"The endpoint's answer broke off: {error}", status=status)


def build_error_event(error: TranslationError, request_id: str) -> bytes:
    """The event that ends a stream which failed."""
    return b"event: error\ndata: " + build_envelope(error, request_id) + b"\n\n"
