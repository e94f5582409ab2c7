"""A routing rule in words, for lists and traces. (pure)

when model matches llama* and header X-Team is blue: only endpoints tagged gpu
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from endpoints.rules import Condition, ConditionField, Operator, Rule, RuleAction

FIELD_WORDS = {
    ConditionField.MODEL: "model",
    ConditionField.PREFIX: "prefix",
    ConditionField.PATH: "path",
    ConditionField.CLIENT_NETWORK: "client network",
    ConditionField.CLIENT_KEY: "client key",
    ConditionField.CLIENT_GROUP: "client group",
    ConditionField.CAPABILITY: "capability",
}
OPERATOR_WORDS = {
    Operator.IS: "is",
    Operator.IS_NOT: "is not",
    Operator.GLOB: "matches",
    Operator.NOT_GLOB: "does not match",
}


# The endpoints a rule named were deleted; its form takes no such rule.
NOBODY_LEFT = "broken: it names no endpoint any more, so every request it matches is refused"


def describe_rule(rule: Rule, endpoint_names: Mapping[int, str]) -> str:
    """The rule as one sentence; `endpoint_names` tells the endpoints it names."""
    return f"{describe_conditions(rule.conditions)}: {describe_action(rule, endpoint_names)}"


def describe_conditions(conditions: Iterable[Condition]) -> str:
    """When the rule applies."""
    words = " and ".join(_describe_condition(each) for each in conditions)
    return f"when {words}" if words else "always"


def _describe_condition(condition: Condition) -> str:
    field = (
        f"header {condition.header}" if condition.field is ConditionField.HEADER else FIELD_WORDS[condition.field]
    )
    return f"{field} {OPERATOR_WORDS[condition.operator]} {condition.value}"


def describe_action(rule: Rule, endpoint_names: Mapping[int, str]) -> str:
    """What the rule then does."""
    named = _describe_named(rule, endpoint_names)
    match rule.action:
        case RuleAction.RESTRICT:
            return f"only {named}" if rule.tags or rule.endpoint_ids else NOBODY_LEFT
        case RuleAction.PREFER:
            return f"first {named}"
        case RuleAction.SPLIT:
            return f"{rule.percentage} % to {named}, the rest to the others"
        case RuleAction.REWRITE_MODEL:
            return f"send model {rule.model}"
        case RuleAction.POLICY:
            return f"choose by {rule.policy}"
        case RuleAction.STRATEGY:
            return f"strategy {rule.strategy}" + (f", fallback {rule.fallback}" if rule.fallback else "")
        case RuleAction.REJECT:
            return f"refuse: {rule.message}" if rule.message else "refuse"


def _describe_named(rule: Rule, endpoint_names: Mapping[int, str]) -> str:
    parts = []
    if rule.tags:
        parts.append(f"tagged {' or '.join(sorted(rule.tags))}")
    if rule.endpoint_ids:
        parts.append(", ".join(sorted(endpoint_names.get(each, str(each)) for each in rule.endpoint_ids)))
    return f"endpoints {' or '.join(parts)}" if parts else "no endpoint at all"
