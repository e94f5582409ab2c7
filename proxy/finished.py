"""Whoever wants to know of each request that has ended.

    subscribe(sink)     `sink(records)` is called with the requests that asked to be forwarded, each once and soon
                        after it has ended (0.1 s at most), in that order, on the event loop: it must not wait and
                        should take microseconds. What it keeps are finished `proxy.record.RequestRecord`s, which
                        nobody changes any more (other threads may read them). Subscribing twice is subscribing
                        once. A sink that raises is logged and harms neither the requests nor the other sinks;
                        what it was told with the record it failed at is lost to it, so it had better not raise.
    unsubscribe(sink)
    flush()             tell the sinks at once: for whoever reads what they count, and at the end of the process

Records are told some at a time, one sink after the other: what a sink needs is then still in the processor's
cache, and a record costs half of what it costs between two requests; and what they have in common is worked out
once for all of them.

Refused requests have a record too (`attempts` is empty, `error_code` says why). Requests for lists and status
pages, which are answered here, have none. `begin`, `end` and `finish` belong to the door (`olla_site.handler`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from proxy.errors import OllaError, choose_shape, shown_status
from proxy.record import RequestRecord

logger = logging.getLogger(__name__)

Sink = Callable[[Sequence[RequestRecord]], None]
_EVERY = 0.1  # seconds
# Records told at once. Of more than the least a lone client's next request is late by half a millisecond; where
# many requests are open each waits for the others anyway, and the more are told at once the less each costs.
_LEAST, _MOST = 8, 32

_sinks: list[Sink] = []


class _Pending:
    """Records of one event loop that the sinks have not been told."""

    def __init__(self) -> None:
        self.belong_to(None)

    def belong_to(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Start anew, as the records of another loop."""
        self.loop = loop
        self.open = 0  # requests that are being answered
        self.records: list[RequestRecord] = []
        self.timer: asyncio.TimerHandle | None = None


_pending = _Pending()


def subscribe(sink: Sink) -> None:
    """Have `sink` called with all that finish from now on."""
    if sink not in _sinks:
        _sinks.append(sink)


def unsubscribe(sink: Sink) -> None:
    """Stop calling `sink`."""
    if sink in _sinks:
        _sinks.remove(sink)


def note_error(record: RequestRecord, error: OllaError) -> None:
    """The request is answered with an error of ours."""
    record.refuse(error.code, shown_status(error, choose_shape(record.path)))


def at_once() -> int:
    """How many records are told together at this moment: as many as requests are open, within bounds."""
    return min(max(_pending.open, _LEAST), _MOST)


def begin() -> None:
    """A request is being answered from now on, until `end`. On the event loop."""
    _take_over(asyncio.get_running_loop())
    _pending.open += 1


def end() -> None:
    """A request of `begin` has been answered, or was given up; one of an earlier event loop counts no more."""
    if _pending.loop is asyncio.get_running_loop():
        _pending.open -= 1


def _take_over(loop: asyncio.AbstractEventLoop) -> None:
    if _pending.loop is not loop:
        _pending.belong_to(loop)


def finish(record: RequestRecord | None, *, client_left: bool = False) -> None:
    """Close a record and tell everyone; a second time does nothing. On the event loop."""
    if record is None or not record.finish(time.monotonic(), client_left=client_left):
        return
    loop = asyncio.get_running_loop()
    _take_over(loop)
    _pending.records.append(record)
    if len(_pending.records) >= at_once():
        flush()
    elif _pending.timer is None:
        _pending.timer = loop.call_later(_EVERY, flush)


def flush() -> None:
    """Tell the sinks of what has ended. Elsewhere than on the event loop it does nothing."""
    records = _pending.records
    if not records or asyncio._get_running_loop() is not _pending.loop:
        return
    _pending.records = []
    timer, _pending.timer = _pending.timer, None
    if timer is not None:
        timer.cancel()
    for sink in (_read_usage, *_sinks):
        try:
            sink(records)
        except Exception:  # a sink is not the request: whatever it does wrong, the answer has gone out
            ids = ", ".join(each.request_id for each in records)
            logger.exception("a subscriber to finished requests failed at %s", ids)


def _read_usage(records: Sequence[RequestRecord]) -> None:
    for record in records:
        record.read_usage()
