"""What happened lately: rates, percentiles, history, errors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from olla_site.portal.tally import ERRORS, MOST_SAMPLES, STEP, STEPS, Tally, percentile

NOW = 1_000_000.0  # the beginning of a step


def record(endpoint: int | None = 1, **values: Any) -> Any:
    facts = {
        "endpoint": None if endpoint is None else SimpleNamespace(id=endpoint),
        "outcome": "success", "usage": None, "first_byte": 0.05, "seconds": 0.2, "status": 200,
        "error_code": None, "model": "m", "request_id": "r",
    }  # fmt: skip
    return SimpleNamespace(**{**facts, **values})


def test_it_counts_requests_errors_and_tokens_a_second():
    tally = Tally()
    for number in range(10):
        tally.note(record(usage=SimpleNamespace(output_tokens=20)), number < 2, NOW - 1)

    found = tally.look(1, NOW)

    assert (found.requests, found.errors, found.tokens) == (2.0, 0.4, 40.0)
    assert found.error_percent == 20.0
    assert tally.total.look(NOW) == found


def test_it_forgets_a_burst_after_two_steps():
    tally = Tally()
    tally.note(record(), False, NOW)

    assert tally.look(1, NOW + 2 * STEP).requests == 0
    assert tally.look(1, NOW + 2 * STEP).error_percent is None


def test_it_tells_percentiles_of_recent_requests_only():
    tally = Tally()
    tally.note(record(seconds=9.0), False, NOW - 1000)
    for seconds in (0.1, 0.2, 0.3, 0.4):
        tally.note(record(seconds=seconds, first_byte=None), False, NOW)

    found = tally.look(1, NOW)

    assert (found.p50, found.p95, found.first_byte) == (300.0, 400.0, None)


def test_it_says_nothing_of_an_endpoint_it_never_saw():
    assert Tally().look(7, NOW).p50 is None


def test_it_keeps_a_quarter_of_an_hour_with_zeros_where_nothing_was():
    tally = Tally()
    tally.note(record(), False, NOW - 3 * STEP)
    tally.note(record(), True, NOW - STEP)

    history = tally.scope(1).history(NOW)

    assert {len(series) for series in history.values()} == {STEPS}
    assert history["requests"][-3:] == [0.2, 0, 0.2]
    assert history["errors"][-1] == 0.2
    assert history["latency"][-3:] == [200.0, None, 200.0]


def test_it_forgets_what_is_older():
    tally = Tally()
    for step in range(STEPS * 2):
        tally.note(record(), False, NOW + step * STEP)

    assert len(tally.scope(1).steps) == STEPS + 1


def test_it_shows_the_most_in_flight_of_each_step():
    tally = Tally()
    for number in (1, 7, 3):
        tally.sample({1: number, 2: 1, 3: 0}, NOW)

    assert tally.scope(1).history(NOW + STEP)["in_flight"][-1] == 7
    assert tally.total.point(NOW + STEP)["in_flight"] == 8
    assert 3 not in tally.endpoints


def test_it_keeps_few_samples_of_a_busy_step():
    tally = Tally()
    for _ in range(1000):
        tally.note(record(), False, NOW)

    step = tally.scope(1).steps[-1]
    assert (step.requests, len(step.seconds), len(step.first_bytes)) == (1000, MOST_SAMPLES, MOST_SAMPLES)


def test_it_remembers_the_last_errors_of_the_endpoint_that_failed():
    tally = Tally()
    for number in range(ERRORS + 5):
        tally.note(record(request_id=str(number), error_code="upstream_timeout", status=502), True, NOW)

    kept = list(tally.scope(1).errors)
    assert [each.request_id for each in kept] == [str(number) for number in range(5, ERRORS + 5)]
    assert kept[0].code == "upstream_timeout"


def test_it_counts_a_request_that_reached_no_endpoint_in_the_total_alone():
    tally = Tally()
    tally.note(record(endpoint=None), True, NOW)

    assert tally.endpoints == {}
    assert tally.total.look(NOW).errors == 0.2


def test_it_forgets_endpoints_that_are_gone():
    tally = Tally()
    tally.note(record(1), False, NOW)
    tally.note(record(2), False, NOW)

    tally.retain({2})

    assert list(tally.endpoints) == [2]


def test_it_takes_percentiles_of_few_values():
    assert percentile([], 0.5) is None
    assert percentile([0.001], 0.95) == 1.0
