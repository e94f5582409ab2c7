"""What a routing rule, its conditions and a model alias must satisfy before they are saved, whoever saves them.

    review_rule       the action has the fields it needs and no others
    review_condition  one comparison makes sense
    review_alias      the targets are models

Nothing here touches the database: `Known` says what there is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from endpoints.findings import Finding, error, warning
from endpoints.profiles import PREFIXES
from endpoints.rules import (
    CAPABILITIES,
    Condition,
    ConditionField,
    Operator,
    RuleAction,
    Strategy,
    compile_glob,
    describe_bad_glob,
    parse_tags,
)
from endpoints.snapshot import UNIVERSAL, fold_model
from endpoints.write_only import is_header_name

GLOBS = (Operator.GLOB, Operator.NOT_GLOB)
KNOWN_PREFIXES = (UNIVERSAL, *PREFIXES)
# Every field of an action; the first group is needed, of `tags` and `endpoints` one is enough.
NAMING = ("tags", "endpoints")
NEEDED: Mapping[RuleAction, tuple[str, ...]] = {
    RuleAction.RESTRICT: NAMING,
    RuleAction.PREFER: NAMING,
    RuleAction.SPLIT: (*NAMING, "percentage"),
    RuleAction.REWRITE_MODEL: ("model",),
    RuleAction.POLICY: ("policy",),
    RuleAction.STRATEGY: ("strategy",),
    RuleAction.REJECT: (),
}
OPTIONAL: Mapping[RuleAction, tuple[str, ...]] = {
    RuleAction.STRATEGY: ("fallback",),
    RuleAction.REJECT: ("message",),
}
ACTION_FIELDS = {action: (*NEEDED[action], *OPTIONAL.get(action, ())) for action in RuleAction}


@dataclass(frozen=True, slots=True)
class Known:
    """What there is now: models by folded name, aliases by folded name with their targets, tags."""

    models: frozenset[str]
    aliases: Mapping[str, tuple[str, ...]]
    tags: frozenset[str]

    def has_model(self, name: str) -> bool:
        """Whether an endpoint lists it."""
        return fold_model(name) in self.models


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A rule as somebody wants it; absent fields are empty."""

    action: RuleAction
    tags: str = ""
    endpoints: bool = False  # whether any is named
    model: str = ""
    policy: str = ""
    strategy: str = ""
    fallback: str = ""
    percentage: int | None = None
    message: str = ""

    def is_set(self, field: str) -> bool:
        """Whether a field has a value."""
        return getattr(self, field) not in ("", None, False)


def review_rule(draft: RuleDraft, known: Known) -> Iterator[Finding]:
    """Errors and warnings of a rule's own fields."""
    yield from _check_needed(draft)
    yield from _check_foreign(draft)
    if draft.action is RuleAction.SPLIT and draft.percentage is not None and not 1 <= draft.percentage <= 99:
        yield error("percentage", "Enter a percentage from 1 to 99.")
    if draft.strategy == Strategy.STRICT and draft.fallback:
        yield error("fallback", "The strict strategy has no fallback: leave this empty.")
    if draft.model and not known.has_model(draft.model) and fold_model(draft.model) not in known.aliases:
        yield warning("model", f"No endpoint lists the model {draft.model} now, and no alias has this name.")
    yield from check_tags("tags", draft.tags)
    missing = sorted(parse_tags(draft.tags) - known.tags)
    if missing:
        yield warning("tags", f"No endpoint has the tag {', '.join(missing)} now.")


def _check_needed(draft: RuleDraft) -> Iterator[Finding]:
    needed = NEEDED[draft.action]
    if needed[:2] == NAMING and not draft.tags.strip(" ,") and not draft.endpoints:
        yield error("tags", "This action needs tags or endpoints: say which endpoints it is about.")
    for field in needed:
        if field not in NAMING and not draft.is_set(field):
            yield error(field, "This action needs a value here.")


