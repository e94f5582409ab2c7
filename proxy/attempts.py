"""Attempt: one try at one endpoint, counted in flight and by the breaker until it is closed, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from endpoints.snapshot import EndpointRecord
from proxy.breaker import FAILURE_STATUSES, Breaker, Ticket
from proxy.queueing import Slot
from proxy.record import AttemptNote


class Verdict(StrEnum):
    """What an attempt says of its endpoint."""

    GOOD = "good"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the client left, or this machine was at fault


def judge_status(status: int) -> Verdict:
    """A whole answer with this status."""
    return Verdict.FAILED if status in FAILURE_STATUSES else Verdict.GOOD


class Attempt:
    """A place taken at an endpoint. Whoever opens it closes it on every path; closing twice counts once.

    `note` tells of it in the request's record; `now` is monotonic.
    """

    __slots__ = ("_breaker", "_on_close", "_slot", "_ticket", "endpoint", "note")

    def __init__(
        self,
        endpoint: EndpointRecord,
        ticket: Ticket,
        breaker: Breaker,
        slot: Slot,
        on_close: Callable[[EndpointRecord, Verdict], None],
        now: float,
    ) -> None:
        self.endpoint = endpoint
        self.note = AttemptNote(endpoint, now, slot.waited)
        self._ticket = ticket
        self._breaker = breaker
        self._slot = slot
        self._on_close: Callable[[EndpointRecord, Verdict], None] | None = on_close

    @property
    def waited(self) -> float:
        """Seconds in line for the place."""
        return self._slot.waited

    def confirm(self, status: int) -> None:
        """An answer has begun: with a good status a breaker's probe has passed, however long the body takes."""
        self.note.status = status
        if judge_status(status) is Verdict.GOOD:
            self._ticket = self._breaker.confirm(self._ticket, time.monotonic())

    def close(self, verdict: Verdict) -> None:
        """Give the place back and tell what was learned."""
        report, self._on_close = self._on_close, None
        if report is None:
            return
        now = time.monotonic()
        self.note.seconds, self.note.verdict = now - self.note.began, verdict
        if verdict is Verdict.GOOD:
            self._breaker.succeed(self._ticket, now)
        elif verdict is Verdict.FAILED:
            self._breaker.fail(self._ticket, now)
        else:
            self._breaker.release(self._ticket, now)
        report(self.endpoint, verdict)
        self._slot.release()
