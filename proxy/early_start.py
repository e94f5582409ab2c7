"""An answer that begins before any backend has given one, for clients that give up on silence.

    answer = await start_early(story, after, ...)

Until `after` seconds have passed nothing is different: the answer has its own status and headers. Then the
client gets 200 and pings, while the story goes on behind them, failover included; what goes wrong from there
is an `error` event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from endpoints import tasks
from endpoints.conf import conf
from proxy.anthropic_relay import PING, build_error_event
from proxy.errors import ErrorCode, ErrorShape, OllaError, build_error_body, shown_status
from proxy.headers import SANDBOX
from proxy.inbound import Inbound, RawHeaders
from proxy.record import Ending
from proxy.relay import RelayResponse, StreamKind, stream_kind
from translation.errors import TranslationError, parse_backend_error
from translation.json_text import InvalidJsonError, build_json, parse_json

_FAILED = OllaError(ErrorCode.INTERNAL_ERROR, "This server failed; its log has the cause.")

Story = Coroutine[Any, Any, RelayResponse]


async def start_early(story: Story, inbound: Inbound, after: float) -> RelayResponse:
    """The story's answer if there is one `after` seconds from now, else one that begins with pings."""
    task = tasks.spawn(_told(story), f"story {inbound.request_id}")
    try:
        await asyncio.wait({task}, timeout=after)
    except asyncio.CancelledError:
        await _abandon(task)
        raise
    if not task.done():
        return EarlyAnswer(task, inbound)
    outcome: RelayResponse | OllaError = task.result()
    if isinstance(outcome, OllaError):
        raise outcome
    return outcome


async def _told(story: Story) -> RelayResponse | OllaError:
    """The story's end as a value: its errors are answers, nothing a background task should log."""
    try:
        return await story
    except OllaError as error:
        return error


async def _abandon(task: asyncio.Task[RelayResponse | OllaError]) -> None:
    """End a story nobody waits for, and whatever answer it has already."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        outcome = task.result()
        if isinstance(outcome, RelayResponse):
            await outcome.aclose()


class EarlyAnswer(RelayResponse):
    """A stream of events whose source is still being looked for."""

    def __init__(self, story: asyncio.Task[RelayResponse | OllaError], inbound: Inbound) -> None:
        request_id = inbound.request_id.encode()
        headers: RawHeaders = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"request-id", request_id),
            (b"X-Olla-Request-ID", request_id),
            *SANDBOX,
        ]
        super().__init__(200, headers)
        self._story = story
        self._request_id = inbound.request_id
        self._record = inbound.record
        self._interval = conf().translators_anthropic_ping_interval

    async def _relay(self) -> AsyncIterator[bytes]:
        yield PING
        while not self._story.done():
            done, _ = await asyncio.wait({self._story}, timeout=self._interval)
            if not done:
                yield PING
        # What it failed with, if it did, has been logged by `tasks.spawn`.
        outcome = self._story.result() if self._story.exception() is None else _FAILED
        if isinstance(outcome, OllaError):
            self._record.refuse(outcome.code, shown_status(outcome, ErrorShape.ANTHROPIC))
            yield _as_event(build_error_body(outcome, self._request_id, ErrorShape.ANTHROPIC))
        elif outcome.status_code < 400 and outcome.body is None and _is_events(outcome):
            self._record.first_byte = None  # pings are no part of the answer
            async for chunk in outcome:
                yield chunk
        else:
            yield self._explain(outcome)
            outcome.complete()

    def _explain(self, answer: RelayResponse) -> bytes:
        """The event for an answer that is no stream: a backend's error, or a whole message nobody asked for."""
        status = answer.status_code if answer.status_code >= 400 else 502
        body = answer.body or b""
        event = _as_event(body)
        if event.startswith(b'event: error\ndata: {"type":"error"'):
            return event
        message = parse_backend_error(body, status).message if answer.status_code >= 400 else ""
        error = TranslationError(
            message or f"The backend answered with status {answer.status_code}.", status=status
        )
        return build_error_event(error, self._request_id)

    async def aclose(self) -> None:
        """Release whatever is open behind the pings."""
        if not self._story.done():
            self._record.ending = Ending.CLIENT_GONE
            await _abandon(self._story)
            return
        if not self._story.cancelled() and self._story.exception() is None:
            outcome = self._story.result()
            if isinstance(outcome, RelayResponse):
                await outcome.aclose()


def _is_events(answer: RelayResponse) -> bool:
    return stream_kind(answer.raw_headers) is StreamKind.SSE


def _as_event(body: bytes) -> bytes:
    """A JSON body as an error event; on one line, since events end at line breaks."""
    try:
        return b"event: error\ndata: " + build_json(parse_json(body)) + b"\n\n"
    except InvalidJsonError:
        return b""
