"""Changes of model aliases, before anybody makes them: what the aliases would be after one, in words too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from endpoints.models import ModelAlias
from endpoints.rule_draft import tell_errors
from endpoints.snapshot import Alias, fold_model
from olla_site.portal.rule_changes import OutdatedError, Step

NAMED = 12


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change: the stored alias `pk` (0 for a new one) is deleted, or becomes `alias`."""

    step: Step
    pk: int = 0
    alias: Alias | None = None
    warnings: tuple[str, ...] = ()


def read_alias_draft(
    desk: Any, request: HttpRequest, stored: ModelAlias | None
) -> tuple[AliasChange | None, list[str]]:
    """The alias of a form posted to `desk`, the admin of aliases; or its errors. Raises PermissionDenied."""
    allowed = desk.has_change_permission(request, stored) if stored else desk.has_add_permission(request)
    if not allowed:
        raise PermissionDenied
    form: Any = desk.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
    if not form.is_valid():
        return None, tell_errors(form)
    row: ModelAlias = form.instance
    alias = Alias(row.name, row.target_names(), row.one_model)
    return AliasChange(Step.SAVE, row.pk or 0, alias, tuple(dict.fromkeys(form.warnings))), []


def foresee_aliases(aliases: Sequence[Alias], old: Alias | None, new: Alias | None) -> tuple[Alias, ...]:
    """The aliases after `old` became `new`."""
    kept = [each for each in aliases if old is None or fold_model(each.name) != fold_model(old.name)]
    return (*kept, new) if new is not None else tuple(kept)


def find_alias(pk: int) -> Alias | None:
    """A stored alias; None for 0. Raises OutdatedError where it is gone."""
    if not pk:
        return None
    row = ModelAlias.objects.filter(pk=pk).first()
    if row is None:
        message = "That alias is not there any more."
        raise OutdatedError(message)
    return Alias(row.name, row.target_names(), row.one_model)


def describe_alias(alias: Alias | None) -> str:
    """An alias in words: `fast-chat is llama3:8b, else qwen3`."""
    if alias is None:
        return "There is no such alias: the name counts as a model's own."
    shown = ", else ".join(alias.targets[:NAMED])
    more = f", and {len(alias.targets) - NAMED} more" if len(alias.targets) > NAMED else ""
    one = "; all are names of one model" if alias.one_model else ""
    return f"{alias.name} is {shown}{more}{one}"


def describe_change(change: AliasChange, old: Alias | None) -> str:
    """A heading: what is asked."""
    name = (old or change.alias or Alias("it", ())).name
    if change.step is Step.DELETE:
        return f"If the alias {name} is deleted"
    return f"If the alias {name} is saved like this" if old else f"If the alias {name} is added"
