"""What a preview found, in words and numbers for its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from endpoints.status_text import Tone
from proxy.models import time_of_key
from proxy.rerouting import Comparison, Fate, Kind, Logged

GROUPS_SHOWN = 40
NAMES_SHOWN = 6
KINDS = {
    Kind.REFUSED: ("newly refused", Tone.BAD),
    Kind.ANSWERED: ("newly possible", Tone.GOOD),
    Kind.MOVED: ("go elsewhere", Tone.WARN),
    Kind.OTHER: ("otherwise changed", Tone.QUIET),
    Kind.SAME: ("stay as they are", Tone.QUIET),
}
SINGULAR = {Kind.MOVED: "goes elsewhere", Kind.SAME: "stays as it is"}


@dataclass(frozen=True, slots=True)
class Tile:
    """One count."""

    kind: str
    words: str
    tone: Tone
    count: int
    share: str


@dataclass(frozen=True, slots=True)
class Line:
    """One group of requests that would fare alike."""

    words: str
    tone: Tone
    count: int
    before: dict[str, Any]
    after: dict[str, Any]
    examples: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison in words."""

    judged: int
    changed: int
    tiles: list[Tile]
    lines: list[Line]
    left_out: int  # requests in groups that are not shown
    unrouted: int
    unreadable: int
    uncertain: int


def build_report(comparison: Comparison) -> Report:
    """The counts, and the largest groups, of a comparison that nobody adds to any more."""
    tally, judged = comparison.tally, comparison.judged
    groups = comparison.ordered()
    shown = groups[:GROUPS_SHOWN]
    hidden = sum(each.count for each in groups[GROUPS_SHOWN:]) + comparison.grouped_elsewhere
    return Report(
        judged=judged,
        changed=sum(count for kind, count in tally.items() if kind is not Kind.SAME),
        tiles=[_tile(kind, tally[kind], judged) for kind in KINDS],
        lines=[
            Line(
                words=KINDS[each.kind][0] if each.count != 1 else SINGULAR.get(each.kind, KINDS[each.kind][0]),
                tone=KINDS[each.kind][1],
                count=each.count,
                before=describe(each.before, each.after),
                after=describe(each.after, each.before),
                examples=[_example(logged) for logged in each.examples],
            )
            for each in shown
        ],
        left_out=hidden,
        unrouted=comparison.unrouted,
        unreadable=comparison.unreadable,
        uncertain=comparison.uncertain,
    )


def _tile(kind: Kind, count: int, judged: int) -> Tile:
    words, tone = KINDS[kind]
    share = f"{100 * count / judged:.1f} %" if judged else ""
    return Tile(kind.value, words, tone, count, share)


def describe(fate: Fate, other: Fate) -> dict[str, Any]:
    """A fate as the table shows it beside another; the policy where they differ in it."""
    return {
        "refused": not fate.tiers,
        "code": fate.code,
        "rule": fate.rule,
        "told": fate.told,
        "tiers": [{"names": tier[:NAMES_SHOWN], "more": max(0, len(tier) - NAMES_SHOWN)} for tier in fate.tiers],
        "fallback": fate.fallback,
        "sent": fate.sent[:3],
        "policy": fate.policy if other.policy not in ("", fate.policy) else "",
    }


def _example(logged: Logged) -> dict[str, Any]:
    return {
        "key": logged.key,
        "ended": time_of_key(logged.key),
        "what": logged.model or f"{logged.method} {logged.path}",
        "client": logged.client,
    }
