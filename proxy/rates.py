"""Fixed windows: how many requests a minute, a second and at once, all, by client and by endpoint. (pure)

Windows are aligned to the wall clock, so every process and every client knows when the next one begins. A clock
set back by up to one window goes on counting in the window already begun; set back further, it starts anew.
Counts of one window are forgotten together, never one for another: no number of other clients makes room for
somebody who has used his share up. What was refused is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

MINUTE = 60
MOST_CLIENTS = 100_000
# Clients beyond the most that are counted one by one share this many counts.
SHARED_COUNTS = 4096


class Refusal(StrEnum):
    """Which limit a request ran into."""

    CLIENT = "client"
    BURST = "burst"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests allowed; 0 is no limit, each by itself."""

    total_per_minute: int = 0
    client_per_minute: int = 0
    client_per_second: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """What the windows say of one request, which is counted unless refused."""

    limit: int  # of the minute, 0 when none is set
    remaining: int
    reset: int  # Unix time at which the minute ends
    refusal: Refusal | None = None
    retry_after: int = 0  # seconds, at least 1 when refused


class Window:
    """Counts by key within one stretch of time."""

    __slots__ = ("_length", "_number", "counts")

    def __init__(self, seconds: int) -> None:
        self._length = seconds
        self._number = 0
        self.counts: dict[str | int, int] = {}

    def turn(self, now: float) -> dict[str | int, int]:
        """The counts of the window `now` is in."""
        number = int(now // self._length)
        if number != self._number and number != self._number - 1:
            self._number = number
            self.counts = {}
        return self.counts

    @property
    def end(self) -> int:
        """Unix time at which the window last turned to ends."""
        return (self._number + 1) * self._length


class RequestRates:
    """Requests of one kind, counted by client and in total."""

    __slots__ = ("_minute", "_most_clients", "_second", "_total")

    def __init__(self, most_clients: int = MOST_CLIENTS) -> None:
        self._most_clients = most_clients
        self._minute = Window(MINUTE)
        self._second = Window(1)
        self._total = 0

    def take(self, client: str, limits: RateLimits, now: float) -> Verdict:
        """Count one request of `client` at Unix time `now`, or refuse it."""
        before = self._minute.counts
        counts = self._minute.turn(now)
        if counts is not before:
            self._total = 0
        key: str | int = client
        used = counts.get(key)
        if used is None:
            if len(counts) >= self._most_clients:
                key = hash(client) % SHARED_COUNTS
            used = counts.get(key, 0)
        most, end = limits.client_per_minute, self._minute.end
        if most and used >= most:
            return Verdict(most, 0, end, Refusal.CLIENT, _seconds_until(end, now))
        total = limits.total_per_minute
        if total and self._total >= total:
            return Verdict(total, 0, end, Refusal.TOTAL, _seconds_until(end, now))
        if limits.client_per_second:
            second = self._second.turn(now)
            in_second = second.get(key, 0)
            if in_second >= limits.client_per_second:
                return Verdict(*self._room(used, limits), end, Refusal.BURST, 1)
            second[key] = in_second + 1
        counts[key] = used + 1
        self._total += 1
        return Verdict(*self._room(used + 1, limits), end)

    def foresee(self, client: str, limits: RateLimits, now: float) -> Verdict:
        """What `take` would say now: it is asked, and what it counted is taken back."""
        verdict = self.take(client, limits, now)
        if verdict.refusal is None:
            key = client if client in self._minute.counts else hash(client) % SHARED_COUNTS
            self._total -= 1
            _uncount(self._minute.counts, key)
            if limits.client_per_second:
                _uncount(self._second.counts, key)
        return verdict

    def _room(self, used: int, limits: RateLimits) -> tuple[int, int]:
        """Limit and what is left of it: the client's own, or the common one where there is no other."""
        if limits.client_per_minute:
            return limits.client_per_minute, max(0, limits.client_per_minute - used)
        return limits.total_per_minute, max(0, limits.total_per_minute - self._total)

    def forget(self) -> None:
        """Start anew."""
        self._minute, self._second, self._total = Window(MINUTE), Window(1), 0


def _uncount(counts: dict[str | int, int], key: str | int) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1


class OpenRequests:
    """How many requests of each client are being answered at this moment."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def has_room(self, client: str, limit: int) -> bool:
        """Whether `open` would count one in."""
        return self._counts.get(client, 0) < limit

    def open(self, client: str, limit: int) -> bool:
        """Count one in, unless `limit` are open; each one counted in needs a `close`."""
        count = self._counts.get(client, 0)
        if count >= limit:
            return False
        self._counts[client] = count + 1
        return True

    def close(self, client: str) -> None:
        """Count one out."""
        left = self._counts[client] - 1
        if left:
            self._counts[client] = left
        else:
            del self._counts[client]

    def __len__(self) -> int:
        """How many clients have requests open."""
        return len(self._counts)


class EndpointRates:
    """Requests sent to each endpoint within this minute; a limit of None or 0 is none.

    Who has none left is known without a look at all the others.
    """

    __slots__ = ("_minute", "_spent")

    def __init__(self) -> None:
        self._minute = Window(MINUTE)
        self._spent: dict[int, int] = {}  # endpoint id -> the limit it has reached

    def has_room(self, endpoint_id: int, limit: int | None, now: float) -> bool:
        """Whether one more request may be sent there. Counts nothing."""
        return not limit or self._minute.turn(now).get(endpoint_id, 0) < limit

    def count(self, endpoint_id: int, limit: int, now: float) -> None:
        """One request is sent there."""
        counts = self._minute.turn(now)
        counts[endpoint_id] = counts.get(endpoint_id, 0) + 1
        if counts[endpoint_id] >= limit:
            self._spent[endpoint_id] = limit

    def find_spent(self, now: float) -> Collection[int]:
        """The endpoints that may be sent no more within this minute."""
        if self._spent:
            self._spent = {key: limit for key, limit in self._spent.items() if not self.has_room(key, limit, now)}
        return self._spent

    def follow(self, limits: Mapping[int, int], now: float) -> None:
        """Go by other limits from here on; an endpoint that is not named has none."""
        self._spent = {key: limit for key, limit in limits.items() if not self.has_room(key, limit, now)}

    def seconds_left(self, now: float) -> int:
        """Whole seconds until every endpoint has room again, for Retry-After."""
        self._minute.turn(now)
        return _seconds_until(self._minute.end, now)


def _seconds_until(end: int, now: float) -> int:
    return max(1, math.ceil(end - now))
