"""What is told of a fact, given what was told before. (pure)

A state (an endpoint is down) must last for `hold` seconds before anybody is told, and so must its end; the end is
told when the beginning was. An occurrence (a breaker opens) is told at once. Neither is told again of the same
subject within `repeat` seconds. While a fact is muted (maintenance) nothing is told, and its time starts anew
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class AlertKind(StrEnum):
    """What a hook can ask to be told of."""

    ENDPOINT = "endpoint"
    BREAKER = "breaker"
    REQUEST_LOG = "request_log"
    PROBER = "prober"


class HookKind(StrEnum):
    """What a hook reads."""

    JSON = "json"
    CHAT = "chat"  # `{"text": ...}`, as Slack and Mattermost take it


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing as it is now. `subject` tells facts of a kind apart; `text` is for people, without secrets."""

    kind: AlertKind
    subject: str
    is_bad: bool
    text: str
    muted: bool = False
    lasts: bool = True  # a state; else an occurrence, of which there is no end to tell

    @property
    def key(self) -> str:
        """What its row is found by."""
        return f"{self.kind}:{self.subject}"[:200]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of a fact: seconds since the epoch."""

    is_bad: bool = False  # as told last
    differs_since: float | None = None  # since when it is otherwise than told
    sent_at: float | None = None  # when trouble was last told


@dataclass(frozen=True, slots=True)
class Message:
    """What hooks are told."""

    kind: AlertKind
    event: str  # such as endpoint_down
    subject: str
    text: str
    at: float


_EVENTS = {
    AlertKind.ENDPOINT: ("endpoint_down", "endpoint_up"),
    AlertKind.BREAKER: ("breaker_open", "breaker_closed"),
    AlertKind.REQUEST_LOG: ("request_log_drops", "request_log_well"),
    AlertKind.PROBER: ("prober_silent", "prober_back"),
}


def judge(told: Told, fact: Fact, now: float, *, hold: float, repeat: float) -> tuple[Told, Message | None]:
    """What was told from now on, and the message to send."""
    if fact.muted:
        return replace(told, differs_since=None), None
    may_repeat = told.sent_at is None or now - told.sent_at >= repeat
    if not fact.lasts:
        if not fact.is_bad or not may_repeat:
            return told, None
        return Told(sent_at=now), _build(fact, now)
    if fact.is_bad == told.is_bad:
        return replace(told, differs_since=None), None
    since = told.differs_since if told.differs_since is not None else now
    if now - since < hold or (fact.is_bad and not may_repeat):
        return replace(told, differs_since=since), None
    return Told(fact.is_bad, None, now if fact.is_bad else told.sent_at), _build(fact, now)


def _build(fact: Fact, now: float) -> Message:
    return Message(fact.kind, _EVENTS[fact.kind][0 if fact.is_bad else 1], fact.subject, fact.text, now)