def _check_foreign(draft: RuleDraft) -> Iterator[Finding]:
    own = ACTION_FIELDS[draft.action]
    for field in sorted({each for fields in ACTION_FIELDS.values() for each in fields} - set(own)):
        if draft.is_set(field):
            yield error(field, "The chosen action does not use this: leave it empty, or choose another action.")


def tidy_tags(text: str) -> str:
    """Tags as they are stored: each once, small letters, in the order typed."""
    return ", ".join(dict.fromkeys(tag.strip().casefold() for tag in text.split(",") if tag.strip()))


def check_tags(field: str, text: str) -> Iterator[Finding]:
    """Tags are words separated by commas."""
    if not text.isprintable():
        yield error(field, "A tag contains a line break or another control character.")


# ------------------------------------------------------------------------------------------------ conditions


def review_condition(condition: Condition) -> Iterator[Finding]:
    """Errors and warnings of one comparison."""
    if condition.field is ConditionField.HEADER:
        if not is_header_name(condition.header):
            yield error("header", "Enter the name of a header: letters, digits and - only, for example X-Team.")
    elif condition.header:
        yield error("header", "Only the field Header has a header name: leave it empty.")
    if not condition.value.isprintable():
        yield error("value", "The value contains a control character.")
    elif condition.field is ConditionField.CLIENT_NETWORK:
        yield from _check_network(condition)
    elif condition.operator in GLOBS:
        yield from _check_glob(condition)
    else:
        yield from _check_text(condition)


def _check_network(condition: Condition) -> Iterator[Finding]:
    if condition.operator in GLOBS:
        yield error("operator", "A network is compared with is or is not.")
    try:
        ipaddress.ip_network(condition.value, strict=False)
    except ValueError:
        yield error("value", "Enter a network such as 10.1.0.0/16 or fd00::/8, or one IP address.")


def _check_glob(condition: Condition) -> Iterator[Finding]:
    fault = describe_bad_glob(condition.value)
    if fault:
        yield error("value", fault)
        return
    names = _closed_set(condition.field)
    if names and not any(compile_glob(condition.value).match(name) for name in names):
        yield error("value", f"This matches none of: {', '.join(names)}.")


def _check_text(condition: Condition) -> Iterator[Finding]:
    names = _closed_set(condition.field)
    if names and condition.value.casefold() not in names:
        yield error("value", f"There is no such {condition.field.value}. Known are: {', '.join(names)}.")
    elif not names and ("*" in condition.value or "?" in condition.value):
        yield warning("value", f"{condition.value}: is compares the whole text. For a pattern choose matches.")
    if condition.field is ConditionField.PATH and not condition.value.startswith("/"):
        yield error("value", "A path begins with /, for example /v1/embeddings (without /olla and the prefix).")


def _closed_set(field: ConditionField) -> tuple[str, ...]:
    if field is ConditionField.PREFIX:
        return KNOWN_PREFIXES
    return CAPABILITIES if field is ConditionField.CAPABILITY else ()


# --------------------------------------------------------------------------------------------------- aliases


def review_alias(name: str, targets: tuple[str, ...], known: Known) -> Iterator[Finding]:
    """Errors and warnings of an alias; `known.aliases` holds the others."""
    if not name.isprintable():
        yield error("name", "The name contains a control character.")
    folded = [fold_model(target) for target in targets]
    if known.has_model(name) and fold_model(name) not in folded:
        yield warning(
            "name",
            f"{name} is also a real model. Requests for it now go to the targets; add it to them to keep it.",
        )
    for position, target in enumerate(targets):
        if folded[position] in folded[:position]:
            yield warning("targets", f"{target} was listed more than once; the first place counts.")
        elif not target.isprintable():
            yield error("targets", "A target contains a control character.")
        elif not known.has_model(target):
            yield _judge_unknown(target, known)


def _judge_unknown(target: str, known: Known) -> Finding:
    others = known.aliases.get(fold_model(target))
    if others is not None:
        return error(
            "targets",
            f"{target} is itself an alias, and aliases of aliases are not followed. "
            f"Write its models instead: {', '.join(others)}.",
        )
    return warning("targets", f"No endpoint lists the model {target} now.")
