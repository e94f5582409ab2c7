"""Logged requests routed again, by the rules there are and by others: who would be asked then. (pure)

    comparison = Comparison(before, after, view, defaults)
    comparison.take(logged)          for each request
    comparison.tally, .groups        what would change

Both sides are judged by `proxy.routing.route` with the same view and the same dice. The log holds neither headers
nor bodies: a request whose rule turns on those is counted as uncertain, and judged as if it had sent none.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote

import msgspec
from msgspec.structs import replace as replace_struct

from endpoints.profiles import PREFIXES
from endpoints.rules import Condition, ConditionField, Policy, Rule, RuleAction, RuleFacts
from endpoints.snapshot import ANTHROPIC, EMPTY, UNIVERSAL, Snapshot
from proxy.capabilities import EMBEDDINGS, TOOLS, VISION
from proxy.decision import Action, Decision, Plan
from proxy.errors import OllaError, choose_shape
from proxy.inbound import BodyFacts, Inbound, parse_target
from proxy.routing import route, rule_facts
from proxy.sieve import LiveView

# Columns of the log; what filled one may have been cut.
LONGEST_PATH = 1024
LONGEST_MODEL = 200
EXAMPLES = 3
MOST_GROUPS = 400  # pairs of outcomes told apart; further ones count without a group of their own
_MESSAGES = "/v1/messages"  # what rules and guards judge of every request of that API


class Logged(msgspec.Struct, frozen=True):
    """A request as the log has it; `path` decoded, as the client sent it."""

    key: int
    method: str
    path: str
    provider: str
    model: str
    client: str
    unrouted: bool = False  # refused before it came to routing


class Kind(StrEnum):
    """What a change of the rules does to a request."""

    SAME = "same"
    MOVED = "moved"  # other endpoints, or in another order
    REFUSED = "refused"  # answered before, refused then
    ANSWERED = "answered"  # refused before, answered then
    OTHER = "other"  # the same endpoints otherwise: another model, policy or message


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the settings ask for: the plan, the same once models were read anew, the policy."""

    plan: Plan
    refreshed: Plan
    policy: str = Policy.LEAST_CONNECTIONS.value


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request, as far as two of them are told apart."""

    tiers: tuple[tuple[str, ...], ...] = ()  # names of endpoints, in the order of the tiers
    fallback: bool = False
    sent: tuple[str, ...] = ()  # other model names than the one asked for
    policy: str = ""
    code: str = ""
    rule: str = ""  # the rule that refuses
    told: str = ""  # its own message

    @property
    def endpoints(self) -> frozenset[str]:
        """Everybody who may be asked."""
        return frozenset(name for tier in self.tiers for name in tier)


def reroute(snapshot: Snapshot, inbound: Inbound, view: LiveView, defaults: Defaults) -> Fate:
    """What becomes of a request by a snapshot's rules; where models would be read anew, if that finds nothing."""
    decision = route(snapshot, inbound, view, defaults.plan)
    if decision.refresh:
        decision = route(snapshot, inbound, view, defaults.refreshed)
    return read_fate(decision, defaults)


def read_fate(decision: Decision, defaults: Defaults) -> Fate:
    """A decision's fate."""
    rule = decision.rule
    if decision.action is Action.REJECTED:
        own = rule is not None and rule.action is RuleAction.REJECT
        return Fate(
            code=decision.code.value if decision.code else "",
            rule=rule.name if rule is not None and decision.reason == "forbidden_by_rule" else "",
            told=decision.message if own else "",
        )
    return Fate(
        tiers=tuple(tuple(each.name for each in tier) for tier in decision.tiers),
        fallback=decision.action is Action.FALLBACK,
        sent=tuple(dict.fromkeys(decision.sent_names.values())),
        policy=rule.policy if rule is not None and rule.action is RuleAction.POLICY else defaults.policy,
    )


def tell_apart(before: Fate, after: Fate) -> Kind:
    """What the difference between two fates is called."""
    if before == after:
        return Kind.SAME
    if bool(before.tiers) is not bool(after.tiers):
        return Kind.ANSWERED if after.tiers else Kind.REFUSED
    return Kind.OTHER if before.tiers == after.tiers else Kind.MOVED


# -------------------------------------------------------------------------------------------- from log to request


def build_logged(logged: Logged) -> Inbound | None:
    """The request again, as far as the log knows it; None where it was cut or would not come to routing."""
    prefix = logged.provider
    if logged.unrouted or (prefix not in (UNIVERSAL, ANTHROPIC) and prefix not in PREFIXES):
        return None
    if len(logged.path) >= LONGEST_PATH or len(logged.model) >= LONGEST_MODEL:
        return None
    parts = logged.path.split("/", 3)
    if len(parts) < 3 or parts[1] != "olla":
        return None
    try:
        path, decoded = _aim(prefix, f"/{parts[3]}" if len(parts) > 3 else "/")
    except OllaError:
        return None
    return Inbound(
        method=logged.method,
        prefix=prefix,
        path=path,
        decoded_path=decoded,
        query=b"",
        headers=[],
        body=b"",
        facts=BodyFacts(model=logged.model or None, is_json=bool(logged.model)),
        client=logged.client,
        scheme="http",
        host="",
        request_id="",
        started=0.0,
        shape=choose_shape(logged.path),
    )


