"""Statuses, and how one probe's result changes them. (pure)

Follows the reference's classification (401/403 are a configuration error, 429 rests the endpoint), with
`check_interval` honoured and busy and warming taking light traffic.

    ProbeResult    what one probe saw, written by endpoints/probing.py
    next_health()  what that makes of the endpoint: status, failures, when to ask again
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum


class Status(StrEnum):
    """What we believe of an endpoint."""

    HEALTHY = "healthy"
    BUSY = "busy"
    WARMING = "warming"
    OFFLINE = "offline"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    CONFIG_ERROR = "config_error"
    RATE_LIMITED = "rate_limited"


# Share of traffic by status; a status that is not here gets none.
STATUS_WEIGHTS: dict[Status, float] = {Status.HEALTHY: 1.0, Status.BUSY: 0.3, Status.WARMING: 0.1}
ROUTABLE = frozenset(STATUS_WEIGHTS)

SLOW_SECONDS = 10.0  # a good answer that took longer means busy
BACKOFF = (1, 2, 4, 8, 12)  # check intervals to wait after the first, second, ... failure in a row
BACKOFF_CAP = 60.0  # seconds; an interval that is longer by itself stays as it is
DEFAULT_REST = 30.0  # seconds to rest after a 429 that does not say how long
LONGEST_REST = 3600.0  # a Retry-After beyond this is not believed


class OperatorState(StrEnum):
    """What the operator wants of an endpoint."""

    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"


Window = tuple[float, float]  # from and until, in seconds since the epoch; infinite where open


def state_now(state: OperatorState, window: Window | None, now: float) -> OperatorState:
    """The state in force: an active endpoint is in maintenance while its window lasts."""
    if window is not None and state is OperatorState.ACTIVE and window[0] <= now < window[1]:
        return OperatorState.MAINTENANCE
    return state


class Outcome(StrEnum):
    """How one probe ended."""

    ANSWERED = "answered"  # with the status code beside it
    UNREACHABLE = "unreachable"  # no connection, or it broke before the answer was complete
    TIMEOUT = "timeout"
    MISCONFIGURED = "misconfigured"  # never sent: a credential, address or TLS setting cannot be used
    FAULT = "fault"  # an error of this product's own; says nothing about the endpoint


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe saw. `error` is for people; no decision depends on its text."""

    outcome: Outcome
    status_code: int | None = None
    latency_ms: float | None = None  # until the answer's headers
    retry_after: float | None = None  # seconds, already parsed
    loading: bool = False  # a 503 whose body says that the server is loading its model
    error: str = ""
    detected_type: str = ""  # for endpoints of type auto; empty when nothing was detected


@dataclass(frozen=True, slots=True)
class HealthState:
    """The part of an endpoint's health that the next decision depends on; times in seconds since the epoch."""

    status: Status = Status.UNKNOWN
    status_since: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class HealthChange:
    """The decision: what to store, and when to probe again."""

    status: Status
    status_since: float
    failures: int
    next_check: float
    reason: str  # empty when all is well
    changed: bool  # the status differs from before
    recovered: bool  # fully well after it was not: time to read its models


def classify(result: ProbeResult) -> Status | None:
    """The status one result speaks for; None when it says nothing about the endpoint."""
    if result.outcome is Outcome.FAULT:
        return None
    if result.outcome is Outcome.MISCONFIGURED:
        return Status.CONFIG_ERROR
    if result.outcome is not Outcome.ANSWERED or result.status_code is None:
        return Status.OFFLINE
    return _classify_answer(result, result.status_code)


def _classify_answer(result: ProbeResult, code: int) -> Status:
    if code in {401, 403}:
        return Status.CONFIG_ERROR
    if code == 429:
        return Status.RATE_LIMITED
    if code == 503 and result.loading:
        return Status.WARMING
    if 200 <= code < 300:
        return Status.BUSY if (result.latency_ms or 0.0) > SLOW_SECONDS * 1000 else Status.HEALTHY
    return Status.UNHEALTHY


def next_health(previous: HealthState, result: ProbeResult, now: float, interval: float) -> HealthChange:
    """What `result`, complete at `now`, makes of an endpoint that is checked every `interval` seconds."""
    status = classify(result) or previous.status
    failures = _count_failures(previous.failures, status, result.outcome)
    changed = status is not previous.status
    return HealthChange(
        status=status,
        status_since=now if changed else previous.status_since,
        failures=failures,
        next_check=now + _wait(status, failures, interval, result.retry_after),
        reason="" if status in {Status.HEALTHY, Status.BUSY} and not result.error else describe(result),
        changed=changed,
        recovered=status is Status.HEALTHY and previous.status not in {Status.HEALTHY, Status.BUSY},
    )


def demote(previous: HealthState, now: float) -> HealthState | None:
    """The state after a request could not reach the endpoint; None when it already gets no traffic.

    One refused connection is enough: the next probe, at once, says whether it was a passing thing.
    """
    if previous.status not in ROUTABLE:
        return None
    return HealthState(Status.OFFLINE, now, previous.failures + 1)


def _count_failures(before: int, status: Status, outcome: Outcome) -> int:
    """Failures in a row. A rest after 429 is neither failure nor success, nor is our own fault."""
    if outcome is Outcome.FAULT or status is Status.RATE_LIMITED:
        return before
    return 0 if status in ROUTABLE else before + 1


def _wait(status: Status, failures: int, interval: float, retry_after: float | None) -> float:
    """Seconds until the next probe."""
    if status is Status.RATE_LIMITED:
        rest = DEFAULT_REST if retry_after is None else min(retry_after, LONGEST_REST)
        return max(rest, interval)
    return backoff(failures, interval)


def backoff(failures: int, interval: float) -> float:
    """Seconds to wait after `failures` in a row: the interval times 1, 2, 4, 8, 12, at most a minute."""
    factor = BACKOFF[min(max(failures, 1), len(BACKOFF)) - 1]
    return max(interval, min(interval * factor, BACKOFF_CAP))


def describe(result: ProbeResult) -> str:
    """One line for pages and logs that says why a probe was not a plain success."""
    if result.error:
        return result.error
    code = result.status_code
    if result.outcome is not Outcome.ANSWERED or code is None:
        return "It did not answer in time." if result.outcome is Outcome.TIMEOUT else "It cannot be reached."
    if result.loading:
        return "It is loading its model."
    if code in {401, 403}:
        return f"It refuses the credentials (HTTP {code})."
    if code == 429:
        return "It asks for fewer requests (HTTP 429)."
    if 300 <= code < 400:
        return f"It redirects (HTTP {code}), which is not followed: set the URL to where it leads."
    return "" if 200 <= code < 300 else f"Its health check answers HTTP {code}."


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds to wait from a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3).

    None for what is neither; never negative.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        # Beyond 18 digits a float conversion could overflow; any such number is over every cap anyway.
        return float(text[:18])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
