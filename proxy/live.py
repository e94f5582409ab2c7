"""This process's counters: requests in flight, endpoints seen failing, totals.

One Live for each process; it lives on the event loop and is touched by nothing else.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

from endpoints import loading
from endpoints.conf import conf
from endpoints.rules import Fallback, Strategy
from endpoints.snapshot import ANTHROPIC, EMPTY, EndpointRecord, Snapshot
from proxy.anthropic_record import AnthropicState
from proxy.attempts import Attempt, Verdict
from proxy.breaker import Breaker
from proxy.finished import flush, subscribe
from proxy.queueing import Slot, SlotQueue
from proxy.rates import EndpointRates
from proxy.record import RequestRecord
from proxy.routing import Plan, Refresh
from proxy.sieve import DropReason, LiveView
from proxy.stickiness import KeySource, Sight, StickyRules, StickyTable, find_unroutable
from proxy.tallies import Tallies

# A failure seen here keeps an endpoint out this long unless the tables say otherwise sooner: when the
# database cannot be written, nobody else would ever bring it back.
DEMOTION_SECONDS = 30.0
LONGEST_REST = 3600.0
REMEMBERED_CURSORS = 10_000


def new_queue() -> SlotQueue:
    """The line before full endpoints, by the settings and the limits of the snapshot in force."""
    return SlotQueue(limit_of, length=conf().queue_length, timeout=conf().queue_timeout)


def limit_of(endpoint_id: int) -> int | None:
    """How many requests an endpoint takes at once."""
    endpoint = loading.current().by_id.get(endpoint_id)
    return endpoint.max_concurrent if endpoint else None


@dataclass(slots=True)
class Live:
    """Counters by endpoint id."""

    queue: SlotQueue = field(default_factory=new_queue)
    demoted: dict[int, float] = field(default_factory=dict)
    requests: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    resting: dict[int, float] = field(default_factory=dict)  # until, in monotonic seconds
    breaker: Breaker = field(default_factory=lambda: Breaker(conf().breaker_threshold, conf().breaker_open_time))
    sticky: StickyTable = field(default_factory=lambda: StickyTable(sticky_rules()))
    anthropic: AnthropicState = field(default_factory=AnthropicState)
    rates: EndpointRates = field(default_factory=EndpointRates)
    _tallies: Tallies = field(default_factory=Tallies)
    _seen: Sight = field(default_factory=lambda: Sight(EMPTY, 0.0))
    _out: set[int] = field(default_factory=set)  # who was kept out at the last look
    _transitions: int = 0  # of breakers by then
    _cursors: Counter[tuple[int, int, int]] = field(default_factory=Counter)

    def reset(self) -> None:
        """Start anew with the settings in force; for tests."""
        flush()
        fresh = Live()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    @property
    def tallies(self) -> Tallies:
        """What became of every request until now."""
        flush()
        return self._tallies

    def next_cursor(self, candidates: Sequence[EndpointRecord]) -> int:
        """A counter that grows by one with each pick among the same candidates.

        One for all would let two streams of requests that alternate each meet the same endpoint again and again.
        """
        key = _cursor_key(candidates)
        if len(self._cursors) > REMEMBERED_CURSORS:
            self._cursors.clear()
        self._cursors[key] += 1
        return self._cursors[key]

    def peek_cursor(self, candidates: Sequence[EndpointRecord]) -> int:
        """What `next_cursor` would give."""
        return self._cursors[_cursor_key(candidates)] + 1

    @property
    def in_flight(self) -> Counter[int]:
        """Requests open to each endpoint now."""
        return self.queue.in_flight

    def open_attempt(self, endpoint: EndpointRecord, slot: Slot) -> Attempt | None:
        """Use a place at an endpoint; None (and the place given back) when its breaker has just closed the way."""
        now = time.monotonic()
        ticket = self.breaker.try_enter(endpoint.id, now)
        if ticket is None:
            slot.release()
            return None
        self.requests[endpoint.id] += 1
        if endpoint.requests_per_minute:
            self.rates.count(endpoint.id, endpoint.requests_per_minute, time.time())
        return Attempt(endpoint, ticket, self.breaker, slot, self._attempt_closed, now)

    def count_finished(self, records: Sequence[RequestRecord]) -> None:
        """Count requests that have ended; a sink of `proxy.finished`."""
        self._tallies.note(records)
        for record in records:
            if record.prefix == ANTHROPIC:
                self.anthropic.tokens.note(record)

    def _attempt_closed(self, endpoint: EndpointRecord, verdict: Verdict) -> None:
        if verdict is Verdict.FAILED:
            self.failures[endpoint.id] += 1

    def rest(self, endpoint: EndpointRecord, seconds: float) -> None:
        """Keep an endpoint out that asked for it by 429 and Retry-After."""
        self.resting[endpoint.id] = time.monotonic() + min(seconds, LONGEST_REST)

    def demote(self, endpoint: EndpointRecord, now: float) -> None:
        """Keep an endpoint out of this process's choices at once (`now`: seconds since the epoch)."""
        self.demoted[endpoint.id] = now

    def restore(self, endpoint_id: int) -> None:
        """Forget that an endpoint was seen failing: the prober has looked since and found it well."""
        self.demoted.pop(endpoint_id, None)

    def view(self) -> LiveView:
        """What routing may know of this moment."""
        now = time.time()
        if self.demoted:
            oldest = now - DEMOTION_SECONDS
            self.demoted = {key: seen for key, seen in self.demoted.items() if seen > oldest}
        return LiveView(
            now=now,
            prober_seen=loading.health().prober_seen,
            demoted=self.demoted,
            held_out=self._held_out(),
            opened_guards=conf().open_guarded_paths,
            dice=random.random(),  # noqa: S311 - sharing out requests, not secrets
        )

    def _held_out(self) -> dict[int, DropReason]:
        """Endpoints that breakers and rests keep out now; empty in good times."""
        now = time.monotonic()
        if self.resting:
            self.resting = {key: until for key, until in self.resting.items() if until > now}
        closed, spent = self.breaker.closed_ways(now), self.rates.find_spent(time.time())
        if not (closed or self.resting or spent):
            return {}
        return {
            **dict.fromkeys(closed, DropReason.BREAKER_OPEN),
            **dict.fromkeys(self.resting, DropReason.RESTING),
            **dict.fromkeys(spent, DropReason.RATE_LIMITED),
        }

    def follow(self, snapshot: Snapshot, now: float | None = None) -> None:
        """Heed what the loader sees: sessions leave endpoints that take no traffic, the line looks who may answer.

        Called at every look, since windows begin, breakers let requests try and rests end without a new snapshot.
        """
        before, self._seen = self._seen, Sight(snapshot, time.time() if now is None else now)
        gone = find_unroutable(before, self._seen)
        for endpoint_id in gone:
            self.sticky.purge(endpoint_id)
        if before.snapshot is not snapshot:
            self.breaker.retain(snapshot.by_id)
            self._tallies.retain(snapshot.by_id)
            self.rates.follow({each.id: each.requests_per_minute for each in snapshot.rated}, time.time())
        came_back = self._came_back()  # whatever else there is: the next look compares with this one
        if came_back or gone or before.snapshot is not snapshot or find_unroutable(self._seen, before):
            self.queue.reconsider()

    def _came_back(self) -> bool:
        """Whether one may answer again that a breaker, a rest, its rate or a failure kept out at the last look.

        A breaker may have let a request pass and closed again between two looks: its transitions tell.
        """
        view = self.view()
        out, transitions = {*view.held_out, *view.demoted}, self.breaker.transitions
        came_back = bool(self._out - out) or transitions != self._transitions
        self._out, self._transitions = out, transitions
        return came_back