def _aim(prefix: str, rest: str) -> tuple[str, str]:
    if prefix == ANTHROPIC:
        return _MESSAGES, _MESSAGES
    return parse_target(quote(rest).encode())


def throw_dice(key: int) -> float:
    """A request's own dice, the same whenever it is asked for: 0 to below 1."""
    return random.Random(key).random()  # noqa: S311 - sharing out requests, not secrets


# ------------------------------------------------------------------------------------------- what the log lacks


def turns_on_unknown(rules: Sequence[Rule], facts: RuleFacts) -> bool:
    """Whether which rule applies depends on headers or on what a body needs, which the log does not hold."""
    for rule in rules:
        unknown = [each for each in rule.conditions if _is_unknown(each, facts)]
        if all(each.holds(facts) for each in rule.conditions if each not in unknown):
            return bool(unknown)
    return False


def _is_unknown(condition: Condition, facts: RuleFacts) -> bool:
    if condition.field is ConditionField.HEADER:
        return True
    if condition.field is not ConditionField.CAPABILITY:
        return False
    known = condition.holds(facts)
    # Embeddings show by the path; what asks for them is not looked at for images.
    unseen = (TOOLS,) if EMBEDDINGS in facts.capabilities else (TOOLS, VISION)
    return any(
        condition.holds(replace(facts, capabilities={*facts.capabilities, each})) is not known for each in unseen
    )


def looks_at_unknown(rule: Rule) -> bool:
    """Whether a rule has a condition on what the log does not hold."""
    return any(_is_unknown(each, RuleFacts()) for each in rule.conditions)


# -------------------------------------------------------------------------------------------------- comparison


@dataclass(slots=True)
class Group:
    """Requests that would go from one fate to another; a few of them as examples."""

    kind: Kind
    before: Fate
    after: Fate
    count: int = 0
    examples: list[Logged] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """Requests routed twice, counted by what became of them.

    The snapshots must be copies nobody else routes by: what they settle is written from another thread.
    """

    before: Snapshot
    after: Snapshot
    view: LiveView
    defaults: Defaults
    tally: Counter[Kind] = field(default_factory=Counter)
    groups: dict[tuple[Fate, Fate], Group] = field(default_factory=dict)
    judged: int = 0
    unrouted: int = 0  # refused before routing: rules have no part in them
    unreadable: int = 0  # cut by the log, or no longer an address of this server
    uncertain: int = 0
    grouped_elsewhere: int = 0
    _may_be_uncertain: bool = False

    def __post_init__(self) -> None:
        self._may_be_uncertain = any(looks_at_unknown(each) for each in (*self.before.rules, *self.after.rules))

    def take(self, logged: Logged) -> Kind | None:
        """Judge one request both ways; None for one that cannot be."""
        inbound = build_logged(logged)
        if inbound is None:
            self.unrouted += logged.unrouted
            self.unreadable += not logged.unrouted
            return None
        view = replace_struct(self.view, dice=throw_dice(logged.key))
        before = reroute(self.before, inbound, view, self.defaults)
        after = reroute(self.after, inbound, view, self.defaults)
        self.judged += 1
        self.uncertain += self._may_be_uncertain and self._turns_on_unknown(inbound)
        kind = tell_apart(before, after)
        self.tally[kind] += 1
        if kind is not Kind.SAME:
            self._note(kind, before, after, logged)
        return kind

    def _turns_on_unknown(self, inbound: Inbound) -> bool:
        facts = rule_facts(inbound)
        return any(turns_on_unknown(each.rules, facts) for each in (self.before, self.after))

    def _note(self, kind: Kind, before: Fate, after: Fate, logged: Logged) -> None:
        group = self.groups.get((before, after))
        if group is None:
            if len(self.groups) >= MOST_GROUPS:
                self.grouped_elsewhere += 1
                return
            group = self.groups[before, after] = Group(kind, before, after)
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(logged)

    def let_go(self) -> None:
        """Drop the snapshots: there is nothing more to judge."""
        self.before = self.after = EMPTY

    def ordered(self) -> list[Group]:
        """The groups, the largest first; newly refused before others of the same size."""
        return sorted(self.groups.values(), key=lambda each: (-each.count, each.kind is not Kind.REFUSED))


def with_rules(snapshot: Snapshot, rules: Sequence[Rule]) -> Snapshot:
    """The snapshot with other rules, and nothing settled yet."""
    return replace(snapshot, rules=tuple(rules), settled={}, lists={})
