"""The pure transitions of endpoints/health.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import (
    BACKOFF_CAP,
    LONGEST_REST,
    HealthState,
    Outcome,
    ProbeResult,
    Status,
    backoff,
    demote,
    describe,
    next_health,
    parse_retry_after,
)

NOW = 1_000_000.0


def answered(code: int, **more) -> ProbeResult:
    return ProbeResult(Outcome.ANSWERED, status_code=code, latency_ms=more.pop("latency_ms", 3.0), **more)


def after(result: ProbeResult, status=Status.HEALTHY, failures=0, interval=5.0):
    return next_health(HealthState(status, NOW - 60, failures), result, NOW, interval)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (answered(200), Status.HEALTHY),
        (answered(204), Status.HEALTHY),
        (answered(200, latency_ms=10_001.0), Status.BUSY),
        (answered(301), Status.UNHEALTHY),
        (answered(401), Status.CONFIG_ERROR),
        (answered(403), Status.CONFIG_ERROR),
        (answered(404), Status.UNHEALTHY),
        (answered(429), Status.RATE_LIMITED),
        (answered(500), Status.UNHEALTHY),
        (answered(503), Status.UNHEALTHY),
        (answered(503, loading=True), Status.WARMING),
        (answered(500, loading=True), Status.UNHEALTHY),
        (ProbeResult(Outcome.UNREACHABLE), Status.OFFLINE),
        (ProbeResult(Outcome.TIMEOUT), Status.OFFLINE),
        (ProbeResult(Outcome.MISCONFIGURED, error="A variable is not set."), Status.CONFIG_ERROR),
    ],
)
def test_it_classifies_one_result(result, status):
    assert after(result, Status.UNKNOWN).status is status


def test_it_keeps_the_status_after_a_fault_of_its_own():
    change = after(ProbeResult(Outcome.FAULT, error="oops"), Status.HEALTHY)
    assert (change.status, change.failures, change.next_check) == (Status.HEALTHY, 0, NOW + 5)


def test_it_backs_off_and_starts_again_after_a_success():
    waits, failures = [], 0
    for _ in range(7):
        change = after(ProbeResult(Outcome.UNREACHABLE), Status.OFFLINE, failures)
        waits.append(change.next_check - NOW)
        failures = change.failures
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    well = after(answered(200), Status.OFFLINE, failures)
    assert (well.failures, well.next_check) == (0, NOW + 5)


def test_it_never_checks_sooner_than_a_long_interval():
    assert [backoff(n, 120.0) for n in (0, 1, 2, 9)] == [120, 120, 120, 120]


@given(st.integers(0, 10_000), st.floats(1, 100_000))
def test_it_waits_between_the_interval_and_the_cap(failures, interval):
    assert interval <= backoff(failures, interval) <= max(interval, BACKOFF_CAP)


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(None, 30.0), (90.0, 90.0), (0.0, 5.0), (1e12, LONGEST_REST)],
)
def test_it_rests_a_rate_limited_endpoint(retry_after, wait):
    change = after(answered(429, retry_after=retry_after), failures=2)
    assert (change.next_check - NOW, change.failures) == (wait, 2)


def test_it_keeps_the_time_of_the_last_change():
    same = after(answered(200), Status.HEALTHY)
    other = after(answered(200), Status.OFFLINE)
    assert (same.changed, same.status_since) == (False, NOW - 60)
    assert (other.changed, other.status_since) == (True, NOW)


@pytest.mark.parametrize("status", list(Status))
def test_it_calls_for_models_when_an_endpoint_becomes_well(status):
    assert after(answered(200), status).recovered is (status not in {Status.HEALTHY, Status.BUSY})


def test_it_does_not_call_warming_a_recovery():
    assert not after(answered(503, loading=True), Status.OFFLINE).recovered


@pytest.mark.parametrize("status", list(Status))
def test_it_demotes_only_what_gets_traffic(status):
    state = demote(HealthState(status, NOW - 9, 1), NOW)
    if status in {Status.HEALTHY, Status.BUSY, Status.WARMING}:
        assert state == HealthState(Status.OFFLINE, NOW, 2)
    else:
        assert state is None


def test_it_gives_a_reason_for_everything_but_success():
    assert after(answered(200)).reason == ""
    for result in (answered(302), answered(401), answered(429), answered(500), answered(503, loading=True)):
        assert after(result).reason
    for outcome in (Outcome.UNREACHABLE, Outcome.TIMEOUT):
        assert after(ProbeResult(outcome)).reason
    assert describe(answered(200)) == ""
    assert "not followed" in after(answered(308)).reason
    assert after(answered(500, error="Said so.")).reason == "Said so."


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 1970 00:00:09 GMT", 0.0),
        ("Mon, 12 Jan 1970 13:47:40 GMT", 60.0),
        ("Mon, 12 Jan 1970 13:47:40", 60.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_it_reads_retry_after(text, seconds):
    assert parse_retry_after(text, NOW) == seconds


@given(st.text())
def test_it_survives_any_retry_after(text):
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers().map(str))
def test_it_survives_any_number_in_retry_after(text):
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or 0 <= seconds < 1e19
