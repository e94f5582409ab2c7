"""Slots and the line for them: endpoints that take a limited number of requests at once.

    if queue.has_room(endpoint_id)                  while choosing; changes nothing
    slot = queue.try_take(endpoint_id)              before an attempt; None: the endpoint has all it may take
    slot = await queue.wait(endpoint_ids, client)   when none of the candidates has room; raises QueueError
    slot.release()                                  when the attempt has ended, once or more often

A freed slot goes to the client whose turn it is, and of its requests to the one that waits longest, among
those that accept the endpoint. A full line does not shut out newcomers for the sake of one client: whoever has
the most waiting gives up the last of them. Who comes back into the line, since other endpoints may answer by now,
stands where it stood. It all happens on one event loop, without locks: between `await`s nobody else runs, and a
slot is counted as taken when it is granted, not when its task wakes up.
"""

# ruff: noqa: N818 - the names say why there is no slot; the base class says that it is an error

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from itertools import chain

Wanted = Callable[[], Collection[int]]
# Of more clients than these it is forgotten who was served before the longest wait there can be.
_REMEMBERED_TURNS = 1000


class QueueError(Exception):
    """No slot was to be had."""


class QueueFull(QueueError):
    """As many wait as may, or this one had to make way for another client."""


class QueueTimeout(QueueError):
    """No slot came free in time."""


class QueueMoved(QueueError):
    """This request would wait for other endpoints by now: it is to choose anew."""


