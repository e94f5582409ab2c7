"""Changes of the routing rules: what the list would be after one, and making it so.

`foresee` is what a preview routes by, `make` what the buttons do; both place rules by the same `find_orders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import transaction

from endpoints.models import RoutingRule
from endpoints.records import build_rule
from endpoints.rule_draft import Draft
from endpoints.rules import Rule

_STEP_BETWEEN = 10  # the orders of rules that had to be numbered anew


class Step(StrEnum):
    """What can be done to a rule; SAVE is the admin's form."""

    UP = "up"
    DOWN = "down"
    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"
    SAVE = "save"


BUTTONS = frozenset(Step) - {Step.SAVE}


class OutdatedError(Exception):
    """The rules have changed since somebody saw them; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A stored rule at its place. `rule` is None where it cannot be used; `problem` then says why."""

    pk: int
    name: str
    order: int
    enabled: bool
    rule: Rule | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `past` is the rule a moved one goes past, as whoever asked for it saw the list."""

    step: Step
    pk: int = 0
    past: int = 0
    draft: Draft | None = None


def read_rows() -> list[RoutingRule]:
    """The stored rules in their order, disabled ones too; three queries."""
    return list(RoutingRule.objects.prefetch_related("conditions", "endpoints").order_by("order", "name"))


def place(row: RoutingRule) -> Placed:
    """A row with the rule it makes."""
    try:
        rule, problem = build_rule(row), ""
    except ValueError as error:  # stored past the form
        rule, problem = None, str(error)
    return Placed(row.pk, row.name, row.order, row.enabled, rule, problem)


def rules_of(placed: Sequence[Placed]) -> tuple[Rule, ...]:
    """What routing goes by: the enabled ones that can be used, in their order."""
    return tuple(each.rule for each in placed if each.enabled and each.rule is not None)


def foresee(placed: Sequence[Placed], change: Change) -> list[Placed]:
    """The list after a change. Raises OutdatedError."""
    if change.draft is not None:
        return _with_draft(placed, change.draft)
    index = _find(placed, change.pk)
    rows = list(placed)
    if change.step is Step.DELETE:
        del rows[index]
    elif change.step in (Step.ENABLE, Step.DISABLE):
        rows[index] = replace(rows[index], enabled=change.step is Step.ENABLE)
    else:
        rows = _moved(rows, index, change)
    return rows


def _find(placed: Sequence[Placed], pk: int) -> int:
    for index, each in enumerate(placed):
        if each.pk == pk:
            return index
    message = "That rule is not there any more."
    raise OutdatedError(message)


def _with_draft(placed: Sequence[Placed], draft: Draft) -> list[Placed]:
    new = Placed(draft.pk, draft.rule.name, draft.order, draft.enabled, draft.rule)
    if draft.pk:
        index = _find(placed, draft.pk)
        old = placed[index]
        if (old.order, old.name) == (new.order, new.name):
            return [*placed[:index], new, *placed[index + 1 :]]
    others = [each for each in placed if each.pk != draft.pk]
    before = sum((each.order, each.name) < (new.order, new.name) for each in others)
    return [*others[:before], new, *others[before:]]


def _moved(rows: list[Placed], index: int, change: Change) -> list[Placed]:
    other = index - 1 if change.step is Step.UP else index + 1
    if not 0 <= other < len(rows) or rows[other].pk != change.past:
        message = "The order has changed meanwhile. Look at the rules again."
        raise OutdatedError(message)
    rows[index], rows[other] = rows[other], rows[index]
    return [replace(each, order=order) for each, order in zip(rows, find_orders(rows), strict=True)]


def find_orders(rows: Sequence[Placed]) -> list[int]:
    """Order numbers that put rows where they stand: those there are, each its own place's; else all anew."""
    orders = sorted(each.order for each in rows)
    keys = [(order, each.name) for order, each in zip(orders, rows, strict=True)]
    if all(before < after for before, after in pairwise(keys)):
        return orders
    return [_STEP_BETWEEN * number for number in range(1, len(rows) + 1)]


def make(change: Change, user_pk: int) -> str:
    """Make a change and note it in the admin's history; what was done, in words. Raises OutdatedError."""
    with transaction.atomic():
        rows = read_rows()
        by_pk = {each.pk: each for each in rows}
        before = [place(each) for each in rows]
        after = foresee(before, change)
        row = by_pk[change.pk]
        if change.step is Step.DELETE:
            LogEntry.objects.log_actions(user_pk, [row], DELETION)
            row.delete()
            return f"{row.name} is deleted."
        if change.step in (Step.ENABLE, Step.DISABLE):
            return _switch(row, user_pk, enabled=change.step is Step.ENABLE)
        moved = [by_pk[each.pk] for each in after if by_pk[each.pk].order != each.order]
        for each in after:
            by_pk[each.pk].order = each.order
        RoutingRule.objects.bulk_update(moved, ["order"])
        _note(user_pk, row, f"Moved {change.step} past {by_pk[change.past].name}.")
        return f"{row.name} is now {_say_side(change.step)} {by_pk[change.past].name}."


def _switch(row: RoutingRule, user_pk: int, *, enabled: bool) -> str:
    word = "enabled" if enabled else "disabled"
    if row.enabled is enabled:
        return f"{row.name} was {word} already."
    RoutingRule.objects.filter(pk=row.pk).update(enabled=enabled)
    _note(user_pk, row, f"Rule {word}.")
    return f"{row.name} is {word}."


def _note(user_pk: int, row: RoutingRule, text: str) -> None:
    LogEntry.objects.log_actions(user_pk, [row], CHANGE, change_message=text)


def _say_side(step: Step) -> str:
    return "before" if step is Step.UP else "after"
