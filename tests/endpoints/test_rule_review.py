"""Rules for rules: which fields an action needs, what a condition may say, what an alias may name."""

from __future__ import annotations

from typing import Any

import pytest

from endpoints.findings import Severity
from endpoints.rule_review import ACTION_FIELDS, Known, RuleDraft, review_alias, review_condition, review_rule
from endpoints.rule_words import describe_rule
from endpoints.rules import Condition, ConditionField, Operator, Rule, RuleAction

KNOWN = Known(
    models=frozenset({"llama3:8b", "qwen3"}),
    aliases={"fast": ("llama3:8b", "qwen3")},
    tags=frozenset({"gpu", "on-site"}),
)
FILLED: dict[RuleAction, dict[str, Any]] = {
    RuleAction.RESTRICT: {"tags": "gpu"},
    RuleAction.PREFER: {"endpoints": True},
    RuleAction.SPLIT: {"tags": "gpu, On-Site", "percentage": 10},
    RuleAction.REWRITE_MODEL: {"model": "Qwen3"},
    RuleAction.POLICY: {"policy": "round-robin"},
    RuleAction.STRATEGY: {"strategy": "optimistic", "fallback": "all"},
    RuleAction.REJECT: {"message": "Not today."},
}
ANY_VALUE = {
    "tags": "gpu", "endpoints": True, "model": "qwen3", "policy": "priority", "strategy": "strict",
    "fallback": "all", "percentage": 5, "message": "no",
}  # fmt: skip
FOREIGN = [(action, field) for action in RuleAction for field in ANY_VALUE if field not in ACTION_FIELDS[action]]


def errors(findings) -> list[tuple[str, str]]:
    return [(each.field, each.message) for each in findings if each.severity is Severity.ERROR]


def warnings(findings) -> list[str]:
    return [each.message for each in findings if each.severity is Severity.WARNING]


@pytest.mark.parametrize("action", RuleAction)
def test_it_takes_an_action_with_its_fields(action):
    assert list(review_rule(RuleDraft(action, **FILLED[action]), KNOWN)) == []


@pytest.mark.parametrize(("action", "field"), FOREIGN)
def test_it_refuses_a_field_of_another_action(action, field):
    draft = RuleDraft(action, **{**FILLED[action], field: ANY_VALUE[field]})

    found = errors(review_rule(draft, KNOWN))

    assert [name for name, _ in found] == [field]
    assert "does not use this" in found[0][1]


@pytest.mark.parametrize(
    ("action", "field"),
    [
        (RuleAction.RESTRICT, "tags"),
        (RuleAction.PREFER, "tags"),
        (RuleAction.REWRITE_MODEL, "model"),
        (RuleAction.POLICY, "policy"),
        (RuleAction.STRATEGY, "strategy"),
    ],
)
def test_it_refuses_an_action_without_what_it_needs(action, field):
    assert [name for name, _ in errors(review_rule(RuleDraft(action), KNOWN))] == [field]


def test_it_refuses_a_split_without_endpoints_and_percentage():
    found = errors(review_rule(RuleDraft(RuleAction.SPLIT, tags=" , "), KNOWN))

    assert [name for name, _ in found] == ["tags", "percentage"]


@pytest.mark.parametrize("percentage", [-1, 0, 100, 1000])
def test_it_refuses_a_percentage_that_is_none_or_all(percentage):
    draft = RuleDraft(RuleAction.SPLIT, tags="gpu", percentage=percentage)

    assert ("percentage", "Enter a percentage from 1 to 99.") in errors(review_rule(draft, KNOWN))


def test_it_refuses_a_fallback_of_the_strict_strategy():
    draft = RuleDraft(RuleAction.STRATEGY, strategy="strict", fallback="all")

    assert [name for name, _ in errors(review_rule(draft, KNOWN))] == ["fallback"]


def test_it_warns_of_tags_and_models_nobody_has():
    tags = list(review_rule(RuleDraft(RuleAction.RESTRICT, tags="GPU, attic"), KNOWN))
    model = list(review_rule(RuleDraft(RuleAction.REWRITE_MODEL, model="gpt-9"), KNOWN))

    assert warnings(tags) == ["No endpoint has the tag attic now."]
    assert warnings(model) == ["No endpoint lists the model gpt-9 now, and no alias has this name."]
    assert errors([*tags, *model]) == []


def test_it_takes_an_alias_as_the_model_to_send():
    assert list(review_rule(RuleDraft(RuleAction.REWRITE_MODEL, model="FAST"), KNOWN)) == []


# ------------------------------------------------------------------------------------------------ conditions


def condition(field: str, operator: str, value: str, header: str = "") -> Condition:
    return Condition(ConditionField(field), Operator(operator), value, header)


@pytest.mark.parametrize(
    "good",
    [
        condition("model", "is", "llama3:8b"),
        condition("model", "glob", "llama*[78]b"),
        condition("model", "not_glob", "gpt-?"),
        condition("prefix", "is", "openai"),
        condition("prefix", "is_not", "Proxy"),
        condition("prefix", "glob", "open*"),
        condition("path", "is", "/v1/embeddings"),
        condition("path", "glob", "*/chat/*"),
        condition("header", "is", "blue, green", "X-Team"),
        condition("header", "glob", "*", "User-Agent"),
        condition("client_network", "is", "10.1.0.0/16"),
        condition("client_network", "is_not", "fd00::1"),
        condition("capability", "is", "vision"),
    ],
)
def test_it_takes_a_condition(good):
    assert list(review_condition(good)) == []


