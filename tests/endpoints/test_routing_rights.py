"""Who may do what with rules, conditions and aliases; forged requests included."""

from __future__ import annotations

import pytest
from django.urls import reverse

from endpoints.models import ModelAlias, RoutingRule, RuleCondition
from tests.endpoints.rule_desk import (
    ALIAS_ADD,
    ALIAS_LIST,
    FILLED,
    LLAMA,
    RULE_ADD,
    RULE_LIST,
    conditions,
    make_rule,
    row_of,
    rule_address,
    staff,
)

pytestmark = pytest.mark.django_db

# Rights on conditions alone mean nothing: they are part of their rule.
CONDITION_RIGHTS = ("add_rulecondition", "change_rulecondition", "delete_rulecondition", "view_rulecondition")


def picture() -> list[tuple[object, ...]]:
    """Everything a forged request could change."""
    rules = RoutingRule.objects.order_by("pk").values_list("name", "order", "enabled", "action", "message")
    rows = RuleCondition.objects.order_by("pk").values_list("rule__name", "field", "operator", "value")
    return [*rules, *rows, *ModelAlias.objects.values_list("name", "targets")]


def change(rule, *rows, initial=0, **values):
    return {**FILLED, "name": rule.name, **conditions(*rows, initial=initial), **values}


@pytest.fixture
def rule():
    return make_rule(LLAMA)


@pytest.mark.parametrize("rights", [(), ("view_endpoint", "change_endpoint", "add_endpoint", *CONDITION_RIGHTS)])
def test_it_shows_rules_and_aliases_to_nobody_else(client, django_user_model, rule, rights):
    alias = ModelAlias.objects.create(name="fast", targets="llama3")
    client.force_login(staff(django_user_model, *rights))
    before = picture()

    addresses = [
        reverse(RULE_LIST), reverse(RULE_ADD), rule_address(rule), rule_address(rule, "delete"),
        rule_address(rule, "history"), reverse(ALIAS_LIST), reverse(ALIAS_ADD),
        reverse("admin:endpoints_modelalias_change", args=[alias.pk]),
    ]  # fmt: skip
    for address in addresses:
        assert client.get(address).status_code == 403
        assert client.post(address, {**change(rule), "post": "yes", "targets": "x"}).status_code == 403

    assert picture() == before


def test_it_shows_rules_read_only_to_who_may_only_look(client, django_user_model, rule):
    client.force_login(staff(django_user_model, "view_routingrule", *CONDITION_RIGHTS))

    page = client.get(rule_address(rule)).content.decode()

    assert "llama*" in page
    assert 'name="conditions-0-value"' not in page
    assert 'name="message"' not in page
    assert 'name="form-0-order"' not in client.get(reverse(RULE_LIST)).content.decode()


def test_it_takes_nothing_from_who_may_only_look(client, django_user_model, rule):
    client.force_login(staff(django_user_model, "view_routingrule", "view_modelalias", *CONDITION_RIGHTS))
    condition = rule.conditions.get()
    before = picture()

    for row in (row_of(condition, value="*"), row_of(condition, DELETE="on")):
        assert client.post(rule_address(rule), change(rule, row, initial=1)).status_code == 403
    assert client.post(rule_address(rule), change(rule, LLAMA)).status_code == 403
    assert client.post(reverse(RULE_ADD), change(rule, LLAMA, name="r2")).status_code == 403
    assert client.post(rule_address(rule, "delete"), {"post": "yes"}).status_code == 403
    for action in ("enable", "disable", "delete_selected"):
        client.post(reverse(RULE_LIST), {"action": action, "_selected_action": [rule.pk], "post": "yes"})
    client.post(
        reverse(RULE_LIST),
        {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": rule.pk,
            "form-0-order": "1",
            "_save": "x",
        },
    )

    assert picture() == before


def test_it_lets_who_may_add_only_add(client, django_user_model, rule):
    client.force_login(staff(django_user_model, "add_routingrule", "view_routingrule"))
    before = picture()

    assert client.post(rule_address(rule), change(rule, LLAMA)).status_code == 403
    # The row of another rule, forged into the form of a new one.
    forged = row_of(rule.conditions.get(), value="*")
    client.post(reverse(RULE_ADD), change(rule, forged, initial=1, name="r2"))
    assert [each for each in picture() if each[0] == rule.name] == before
    client.post(reverse(RULE_ADD), change(rule, LLAMA, name="r3"))

    assert RuleCondition.objects.filter(rule__name="r3").count() == 1


def test_it_lets_who_may_change_a_rule_change_its_conditions(client, django_user_model, rule):
    client.force_login(staff(django_user_model, "change_routingrule"))

    row = row_of(rule.conditions.get(), value="qwen*")
    assert client.post(rule_address(rule), change(rule, row, LLAMA, initial=1)).status_code == 302

    assert [each.value for each in rule.conditions.all()] == ["qwen*", "llama*"]


def test_it_does_not_let_who_may_change_a_rule_delete_or_add_rules(client, django_user_model, rule):
    client.force_login(staff(django_user_model, "change_routingrule"))

    assert client.post(rule_address(rule, "delete"), {"post": "yes"}).status_code == 403
    assert client.post(reverse(RULE_ADD), change(rule, name="r2")).status_code == 403
    client.post(reverse(RULE_LIST), {"action": "delete_selected", "_selected_action": [rule.pk], "post": "yes"})
    client.post(rule_address(rule), change(rule, name="r2", _saveasnew="1"))

    assert RoutingRule.objects.count() == 1


@pytest.mark.parametrize("forged", [{"rule": "other"}, {"id": "other"}, {"id": "other", "DELETE": "on"}])
def test_it_does_not_reach_conditions_of_other_rules(client, django_user_model, rule, forged):
    other = make_rule({**LLAMA, "value": "qwen*"}, name="other")
    stolen = other.conditions.get()
    values = {"rule": other.pk, "id": stolen.pk, "other": ""}
    client.force_login(staff(django_user_model, "change_routingrule"))
    before = picture()

    row = row_of(rule.conditions.get(), value="*")
    row |= {name: values[name] if value == "other" else value for name, value in forged.items()}
    client.post(rule_address(rule), change(rule, row, initial=1))

    assert picture()[-1:] == before[-1:]
    assert other.conditions.get() == stolen
    assert other.conditions.get().value == "qwen*"


def test_it_takes_no_column_the_form_does_not_show(client, django_user_model):
    alias = ModelAlias.objects.create(name="fast", targets="llama3")
    client.force_login(staff(django_user_model, "view_modelalias"))
    address = reverse("admin:endpoints_modelalias_change", args=[alias.pk])

    assert client.get(address).status_code == 200
    assert client.post(address, {"name": "fast", "targets": "evil"}).status_code == 403
    assert ModelAlias.objects.get().targets == "llama3"
