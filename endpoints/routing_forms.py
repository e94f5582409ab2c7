"""Forms of routing rules, their conditions and model aliases: findings put at their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms

from endpoints.findings import Finding, Severity
from endpoints.models import DiscoveredModel, Endpoint, ModelAlias, RoutingRule, RuleCondition
from endpoints.rule_review import (
    ACTION_FIELDS,
    Known,
    RuleDraft,
    review_alias,
    review_condition,
    review_rule,
    tidy_tags,
)
from endpoints.rules import Condition, ConditionField, Operator, RuleAction, parse_tags
from endpoints.snapshot import fold_model

if TYPE_CHECKING:
    # Generic for the type checker only: Django's own classes take no parameters at run time.
    _RuleForm = forms.ModelForm[RoutingRule]
    _ConditionForm = forms.ModelForm[RuleCondition]
    _AliasForm = forms.ModelForm[ModelAlias]
else:
    _RuleForm = _ConditionForm = _AliasForm = forms.ModelForm


def gather_known(*, but_alias: int | None = None) -> Known:
    """What models, aliases (`but_alias` left out) and tags there are."""
    names = {fold_model(name) for name in DiscoveredModel.objects.values_list("name", flat=True).distinct()}
    names |= {name.removesuffix(":latest") for name in names}
    aliases = ModelAlias.objects.exclude(pk=but_alias or 0)
    tags = Endpoint.objects.exclude(tags="").values_list("tags", flat=True)
    return Known(
        models=frozenset(names),
        aliases={fold_model(each.name): each.target_names() for each in aliases},
        tags=frozenset().union(*(parse_tags(text) for text in tags)),
    )


def place_findings(form: Any, findings: Iterable[Finding], warnings: list[str]) -> None:
    """Errors go to their fields (unless those did not even parse), warnings to the list."""
    unparsed = set(form.errors)
    for finding in findings:
        if finding.severity is Severity.WARNING:
            warnings.append(finding.message)
        elif finding.field not in unparsed:
            form.add_error(finding.field if finding.field in form.fields else None, finding.message)


class RuleForm(_RuleForm):
    """Creates and edits a rule. After `is_valid`, `warnings` holds what is worth telling."""

    class Meta:
        model = RoutingRule
        fields = (
            "name", "order", "enabled", "action", "tags", "endpoints", "model", "policy", "strategy", "fallback",
            "percentage", "message",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.warnings: list[str] = []
        if "action" in self.fields:
            # The page's script shows the fields of the chosen action only.
            self.fields["action"].widget.attrs["data-fields"] = json.dumps(
                {action.value: list(fields) for action, fields in ACTION_FIELDS.items()}
            )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if "action" in data:
            data["tags"] = tidy_tags(data.get("tags") or "")
            draft = RuleDraft(
                action=RuleAction(data["action"]),
                endpoints=bool(data.get("endpoints")),
                percentage=data.get("percentage"),
                **{name: data.get(name) or "" for name in ("tags", "model", "policy", "strategy", "fallback")},
                message=data.get("message") or "",
            )
            place_findings(self, review_rule(draft, gather_known()), self.warnings)
        return data


class ConditionForm(_ConditionForm):
    """One row of a rule's conditions."""

    class Meta:
        model = RuleCondition
        fields = ("field", "header", "operator", "value")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.warnings: list[str] = []

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if {"field", "operator", "value"} <= data.keys():
            condition = Condition(
                ConditionField(data["field"]), Operator(data["operator"]), data["value"], data.get("header", "")
            )
            place_findings(self, review_condition(condition), self.warnings)
        return data


class AliasForm(_AliasForm):
    """Creates and edits an alias; blank lines, surrounding spaces and repeated targets are not stored."""

    class Meta:
        model = ModelAlias
        fields = ("name", "targets", "one_model", "notes")
        widgets = {  # noqa: RUF012 - Django reads this as plain data
            "targets": forms.Textarea({"rows": 5, "spellcheck": "false"}),
            "notes": forms.Textarea({"rows": 3}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.warnings: list[str] = []

    def clean_targets(self) -> str:
        """One name a line, as typed for now: what is told of them needs all."""
        names = [line.strip() for line in self.cleaned_data["targets"].splitlines() if line.strip()]
        if not names:
            raise forms.ValidationError("Enter at least one model.")
        return "\n".join(names)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if {"name", "targets"} <= data.keys():
            names = tuple(data["targets"].split("\n"))
            known = gather_known(but_alias=self.instance.pk)
            place_findings(self, review_alias(data["name"], names, known), self.warnings)
            once = {fold_model(name): name for name in reversed(names)}
            data["targets"] = "\n".join(name for name in dict.fromkeys(once[fold_model(name)] for name in names))
        return data
