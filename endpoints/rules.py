"""Routing rules as data: which requests one applies to, and what it then does. (pure)

A closed set of fields and operators, no code and no expressions. Rules are tried in order; the first whose
conditions all hold wins. Patterns are globs without regard to case.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache


class RuleAction(StrEnum):
    """What a rule does to the requests it matches."""

    RESTRICT = "restrict"
    PREFER = "prefer"
    REWRITE_MODEL = "rewrite_model"
    POLICY = "policy"
    STRATEGY = "strategy"
    SPLIT = "split"
    REJECT = "reject"


class Policy(StrEnum):
    """The load-balancing policies an operator can name."""

    LEAST_CONNECTIONS = "least-connections"
    PRIORITY = "priority"
    ROUND_ROBIN = "round-robin"


class Strategy(StrEnum):
    """What to do when no endpoint that has the model can answer. ALIAS is how a resolved alias reports itself."""

    STRICT = "strict"
    OPTIMISTIC = "optimistic"
    DISCOVERY = "discovery"
    ALIAS = "alias"


class Fallback(StrEnum):
    """Where the optimistic and discovery strategies may send a request whose model is not available."""

    COMPATIBLE_ONLY = "compatible_only"
    ALL = "all"
    NONE = "none"


# What a condition on capabilities may name: what requests are looked at for.
CAPABILITIES = ("tools", "vision", "embeddings")
# What an operator may choose.
RULE_STRATEGIES = (Strategy.STRICT, Strategy.OPTIMISTIC, Strategy.DISCOVERY)


class ConditionField(StrEnum):
    """What of a request a condition looks at."""

    MODEL = "model"
    PREFIX = "prefix"
    PATH = "path"
    HEADER = "header"
    CLIENT_NETWORK = "client_network"
    CLIENT_KEY = "client_key"
    CLIENT_GROUP = "client_group"
    CAPABILITY = "capability"


class Operator(StrEnum):
    """How a condition compares."""

    IS = "is"
    IS_NOT = "is_not"
    GLOB = "glob"
    NOT_GLOB = "not_glob"


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """What conditions are judged on. Absent values are empty; header names are lower case."""

    model: str = ""
    prefix: str = ""
    path: str = ""
    headers: Mapping[str, Sequence[str]] | None = None
    client: str = ""
    client_key: str = ""
    client_groups: Collection[str] = ()
    capabilities: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; `header` names the header for field HEADER."""

    field: ConditionField
    operator: Operator
    value: str
    header: str = ""

    def holds(self, facts: RuleFacts) -> bool:
        """Whether the request meets it. A negated operator holds when no value of the field compares equal."""
        found = any(self._equals(value) for value in self._values(facts))
        return found != (self.operator in (Operator.IS_NOT, Operator.NOT_GLOB))

    def _values(self, facts: RuleFacts) -> Collection[str]:
        match self.field:
            case ConditionField.HEADER:
                return (facts.headers or {}).get(self.header.lower(), ())
            case ConditionField.CLIENT_GROUP:
                return facts.client_groups
            case ConditionField.CAPABILITY:
                return facts.capabilities
            case _:
                single = {
                    ConditionField.MODEL: facts.model,
                    ConditionField.PREFIX: facts.prefix,
                    ConditionField.PATH: facts.path,
                    ConditionField.CLIENT_NETWORK: facts.client,
                    ConditionField.CLIENT_KEY: facts.client_key,
                }[self.field]
                return (single,) if single else ()

    def _equals(self, value: str) -> bool:
        if self.field is ConditionField.CLIENT_NETWORK:
            return is_in_network(value, self.value)
        if self.operator in (Operator.GLOB, Operator.NOT_GLOB):
            return compile_glob(self.value).match(value.casefold()) is not None
        return value.casefold() == self.value.casefold()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its typed fields; which of them count is decided by the action."""

    name: str
    action: RuleAction
    conditions: tuple[Condition, ...] = ()
    tags: frozenset[str] = frozenset()
    endpoint_ids: frozenset[int] = frozenset()
    model: str = ""
    policy: str = ""
    strategy: str = ""
    fallback: str = ""
    percentage: int = 0
    message: str = ""

    def matches(self, facts: RuleFacts) -> bool:
        """Whether all conditions hold; a rule without conditions matches everything."""
        return all(condition.holds(facts) for condition in self.conditions)

    def names(self, endpoint_id: int, tags: Collection[str]) -> bool:
        """Whether an endpoint is one of those the rule speaks of."""
        return endpoint_id in self.endpoint_ids or not self.tags.isdisjoint(tags)


def parse_tags(text: str) -> frozenset[str]:
    """Tags as typed, separated by commas; letter case does not count."""
    return frozenset(tag.strip().casefold() for tag in text.split(",") if tag.strip())


def choose_rule(rules: Sequence[Rule], facts: RuleFacts) -> Rule | None:
    """The first matching rule."""
    return next((rule for rule in rules if rule.matches(facts)), None)


_BALANCED = re.compile(r"(?:[^\[\]]|\[[^\[\]]+\])*")


def describe_bad_glob(pattern: str) -> str:
    """What is wrong with a glob for people to read; empty when nothing is."""
    if "**" in pattern:
        return f"{pattern}: ** is not a pattern here; a single * already matches everything."
    if not _BALANCED.fullmatch(pattern):
        return f"{pattern}: every [ needs its ] with at least one character between."
    return ""


@lru_cache(maxsize=2048)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """A glob over case-folded text; `*` also crosses slashes."""
    return re.compile(translate(pattern.casefold()))


@lru_cache(maxsize=2048)
def is_in_network(address: str, network: str) -> bool:
    """Whether an IP address lies in a network (CIDR or single address); False when either is not one."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
