"""Attempt: one try at one endpoint, counted in flight and by the breaker until it is closed, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from endpoints.snapshot import EndpointRecord
from proxy.breaker import FAILURE_STATUSES, Breaker, Ticket


class Verdict(StrEnum):
    """What an attempt says of its endpoint."""

    GOOD = "good"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the client left, or this machine was at fault


def judge_status(status: int) -> Verdict:
    """A whole answer with this status."""
    return Verdict.FAILED if status in FAILURE_STATUSES else Verdict.GOOD


class Attempt:
    """A place taken at an endpoint. Whoever opens it closes it on every path; closing twice counts once."""

    __slots__ = ("_breaker", "_in_flight", "_on_close", "_ticket", "endpoint")

    def __init__(
        self,
        endpoint: EndpointRecord,
        ticket: Ticket,
        breaker: Breaker,
        in_flight: Counter[int],
        on_close: Callable[[EndpointRecord, Verdict], None],
    ) -> None:
        self.endpoint = endpoint
        self._ticket = ticket
        self._breaker = breaker
        self._in_flight = in_flight
        self._on_close: Callable[[EndpointRecord, Verdict], None] | None = on_close
        in_flight[endpoint.id] += 1

    def confirm(self, status: int) -> None:
        """An answer has begun: with a good status a breaker's probe has passed, however long the body takes."""
        if judge_status(status) is Verdict.GOOD:
            self._ticket = self._breaker.confirm(self._ticket, time.monotonic())

    def close(self, verdict: Verdict) -> None:
        """Give the place back and tell what was learned."""
        report, self._on_close = self._on_close, None
        if report is None:
            return
        left = self._in_flight[self.endpoint.id] - 1
        if left > 0:
            self._in_flight[self.endpoint.id] = left
        else:
            del self._in_flight[self.endpoint.id]
        now = time.monotonic()
        if verdict is Verdict.GOOD:
            self._breaker.succeed(self._ticket, now)
        elif verdict is Verdict.FAILED:
            self._breaker.fail(self._ticket, now)
        else:
            self._breaker.release(self._ticket, now)
        report(self.endpoint, verdict)
