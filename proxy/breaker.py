"""The breaker: an endpoint that keeps failing gets no requests for a while, then one to try it with. (pure)

    closed     requests pass; failures in a row are counted, and `threshold` of them open the gate
    open       no request passes for `open_time` seconds
    half-open  one request at a time passes, the probe: its success closes the gate, its failure opens it anew

    if breaker.is_candidate(endpoint_id, now)       while choosing; changes nothing
    ticket = breaker.try_enter(endpoint_id, now)    before an attempt; None: another request is the probe
    ticket = breaker.confirm(ticket, now)           a good status has come; the body may stream for minutes
    breaker.succeed(ticket, now)                    the answer was whole
    breaker.fail(ticket, now)                       no connection, lost answer, timeout, or FAILURE_STATUSES
    breaker.release(ticket, now)                    nothing was learned: the client left, the attempt was not made

Every ticket is given back once, by one of the last three. What it says counts only while the gate has not
changed since it was drawn: a request from before the gate opened, or a probe that hung so long that another
took its place, has nothing to say about the endpoint of now.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

# What a server in trouble, or a proxy before it, says. Other statuses are the request's affair.
FAILURE_STATUSES = frozenset({502, 503, 504})


class GateState(StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Ticket(NamedTuple):
    """Leave to try an endpoint once."""

    endpoint_id: int
    era: int
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class BreakerView:
    """One endpoint's gate as status pages show it; times are monotonic seconds."""

    state: GateState
    failures: int
    opened_at: float | None
    next_try: float | None  # when a request may pass, or might have; None while closed


@dataclass(slots=True)
class _Gate:
    """One endpoint's gate. `era` changes with every transition; a gate that never opened is in era 0."""

    failures: int = 0
    era: int = 0
    opened_at: float | None = None
    probing_since: float | None = None


_CLOSED = BreakerView(GateState.CLOSED, 0, None, None)


class Breaker:
    """The gates of all endpoints, in this process. `now` is monotonic seconds; `threshold` 0 turns it off."""

    __slots__ = ("_eras", "_gates", "open_time", "opened", "threshold")

    def __init__(self, threshold: int = 5, open_time: float = 30.0) -> None:
        self.threshold = threshold
        self.open_time = open_time
        self.opened: dict[int, int] = {}  # endpoint id -> times its gate opened
        self._eras = 0
        # Only endpoints that have failed are here, so that the others cost one look.
        self._gates: dict[int, _Gate] = {}

    @property
    def transitions(self) -> int:
        """How often a gate has opened, let a probe pass, or closed; an open gate's time running out is none."""
        return self._eras

    def is_candidate(self, endpoint_id: int, now: float) -> bool:
        """Whether `try_enter` would give a ticket."""
        gate = self._gates.get(endpoint_id)
        return gate is None or gate.opened_at is None or self._may_probe(gate, gate.opened_at, now)

    def closed_ways(self, now: float) -> list[int]:
        """The endpoints that `try_enter` gives no ticket for."""
        if not self._gates:
            return []
        return [each for each in self._gates if not self.is_candidate(each, now)]

    def try_enter(self, endpoint_id: int, now: float) -> Ticket | None:
        """A ticket for one attempt; None when the gate is open, or half-open with a probe on its way."""
        gate = self._gates.get(endpoint_id)
        if gate is None:
            return Ticket(endpoint_id, 0)
        if gate.opened_at is None:
            return Ticket(endpoint_id, gate.era)
        if not self._may_probe(gate, gate.opened_at, now):
            return None
        gate.probing_since = now
        gate.era = self._next_era()
        return Ticket(endpoint_id, gate.era, is_probe=True)

    def confirm(self, ticket: Ticket, now: float) -> Ticket:
        """An answer has begun well. Ends a probe's trial at once; returns the ticket for the rest of the answer.

        Other tickets come back as they are, for a backend that dies in each body must not look well.
        """
        gate = self._gate_of(ticket)
        if gate is None or not ticket.is_probe:
            return ticket
        self.succeed(ticket, now)
        return Ticket(ticket.endpoint_id, gate.era)

    def succeed(self, ticket: Ticket, now: float) -> None:
        """The endpoint answered."""
        gate = self._gate_of(ticket)
        if gate is None:
            return
        gate.failures = 0
        if gate.opened_at is not None:
            gate.opened_at = gate.probing_since = None
            gate.era = self._next_era()

    def fail(self, ticket: Ticket, now: float) -> None:
        """The endpoint did not answer, or said that it cannot."""
        if ticket.endpoint_id not in self._gates:
            self._gates[ticket.endpoint_id] = _Gate()
        gate = self._gate_of(ticket)
        if gate is None:
            return
        gate.failures += 1
        if gate.opened_at is not None or 0 < self.threshold <= gate.failures:
            gate.opened_at = now
            gate.probing_since = None
            gate.era = self._next_era()
            self.opened[ticket.endpoint_id] = self.opened.get(ticket.endpoint_id, 0) + 1

    def release(self, ticket: Ticket, now: float) -> None:
        """Nothing is known of the endpoint; if this was the probe, the next request may be it."""
        gate = self._gate_of(ticket)
        if gate is not None and ticket.is_probe:
            gate.probing_since = None
            gate.era = self._next_era()

    def view(self, endpoint_id: int, now: float) -> BreakerView:
        """The gate of one endpoint."""
        gate = self._gates.get(endpoint_id)
        if gate is None:
            return _CLOSED
        if gate.opened_at is None or not self.threshold:
            return BreakerView(GateState.CLOSED, gate.failures, None, None)
        next_try = self._next_try(gate, gate.opened_at)
        is_trying = gate.probing_since is not None or now >= next_try
        state = GateState.HALF_OPEN if is_trying else GateState.OPEN
        return BreakerView(state, gate.failures, gate.opened_at, next_try)

    def retain(self, endpoint_ids: Collection[int]) -> None:
        """Forget endpoints that are gone."""
        self._gates = {key: gate for key, gate in self._gates.items() if key in endpoint_ids}

    def _gate_of(self, ticket: Ticket) -> _Gate | None:
        """The gate as long as it is the one the ticket was drawn at."""
        gate = self._gates.get(ticket.endpoint_id)
        return gate if gate is not None and gate.era == ticket.era else None

    def _next_try(self, gate: _Gate, opened_at: float) -> float:
        """When the next probe may pass: a probe that hangs holds its place no longer than the gate stays open."""
        since = opened_at if gate.probing_since is None else gate.probing_since
        return since + self.open_time

    def _may_probe(self, gate: _Gate, opened_at: float, now: float) -> bool:
        return not self.threshold or now >= self._next_try(gate, opened_at)

    def _next_era(self) -> int:
        self._eras += 1
        return self._eras