class Slot:
    """The right to one of an endpoint's places, held while an attempt is under way."""

    __slots__ = ("_queue", "endpoint_id", "waited")

    def __init__(self, queue: SlotQueue, endpoint_id: int, waited: float) -> None:
        self._queue: SlotQueue | None = queue
        self.endpoint_id = endpoint_id
        self.waited = waited  # seconds in the line

    def release(self) -> None:
        """Give the place back, and so to the next in line; doing it again does nothing."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.give_back(self.endpoint_id)


class _Waiter:
    """A request in the line."""

    __slots__ = ("accepted", "came", "client", "outcome", "since", "slot", "wanted_now")

    def __init__(self, client: str, accepted: frozenset[int], waited: float, wanted_now: Wanted | None) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.accepted = accepted
        self.wanted_now = wanted_now
        self.since = loop.time()
        self.came = self.since - waited  # what its place in the line goes by
        self.slot: Slot | None = None
        # A refusal is a result too: an exception that nobody fetches, since the client has left, is logged.
        self.outcome: asyncio.Future[Slot | QueueError] = loop.create_future()


class SlotQueue:
    """The places of every endpoint and the one line before them.

    `limit_of` gives an endpoint's limit at this moment; None or 0 is no limit.
    """

    def __init__(self, limit_of: Callable[[int], int | None], *, length: int = 100, timeout: float = 30.0) -> None:
        self.length = length
        self.timeout = timeout  # seconds
        self.served = 0  # of those that had to wait
        self.refused = 0
        self.timed_out = 0
        self._limit_of = limit_of
        self.in_flight: Counter[int] = Counter()  # places taken, by endpoint id; absent is none
        # Clients in the order of their turns; each one's waiters in the order they came.
        self._lines: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        self._turns: dict[str, float] = {}  # when each client last had a turn
        self._wanted: Counter[int] = Counter()  # endpoint id -> waiters that accept it
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many requests are in the line."""
        return self._waiting

    def waiting_for(self, endpoint_id: int) -> int:
        """How many of those in the line would take a place at an endpoint."""
        return self._wanted.get(endpoint_id, 0)

    def taken(self, endpoint_id: int) -> int:
        """How many of an endpoint's places are taken."""
        return self.in_flight.get(endpoint_id, 0)

    def has_room(self, endpoint_id: int) -> bool:
        """Whether a request may go to the endpoint now, without overtaking one that waits for it."""
        return self._is_free(endpoint_id) and endpoint_id not in self._wanted

    def try_take(self, endpoint_id: int) -> Slot | None:
        """A slot if the endpoint has one to spare; those who wait come first."""
        self._hand_on(endpoint_id)
        return self._take(endpoint_id, 0.0) if self._is_free(endpoint_id) else None

    async def wait(
        self, endpoint_ids: Collection[int], client: str, *, waited: float = 0.0, wanted_now: Wanted | None = None
    ) -> Slot:
        """A slot at any of these endpoints, as soon as it is this request's turn.

        `client` is who takes turns; `waited` is how long the request was in line before, for its time is one, and
        `wanted_now` says which endpoints it would wait for at a later moment. Raises QueueFull at once or later,
        QueueTimeout after `timeout` seconds in all, QueueMoved when `reconsider` finds that it wants others.
        """
        for endpoint_id in endpoint_ids:
            slot = self.try_take(endpoint_id)
            if slot is not None:
                return slot
        if waited and waited >= self.timeout:
            self.timed_out += 1
            raise self._too_late()
        waiter = self._line_up(_Waiter(client, frozenset(endpoint_ids), waited, wanted_now))
        timer = asyncio.get_running_loop().call_later(self.timeout - waited, self._expire, waiter)
        outcome: Slot | QueueError | None = None
        try:
            outcome = await waiter.outcome
        finally:
            timer.cancel()
            if outcome is None:
                self._withdraw(waiter)
        if isinstance(outcome, QueueError):
            raise outcome
        return outcome

    def reconsider(self) -> None:
        """Serve the line anew: limits may have been raised, endpoints come and gone.

        Who would wait for the same endpoints as before stays; the others come back by themselves.
        """
        for waiter in [*chain.from_iterable(self._lines.values())]:
            if waiter.wanted_now is not None and waiter.accepted != frozenset(waiter.wanted_now()):
                self._refuse(waiter, QueueMoved("the endpoints to wait for have changed"))
        for endpoint_id in list(self._wanted):
            self._hand_on(endpoint_id)

    def give_back(self, endpoint_id: int) -> None:
        """One place less is taken. For Slot.release, which does it once."""
        left = self.in_flight[endpoint_id] - 1
        if left:
            self.in_flight[endpoint_id] = left
        else:
            self.in_flight.pop(endpoint_id)
        self._hand_on(endpoint_id)

    def _is_free(self, endpoint_id: int) -> bool:
        limit = self._limit_of(endpoint_id)
        return not limit or self.in_flight.get(endpoint_id, 0) < limit

    def _take(self, endpoint_id: int, waited: float) -> Slot:
        self.in_flight[endpoint_id] = self.in_flight.get(endpoint_id, 0) + 1
        return Slot(self, endpoint_id, waited)

    def _hand_on(self, endpoint_id: int) -> None:
        """Grant the endpoint's free places to those in line."""
        while endpoint_id in self._wanted and self._is_free(endpoint_id):
            waiter = self._find_next(endpoint_id)
            if waiter is None:
                return
            self._grant(waiter, endpoint_id)

    def _find_next(self, endpoint_id: int) -> _Waiter | None:
        """Who is to have the next slot. One whose client has left stands in line until its task runs."""
        for waiter in chain.from_iterable(self._lines.values()):
            if endpoint_id in waiter.accepted and not waiter.outcome.done():
                return waiter
        return None

    def _grant(self, waiter: _Waiter, endpoint_id: int) -> None:
        self._step_out(waiter)
        now = waiter.outcome.get_loop().time()
        if waiter.client in self._lines:
            self._lines.move_to_end(waiter.client)
        self._note_turn(waiter.client, now)
        self.served += 1
        waiter.slot = self._take(endpoint_id, now - waiter.since)
        waiter.outcome.set_result(waiter.slot)

    def _note_turn(self, client: str, at: float) -> None:
        self._turns[client] = max(at, self._turns.get(client, at))
        if len(self._turns) > _REMEMBERED_TURNS:
            oldest = at - self.timeout  # nobody in line came before that
            self._turns = {each: at for each, at in self._turns.items() if at > oldest or each in self._lines}

    def _line_up(self, waiter: _Waiter) -> _Waiter:
        if self._waiting >= self.length:
            self._make_way_for(waiter)
        line = self._lines.get(waiter.client)
        if line is None:
            line = self._lines[waiter.client] = OrderedDict()
            self._note_turn(waiter.client, waiter.came)
        line[waiter] = None
        if waiter.came < waiter.since:
            self._give_place_back(waiter, line)
        self._wanted.update(waiter.accepted)
        self._waiting += 1
        return waiter

    def _give_place_back(self, waiter: _Waiter, line: OrderedDict[_Waiter, None]) -> None:
        """Let one that has just lined up again stand before those that came after it."""
        for other in [each for each in line if each.came > waiter.came]:
            line.move_to_end(other)
        if len(line) == 1:
            turn = self._turns[waiter.client]
            for client in [each for each in self._lines if self._turns[each] > turn]:
                self._lines.move_to_end(client)

    def _make_way_for(self, waiter: _Waiter) -> None:
        """Turn the last one away of the client that has most. Raises QueueFull if that is no fairer."""
        own = self._lines.get(waiter.client, OrderedDict())
        most = max(self._lines.values(), key=_size_and_newest, default=own)
        last = next(reversed(own if len(own) == len(most) else most), None)
        if last is None or not (len(own) + 1 < len(most) or waiter.came < last.came):
            self.refused += 1
            raise QueueFull(f"{self._waiting} requests are waiting already")
        self.refused += self._refuse(last, QueueFull("another request was before this one"))

    def _expire(self, waiter: _Waiter) -> None:
        self.timed_out += self._refuse(waiter, self._too_late())

    def _too_late(self) -> QueueTimeout:
        return QueueTimeout(f"no endpoint had room within {self.timeout:g} s")

    def _refuse(self, waiter: _Waiter, refusal: QueueError) -> bool:
        """Send a waiter away; False if it was granted a slot or left, and its task has yet to notice."""
        self._step_out(waiter)
        if waiter.outcome.done():
            return False
        waiter.outcome.set_result(refusal)
        return True

    def _withdraw(self, waiter: _Waiter) -> None:
        """The client has left; a slot that was granted in the same turn of the loop is passed on."""
        self._step_out(waiter)
        if waiter.slot is not None:
            waiter.slot.release()

    def _step_out(self, waiter: _Waiter) -> None:
        """Take a waiter out of the line if it still stands there."""
        line = self._lines.get(waiter.client)
        if line is None or waiter not in line:
            return
        del line[waiter]
        if not line:
            del self._lines[waiter.client]
        self._waiting -= 1
        for endpoint_id in waiter.accepted:
            self._wanted[endpoint_id] -= 1
            if not self._wanted[endpoint_id]:
                del self._wanted[endpoint_id]


def _size_and_newest(line: OrderedDict[_Waiter, None]) -> tuple[int, float]:
    return len(line), next(reversed(line)).came
