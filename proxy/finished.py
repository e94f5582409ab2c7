"""Whoever wants to know of each request that has ended.

    subscribe(sink)     `sink(record)` is called once for each request that asked to be forwarded, when it has
                        ended, on the event loop: it must not wait and should take microseconds. What it keeps
                        is the finished `proxy.record.RequestRecord`, which nobody changes any more (other
                        threads may read it). Subscribing twice is subscribing once. A sink that raises is
                        logged and harms neither the request nor the other sinks.
    unsubscribe(sink)

Refused requests have a record too (`attempts` is empty, `error_code` says why). Requests for lists and status
pages, which are answered here, have none. `finish` belongs to the door (`olla_site.handler`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from proxy.errors import OllaError, choose_shape, shown_status
from proxy.record import RequestRecord

logger = logging.getLogger(__name__)

Sink = Callable[[RequestRecord], None]
_sinks: list[Sink] = []


def subscribe(sink: Sink) -> None:
    """Have `sink` called with every finished record from now on."""
    if sink not in _sinks:
        _sinks.append(sink)


def unsubscribe(sink: Sink) -> None:
    """Stop calling `sink`."""
    if sink in _sinks:
        _sinks.remove(sink)


def note_error(record: RequestRecord, error: OllaError) -> None:
    """The request is answered with an error of ours."""
    record.refuse(error.code, shown_status(error, choose_shape(record.path)))


def finish(record: RequestRecord | None, *, client_left: bool = False) -> None:
    """Close a record and tell everyone; a second time does nothing."""
    if record is None or not record.finish(time.monotonic(), client_left=client_left):
        return
    for sink in _sinks:
        try:
            sink(record)
        except Exception:  # a sink is not the request: whatever it does wrong, the answer has gone out
            logger.exception("request %s: a subscriber to finished requests failed", record.request_id)