def _cursor_key(candidates: Sequence[EndpointRecord]) -> tuple[int, int, int]:
    return candidates[0].id, candidates[-1].id, len(candidates)


def sticky_rules() -> StickyRules:
    """The settings of sticky sessions."""
    settings = conf()
    return StickyRules(
        enabled=settings.sticky_sessions,
        idle_ttl=settings.sticky_idle_ttl,
        max_sessions=settings.sticky_max_sessions,
        prefix_hash_bytes=settings.sticky_prefix_hash_bytes,
        key_sources=tuple(KeySource(source) for source in settings.sticky_key_sources),
    )


def plan(refresh: Refresh | None = None) -> Plan:
    """The strategy the settings ask for; `refresh` tells how far a discovery for this request has come."""
    settings = conf()
    possible = Refresh.POSSIBLE if settings.discovery_refresh_on_miss else Refresh.OFF
    strategy, fallback = settings.routing_strategy, settings.fallback_behavior
    return _plan_once(strategy, fallback, refresh or possible, settings.loaded_first)


@lru_cache(maxsize=16)
def _plan_once(strategy: str, fallback: str, refresh: Refresh, loaded_first: bool) -> Plan:
    return Plan(Strategy(strategy), Fallback(fallback), refresh, loaded_first)


live = Live()
subscribe(live.count_finished)
