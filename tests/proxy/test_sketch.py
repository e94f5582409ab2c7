"""Sketches and buckets: how exact, how small, how they merge."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.durations import SECONDS, Buckets
from proxy.sketch import LEAST, MOST, RELATIVE_ERROR, Sketch

VALUES = st.lists(st.floats(min_value=LEAST, max_value=MOST), min_size=1, max_size=200)
SHARES = (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0)


def fill(values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


def exact(values, share):
    """The least value that so large a share of all values do not exceed."""
    return next(
        value for value in sorted(values) if sum(each <= value for each in values) >= share * len(values) - 1e-6
    )


@given(VALUES)
def test_it_tells_every_quantile_within_its_error(values):
    sketch = fill(values)
    for share, found in zip(SHARES, sketch.quantiles(SHARES), strict=True):
        assert found == pytest.approx(exact(values, share), rel=RELATIVE_ERROR * 1.001)


@given(VALUES, VALUES)
def test_it_merges_as_if_all_had_been_added_to_one(left, right):
    merged, both = fill(left), fill(left + right)
    merged.merge(fill(right))
    assert merged.quantiles(SHARES) == both.quantiles(SHARES)
    assert (merged.count, merged.smallest, merged.largest) == (both.count, both.smallest, both.largest)
    assert merged.total == pytest.approx(both.total)


def test_it_knows_count_sum_and_extremes_exactly():
    sketch = fill([3.0, 1.0, 2.0])
    assert (sketch.count, sketch.total, sketch.smallest, sketch.largest, sketch.mean) == (3, 6.0, 1.0, 3.0, 2.0)


def test_it_tells_the_slow_one_of_two_as_the_tail():
    assert fill([645.0, 890.0]).quantiles((0.5, 0.95, 0.99)) == pytest.approx([645.0, 890.0, 890.0], rel=0.01)
    assert fill(range(1, 101)).quantiles((0.07, 0.95, 0.99)) == pytest.approx([7, 95, 99], rel=0.01)


def test_it_has_no_quantile_of_nothing():
    assert Sketch().quantiles(SHARES) == [None] * len(SHARES)
    assert Sketch().mean is None


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 1e12, math.inf])
def test_it_takes_values_beyond_its_ends(value):
    assert fill([value]).count == 1


def test_it_stays_small_whatever_is_added(long_form):
    sketch, dice = Sketch(), random.Random(7)
    for _ in range(1_000_000 if long_form else 20_000):
        sketch.add(10 ** dice.uniform(-6, 12))
    assert len(sketch.counts) < 1600


def test_it_counts_a_value_on_a_bound_as_not_above_it():
    buckets = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        buckets.add(value)
    assert buckets.cumulative() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 5.0)]
    assert (buckets.count, buckets.total) == (5, 8.0)


def test_it_covers_a_millisecond_to_ten_minutes():
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 600.0)
    assert list(SECONDS) == sorted(SECONDS)
