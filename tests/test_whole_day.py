"""A day of traffic in a second: what is kept in memory stays as large as it is, and percentiles stay true."""

from __future__ import annotations

import gc
import random
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from olla_site.portal.tally import Tally as RecentTally
from proxy.breaker import Breaker
from proxy.rates import RateLimits, RequestRates
from proxy.record import AttemptNote, Outcome, RequestRecord, Usage
from proxy.routing import Action, Decision
from proxy.stickiness import StickyRules, StickyTable
from proxy.tallies import MOST_CAUSES, Tallies
from proxy.token_memory import TokenMemory
from proxy.violations import Violations
from tests.proxy.builders import make_endpoint

MIDNIGHT, MINUTE, HOUR = 1_750_003_200.0, 60.0, 60
FLEET = [make_endpoint(f"gpu-{n}", models=[f"m{m}" for m in range(3)], id=n) for n in range(4)]
LIMITS = RateLimits(total_per_minute=10_000, client_per_minute=3, client_per_second=2)


@dataclass
class Process:
    """Everything of a process that requests leave a trace in, apart from what ends with them."""

    tallies: Tallies = field(default_factory=Tallies)
    recent: RecentTally = field(default_factory=RecentTally)
    sticky: StickyTable = field(default_factory=lambda: StickyTable(StickyRules(enabled=True, idle_ttl=600.0)))
    rates: RequestRates = field(default_factory=RequestRates)
    violations: Violations = field(default_factory=Violations)
    breaker: Breaker = field(default_factory=Breaker)
    tokens: TokenMemory = field(default_factory=TokenMemory)

    def serve(self, number: int, now: float, dice: random.Random) -> float:
        """One request of a client, a session and an id nobody had before; how long it took."""
        client, endpoint = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", dice.choice(FLEET)
        if self.rates.take(client, LIMITS, now).refusal is not None or dice.random() < 0.05:
            self.violations.note_rate("client", client, now)
        if self.sticky.find(client, now) is None:
            self.sticky.pin(client, endpoint.id, now)
        ticket = self.breaker.try_enter(endpoint.id, now)
        outcome = dice.choice(list(Outcome))
        if ticket is not None:
            (self.breaker.succeed if outcome is Outcome.SUCCESS else self.breaker.fail)(ticket, now)
        record = build_record(number, now, dice, client=client, endpoint=endpoint, outcome=outcome)
        self.tokens.wants(f"invented-{number}", 100)
        self.tokens.note(record)
        self.tallies.note([record])
        self.recent.note(record, outcome is Outcome.BROKEN, now)
        self.recent.sample({endpoint.id: 1}, now)
        return record.seconds

    def look(self, now: float) -> None:
        """What a scrape and a page of the portal look at."""
        self.violations.limited_clients(now)
        self.sticky.stats(now)
        for each in FLEET:
            self.recent.look(each.id, now)


def build_record(number: int, now: float, dice: random.Random, **facts: Any) -> RequestRecord:
    """A finished request; its model is one of the fleet's or an invented one."""
    endpoint, outcome = facts["endpoint"], facts["outcome"]
    seconds = 10 ** dice.uniform(-3, 2)
    attempt = AttemptNote(endpoint, 100.0, seconds=seconds, status=200, verdict="good")
    invented = dice.random() < 0.2
    model = f"invented-{number}" if invented else f"m{dice.randrange(3)}"
    return RequestRecord(
        f"r-{number}", now, 100.0, "POST", "/olla/openai/v1/chat/completions", "openai", client=facts["client"],
        model=model, sent_model=model, attempts=[attempt], answered=attempt, status=200, seconds=seconds,
        first_byte=seconds / 2, response_bytes=10, outcome=outcome, usage=Usage(7, 3), stream=True,
        response_chunks=8, decision=Decision(Action.ROUTED), error_code=f"code-{number % 200}",
    )  # fmt: skip


def weigh(thing: Any) -> int:
    """Bytes of everything that hangs on a thing, classes and code apart."""
    seen: set[int] = set()
    left, total = [thing], 0
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, (type, types.FunctionType, types.ModuleType, types.MethodType)):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        left += gc.get_referents(each)
    return total


@pytest.mark.long_form
def test_it_stays_as_large_as_it_is_for_a_day(long_form: bool) -> None:
    dice, process, number = random.Random(11), Process(), 0
    weights: dict[int, int] = {}
    took: list[float] = []
    for minute in range(24 * HOUR):
        for _ in range(60 if long_form else 5):
            number += 1
            took.append(process.serve(number, MIDNIGHT + minute * MINUTE + dice.random() * MINUTE, dice))
        process.look(MIDNIGHT + (minute + 1) * MINUTE)
        if minute + 1 in {14 * HOUR, 24 * HOUR}:
            weights[(minute + 1) // HOUR] = weigh(process)
    # Buckets of sketches that are rarely met fill late; one pointer kept of each request would be a third more.
    assert weights[24] < 1.10 * weights[14], weights
    assert process.tallies.all.requests == number
    assert len(process.tallies.all.causes) <= MOST_CAUSES + 1
    assert set(process.tallies.models) == {*(f"m{n}" for n in range(3)), "other"}
    for share, found in zip(
        (0.5, 0.95, 0.99), process.tallies.all.first_byte.quantiles((0.5, 0.95, 0.99)), strict=True
    ):
        assert found == pytest.approx(sorted(took)[int(share * len(took))] / 2 * 1000, rel=0.02)
    # An hour after the last request nothing of the clients is left but what is counted.
    tomorrow = MIDNIGHT + 25.5 * HOUR * MINUTE
    process.look(tomorrow)
    assert process.violations.limited_clients(tomorrow) == 0
    assert process.sticky.stats(tomorrow)["active_sessions"] == 0
