"""The desk of rules and aliases for tests: form data as a browser sends it, users with few rights."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.urls import reverse

from endpoints.models import RoutingRule, RuleCondition

RULE_ADD = "admin:endpoints_routingrule_add"
RULE_LIST = "admin:endpoints_routingrule_changelist"
ALIAS_ADD = "admin:endpoints_modelalias_add"
ALIAS_LIST = "admin:endpoints_modelalias_changelist"

FILLED: dict[str, Any] = {"name": "r1", "order": "10", "enabled": "on", "action": "reject", "message": "No."}
LLAMA = {"field": "model", "operator": "glob", "value": "llama*", "header": ""}


def conditions(*rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    """The inline rows of a form, management form included."""
    data: dict[str, Any] = {
        "conditions-TOTAL_FORMS": str(len(rows)),
        "conditions-INITIAL_FORMS": str(initial),
        "conditions-MIN_NUM_FORMS": "0",
        "conditions-MAX_NUM_FORMS": "1000",
    }
    for number, row in enumerate(rows):
        data |= {f"conditions-{number}-{name}": value for name, value in row.items()}
    return data


def add_rule(client, *rows: dict[str, Any], **changes: Any) -> Any:
    return client.post(reverse(RULE_ADD), {**FILLED, **conditions(*rows), **changes}, follow=True)


def rule_address(rule: RoutingRule, page: str = "change") -> str:
    return reverse(f"admin:endpoints_routingrule_{page}", args=[rule.pk])


def make_rule(*rows: dict[str, Any], name: str = "r1", **values: Any) -> RoutingRule:
    rule: RoutingRule = RoutingRule.objects.create(name=name, **{"action": "reject", "message": "No.", **values})
    for row in rows:
        RuleCondition.objects.create(rule=rule, **row)
    return rule


def row_of(condition: RuleCondition, **changes: Any) -> dict[str, Any]:
    """A stored condition as its form row."""
    return {
        "id": condition.pk,
        "rule": condition.rule_id,
        "field": condition.field,
        "header": condition.header,
        "operator": condition.operator,
        "value": condition.value,
        **changes,
    }


def staff(django_user_model, *codenames: str) -> Any:
    user = django_user_model.objects.create_user("someone", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user
