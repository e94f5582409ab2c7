"""How a status is told to people: badge, tone and reason; the same in admin and portal. (pure)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from endpoints.health import ROUTABLE, OperatorState, Status


class Tone(StrEnum):
    """The colour family of a badge; never the only carrier of the meaning."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


TONES = {
    Status.HEALTHY: Tone.GOOD,
    Status.BUSY: Tone.WARN,
    Status.WARMING: Tone.WARN,
    Status.RATE_LIMITED: Tone.WARN,
    Status.OFFLINE: Tone.BAD,
    Status.UNHEALTHY: Tone.BAD,
    Status.CONFIG_ERROR: Tone.BAD,
    Status.UNKNOWN: Tone.QUIET,
}
LABELS = {Status.CONFIG_ERROR: "configuration error", Status.RATE_LIMITED: "rate limited"}
STATE_REASONS = {
    OperatorState.DRAINING: "An operator drains it: open requests finish, new ones go elsewhere.",
    OperatorState.DISABLED: "An operator disabled it: it gets no requests.",
    OperatorState.MAINTENANCE: "An operator set it to maintenance: it gets no requests.",
}
DRAINING_TO_DISABLE = "An operator drains it: open requests finish, then it is disabled."
DISABLED_WHEN_DRAINED = "Disabled by itself once its last request had ended, as an operator asked."
STALE_REASON = "The last probe is overdue, so this may no longer be true. Is the prober running?"
NEVER_PROBED = "Not probed yet."


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What is known of one endpoint; times in seconds since the epoch, `prober_seen` 0 for never."""

    status: Status
    state: OperatorState
    last_error: str
    next_check: float
    check_interval: float
    prober_seen: float
    probed: bool
    config_problem: str = ""
    state_reason: str = ""  # when there is more to say of the state than its usual reason


@dataclass(frozen=True, slots=True)
class Badge:
    """One coloured word and why."""

    label: str
    tone: Tone
    reason: str = ""
    stale: bool = False
    routable: bool = False


def is_stale(facts: HealthFacts, now: float) -> bool:
    """Whether the prober has been gone too long for a good status to be believed."""
    if facts.status not in ROUTABLE:
        return False
    return now > max(facts.next_check, facts.prober_seen) + 3 * facts.check_interval


def describe_status(facts: HealthFacts, now: float) -> Badge:
    """The badge of what the prober found."""
    if facts.config_problem:
        return Badge(LABELS[Status.CONFIG_ERROR], Tone.BAD, facts.config_problem)
    label = LABELS.get(facts.status, facts.status.value)
    if is_stale(facts, now):
        return Badge(label, Tone.QUIET, STALE_REASON, stale=True)
    reason = facts.last_error or ("" if facts.probed else NEVER_PROBED)
    routable = facts.status in ROUTABLE and facts.state is OperatorState.ACTIVE
    return Badge(label, TONES[facts.status], reason, routable=routable)


def describe_state(state: OperatorState, reason: str = "") -> Badge | None:
    """The badge of the operator's wish; None for an active endpoint."""
    if state is OperatorState.ACTIVE:
        return None
    return Badge(state.value, Tone.QUIET, reason or STATE_REASONS[state])