@pytest.mark.parametrize(
    ("bad", "field", "said"),
    [
        (condition("model", "glob", "llama**"), "value", "a single * already"),
        (condition("model", "glob", "llama[3"), "value", "every [ needs its ]"),
        (condition("model", "is", "llama3", "X-Team"), "header", "Only the field Header"),
        (condition("header", "is", "blue"), "header", "Enter the name of a header"),
        (condition("header", "is", "blue", "X Team"), "header", "Enter the name of a header"),
        (condition("header", "is", "blue", "X-Team:"), "header", "Enter the name of a header"),
        (condition("header", "is", "bl\nue", "X-Team"), "value", "control character"),
        (condition("client_network", "is", "10.1.0.0/33"), "value", "Enter a network"),
        (condition("client_network", "is", "example.org"), "value", "Enter a network"),
        (condition("client_network", "glob", "10.1.0.0/16"), "operator", "is or is not"),
        (condition("prefix", "is", "/olla/openai"), "value", "There is no such prefix"),
        (condition("prefix", "glob", "/openai*"), "value", "This matches none of"),
        (condition("capability", "is", "flying"), "value", "There is no such capability"),
        (condition("path", "is", "v1/chat"), "value", "A path begins with /"),
    ],
)
def test_it_refuses_a_condition_and_says_why(bad, field, said):
    found = errors(review_condition(bad))

    assert [name for name, _ in found] == [field]
    assert said in found[0][1]


def test_it_warns_of_a_pattern_compared_as_text():
    found = list(review_condition(condition("model", "is", "llama*")))

    assert warnings(found) == ["llama*: is compares the whole text. For a pattern choose matches."]


# --------------------------------------------------------------------------------------------------- aliases


def test_it_takes_an_alias_of_known_models():
    assert list(review_alias("chat", ("llama3:8b", "QWEN3"), KNOWN)) == []


def test_it_explains_that_aliases_of_aliases_are_not_followed():
    assert errors(review_alias("chat", ("Fast",), KNOWN)) == [
        (
            "targets",
            "Fast is itself an alias, and aliases of aliases are not followed. "
            "Write its models instead: llama3:8b, qwen3.",
        )
    ]


def test_it_warns_of_unknown_and_repeated_targets():
    assert warnings(review_alias("chat", ("gpt-9", "qwen3", "Qwen3"), KNOWN)) == [
        "No endpoint lists the model gpt-9 now.",
        "Qwen3 was listed more than once; the first place counts.",
    ]


def test_it_warns_of_an_alias_that_hides_a_real_model():
    assert "is also a real model" in warnings(review_alias("qwen3", ("llama3:8b",), KNOWN))[0]
    assert list(review_alias("qwen3", ("qwen3", "llama3:8b"), KNOWN)) == []


@pytest.mark.parametrize(("name", "target", "field"), [("a\tb", "qwen3", "name"), ("a", "qw\x00en", "targets")])
def test_it_refuses_control_characters_in_names(name, target, field):
    assert field in [each for each, _ in errors(review_alias(name, (target,), KNOWN))]


# ----------------------------------------------------------------------------------------------------- words

WHEN = (condition("model", "glob", "llama*"), condition("header", "is", "blue", "X-Team"))
GPU = frozenset({"gpu"})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            Rule("r", RuleAction.RESTRICT, WHEN, tags=GPU),
            "when model matches llama* and header X-Team is blue: only endpoints tagged gpu",
        ),
        (
            Rule("r", RuleAction.PREFER, tags=frozenset({"b", "a"}), endpoint_ids=frozenset({7})),
            "always: first endpoints tagged a or b or gpu-7",
        ),
        (
            Rule("r", RuleAction.SPLIT, tags=GPU, percentage=5),
            "always: 5 % to endpoints tagged gpu, the rest to the others",
        ),
        (Rule("r", RuleAction.REWRITE_MODEL, model="qwen3"), "always: send model qwen3"),
        (Rule("r", RuleAction.POLICY, policy="priority"), "always: choose by priority"),
        (Rule("r", RuleAction.STRATEGY, strategy="discovery"), "always: strategy discovery"),
        (
            Rule("r", RuleAction.STRATEGY, strategy="optimistic", fallback="all"),
            "always: strategy optimistic, fallback all",
        ),
        (Rule("r", RuleAction.REJECT), "always: refuse"),
        (Rule("r", RuleAction.REJECT, message="No."), "always: refuse: No."),
        (
            Rule("r", RuleAction.RESTRICT),
            "always: broken: it names no endpoint any more, so every request it matches is refused",
        ),
        (
            Rule("r", RuleAction.REJECT, (condition("client_network", "is_not", "10.0.0.0/8"),)),
            "when client network is not 10.0.0.0/8: refuse",
        ),
    ],
)  # fmt: skip
def test_it_tells_a_rule_in_words(rule, words):
    assert describe_rule(rule, {7: "gpu-7"}) == words
