"""The whole story of a decision: every endpoint, why it was kept or dropped, and the order of tries. (pure)

Rebuilt on demand by running the stages of `proxy.sieve` over every endpoint there is.
"""

from __future__ import annotations

from dataclasses import dataclass

from endpoints.rules import RuleAction
from endpoints.snapshot import EndpointRecord, Snapshot
from proxy.inbound import Inbound
from proxy.routing import Decision, rule_facts
from proxy.sieve import AVAILABILITY, ELIGIBILITY, DropReason, LiveView, Question


@dataclass(frozen=True, slots=True)
class Considered:
    """One endpoint of a trace: `order` counts tiers from 1 for the ones that may be tried, 0 for the others."""

    endpoint: EndpointRecord
    dropped: DropReason | None
    order: int
    sent_name: str | None
    loaded_first: bool = False  # preferred for having the model in memory


@dataclass(frozen=True, slots=True)
class Trace:
    """A decision and everyone it considered, in the order of the snapshot; `rules` are those that were asked."""

    decision: Decision
    considered: tuple[Considered, ...]
    rules: tuple[tuple[str, bool], ...]  # name, whether it matched
    revision: int = 0  # of the snapshot

    @property
    def is_split(self) -> bool:
        """Whether chance had a part: a rule shares requests out by percentage."""
        rule = self.decision.rule
        return rule is not None and rule.action is RuleAction.SPLIT


def trace(snapshot: Snapshot, inbound: Inbound, view: LiveView, decision: Decision) -> Trace:
    """Tell a decision that `route` made of the same snapshot, request and view."""
    dropped: dict[int, DropReason] = {}
    members = snapshot.by_prefix.get(inbound.prefix, ())
    inside = {each.id for each in members}
    for each in snapshot.endpoints:
        if each.id not in inside:
            dropped[each.id] = DropReason.OTHER_KIND
    question = Question(inbound, view, decision.rule, decision.native_names, decision.capabilities)
    remaining = members
    for reason, stage in (*ELIGIBILITY, *AVAILABILITY):
        kept = stage(remaining, question)
        staying = {each.id for each in kept}
        dropped.update((each.id, reason) for each in remaining if each.id not in staying)
        remaining = kept
    order = {each.id: number for number, tier in enumerate(decision.tiers, 1) for each in tier}
    considered = tuple(
        Considered(
            each,
            dropped.get(each.id),
            order.get(each.id, 0),
            decision.sent_names.get(each.id),
            each.id in decision.loaded,
        )
        for each in snapshot.endpoints
    )
    facts = rule_facts(inbound)
    asked = []
    for rule in snapshot.rules:
        asked.append((rule.name, rule.matches(facts)))
        if asked[-1][1]:
            break
    return Trace(decision, considered, tuple(asked), snapshot.revision)
