"""How long things took, counted in steps that Prometheus reads as histograms. (pure)"""

from __future__ import annotations

import math
from bisect import bisect_left

import msgspec

# What the prober counts, and how discoveries end; probes end as `endpoints.health.Outcome` has it.
PROBE, DISCOVERY = "probe", "discovery"
READ, FAILED = "read", "failed"
SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip


class Buckets:
    """How many values lie up to each bound, and their sum; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value. A value on a bound is not above it (Prometheus' `le`)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """The running totals by bound, as the exposition format writes them."""
        found, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            found.append((bound, float(running)))
        return found


class _Written(msgspec.Struct):
    """Buckets in a text."""

    counts: list[int]
    total: float


class Durations:
    """Buckets by what took the time and how it ended: what the prober hands to web processes as a text."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Buckets]] = {}

    def add(self, what: str, outcome: str, seconds: float) -> None:
        """Count one. Both words come from closed sets."""
        outcomes = self.found.setdefault(what, {})
        buckets = outcomes.get(outcome)
        if buckets is None:
            buckets = outcomes[outcome] = Buckets()
        buckets.add(seconds)

    def of(self, what: str) -> dict[str, Buckets]:
        """The buckets of one thing, by outcome."""
        return self.found.get(what, {})

    def write(self) -> str:
        """All of it as a text; may be called in another thread than `add`."""
        return msgspec.json.encode({
            what: {name: _Written(each.counts, each.total) for name, each in outcomes.copy().items()}
            for what, outcomes in self.found.copy().items()
        }).decode()  # fmt: skip


def parse_durations(text: str) -> Durations:
    """What `write` wrote; nothing where another version wrote it, or nobody."""
    durations = Durations()
    try:
        written = msgspec.json.decode(text or "{}", type=dict[str, dict[str, _Written]])
    except msgspec.DecodeError:
        return durations
    for what, outcomes in written.items():
        for name, each in outcomes.items():
            buckets = Buckets()
            if len(each.counts) == len(buckets.counts) and math.isfinite(each.total):
                buckets.counts, buckets.total = each.counts, each.total
                durations.found.setdefault(what, {})[name] = buckets
    return durations
