"""A routing rule as the admin's form has it, before anybody saves it: the rule, or what is wrong with the form.

The form, its rows and its checks are the admin's own, so that what can be tried is what can be saved. Nothing is
stored: the rows live and end in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from endpoints.models import RoutingRule
from endpoints.records import make_rule
from endpoints.rules import Rule


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule that is not saved. `pk` is that of the stored one it would replace; 0 for a new one."""

    pk: int
    order: int
    enabled: bool
    rule: Rule
    endpoint_names: tuple[tuple[int, str], ...] = ()
    warnings: tuple[str, ...] = ()


def read_draft(desk: Any, request: HttpRequest, stored: RoutingRule | None) -> tuple[Draft | None, list[str]]:
    """The rule of a form posted to `desk`, the admin of rules; or its errors in words. Raises PermissionDenied."""
    allowed = desk.has_change_permission(request, stored) if stored else desk.has_add_permission(request)
    if not allowed:
        raise PermissionDenied
    form: Any = desk.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
    valid = form.is_valid()  # this puts the values on the instance, which the rows below refer to
    formsets: Any = desk._create_formsets(request, form.instance, change=stored is not None)[0]
    # Each one is looked at: a list that stops at the first would hide errors of the others.
    if not all([valid, *(each.is_valid() for each in formsets)]):
        return None, tell_errors(form, formsets)
    rows = [row for each in formsets for row in each.forms if row not in each.deleted_forms]
    rows = [row for row in rows if row.has_changed() or row.instance.pk]
    endpoints = list(form.cleaned_data["endpoints"])
    draft = Draft(
        pk=stored.pk if stored else 0,
        order=form.instance.order,
        enabled=form.instance.enabled,
        rule=make_rule(form.instance, [row.instance for row in rows], [each.pk for each in endpoints]),
        endpoint_names=tuple((each.pk, each.name) for each in endpoints),
        warnings=tuple(dict.fromkeys(text for each in (form, *rows) for text in each.warnings)),
    )
    return draft, []


def tell_errors(form: Any, formsets: Any = ()) -> list[str]:
    """What is wrong with a form and its rows, in words."""
    texts = _of_form(form, "")
    for formset in formsets:
        texts += [str(text) for text in formset.non_form_errors()]
        for number, row in enumerate(formset.forms, 1):
            texts += _of_form(row, f"Condition {number}")
    return list(dict.fromkeys(texts))


def _of_form(form: Any, where: str) -> list[str]:
    """`Condition 2, value: ...`, in the words of the form."""
    texts = []
    for name, errors in form.errors.items():
        label = str(form.fields[name].label or name) if name in form.fields else ""
        place = ", ".join(part for part in (where, label) if part)
        texts += [f"{place}: {text}" if place else str(text) for text in errors]
    return texts
