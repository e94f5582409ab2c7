"""Sketch: a distribution in little room, for percentiles. (pure)

A Sketch counts values in buckets whose bounds grow by two percent, as DDSketch does (Masson, Rim, Lee, VLDB 2019):
any quantile it tells is within RELATIVE_ERROR of a value that was added, whatever the distribution. Two sketches
merge by adding their counts, without further loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, log

RELATIVE_ERROR = 0.01
# What lies beyond is counted at these ends, so that no value makes a sketch grow past about 1,500 buckets.
LEAST, MOST = 1e-4, 1e9
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / log(_GROWTH)
# The point of a bucket that is equally far, in proportion, from both its ends.
_MIDDLE = 2 / (1 + _GROWTH)


def keys_of(values: Iterable[float]) -> list[int]:
    """The buckets of values."""
    return [
        ceil(log(value if LEAST < value < MOST else (LEAST if value <= LEAST else MOST)) * _PER_LOG)
        for value in values
    ]


class Sketch:
    """Counts of values of 0 or more by magnitude; count, sum and extremes are exact."""

    __slots__ = ("count", "counts", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.smallest = MOST
        self.largest = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.add_all((value,))

    def add_all(self, values: Sequence[float]) -> None:
        """Count some."""
        self.add_at(keys_of(values), values)

    def add_at(self, keys: Sequence[int], values: Sequence[float]) -> None:
        """Count some whose keys are known: where several sketches count them, the keys are made once."""
        if not values:
            return
        counts = self.counts
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        self.count += len(values)
        self.total += sum(values)
        smallest, largest = min(values), max(values)
        if smallest < self.smallest:
            self.smallest = smallest
        if largest > self.largest:
            self.largest = largest

    def merge(self, other: Sketch) -> None:
        """Count all that another one has counted."""
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count
        self.count += other.count
        self.total += other.total
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    @property
    def mean(self) -> float | None:
        """The exact mean; None while nothing was counted."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0 to 1) of all values do not exceed; None while nothing was counted."""
        return self.quantiles((share,))[0]

    def quantiles(self, shares: Iterable[float]) -> list[float | None]:
        """Several at once, in the order asked; the buckets are sorted once."""
        if not self.count:
            return [None for _ in shares]
        # A copy: a thread may ask while the event loop goes on counting.
        ordered = sorted(self.counts.copy().items())
        return [self._find(ordered, share) for share in shares]

    def _find(self, ordered: list[tuple[int, int]], share: float) -> float:
        # The nearest rank: so many values do not exceed the one found. Rounded, for 0.07 * 100 is above 7.
        rank, seen, found = max(1, ceil(round(share * self.count, 6))), 0, ordered[-1][0]
        for key, count in ordered:
            seen += count
            if seen >= rank:
                found = key
                break
        # Inside the extremes the middle is within the error; at them the exact value is known.
        return float(min(max(_GROWTH**found * _MIDDLE, self.smallest), self.largest))
