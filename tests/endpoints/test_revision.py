"""Every change people make is counted, in the transaction that makes it and in no other."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.core import serializers
from django.db import connection, transaction
from django.urls import reverse

from endpoints.health import OperatorState
from endpoints.models import Endpoint, ModelAlias, Revision, RoutingRule, RuleCondition
from endpoints.operations import set_state
from tests.endpoints.desk import LIST, edit_address, form_data, make_endpoint
from tests.endpoints.rule_desk import ALIAS_LIST, LLAMA, RULE_LIST, conditions, make_rule, row_of, rule_address

pytestmark = pytest.mark.django_db


def revision() -> int:
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


class World:
    """One of everything."""

    def __init__(self) -> None:
        self.endpoint = make_endpoint(tags="gpu")
        self.rule = make_rule(LLAMA, action="restrict", message="", tags="gpu")
        self.rule.endpoints.add(self.endpoint)
        self.alias = ModelAlias.objects.create(name="fast", targets="llama3")
        self.condition: RuleCondition = self.rule.conditions.get()
        self.other = make_endpoint(name="gpu-2")

    def rule_form(self, *rows: dict[str, Any], **values: Any) -> dict[str, Any]:
        data = {"name": "r1", "order": "1", "enabled": "on", "action": "restrict", "tags": "gpu"}
        return {**data, **conditions(*rows, initial=1), **values}


def load_fixture(row: Any) -> None:
    for each in serializers.deserialize("json", serializers.serialize("json", [row])):
        each.save()


TABLE_CHANGES = {
    "relation add": lambda w: w.rule.endpoints.add(w.other),
    "relation add from the other side": lambda w: w.other.routingrule_set.add(w.rule),
    "relation remove": lambda w: w.rule.endpoints.remove(w.endpoint),
    "relation set": lambda w: w.rule.endpoints.set([w.other]),
    "relation clear": lambda w: w.rule.endpoints.clear(),
    "condition save": lambda w: w.condition.save(),
    "condition delete": lambda w: w.condition.delete(),
    "condition update": lambda w: w.rule.conditions.update(value="qwen*"),
    "condition bulk": lambda w: RuleCondition.objects.bulk_create([RuleCondition(rule=w.rule, **LLAMA)]),
    "rule delete": lambda w: w.rule.delete(),
    "rules delete": lambda w: RoutingRule.objects.all().delete(),
    "endpoint delete, in a rule": lambda w: w.endpoint.delete(),
    "endpoints delete, in a rule": lambda w: Endpoint.objects.all().delete(),
    "alias delete": lambda w: w.alias.delete(),
    "alias update": lambda w: ModelAlias.objects.update(targets="qwen3"),
    "alias get or create": lambda w: ModelAlias.objects.get_or_create(name="x", defaults={"targets": "y"}),
    "alias update or create": lambda w: ModelAlias.objects.update_or_create(
        name="fast", defaults={"targets": "y"}
    ),
    "state": lambda w: set_state([w.endpoint], OperatorState.DRAINING),
    "fixture of an endpoint": lambda w: load_fixture(w.endpoint),
    "fixture of a condition": lambda w: load_fixture(w.condition),
}


@pytest.mark.parametrize("change", TABLE_CHANGES.values(), ids=TABLE_CHANGES.keys())
def test_it_counts_a_change_of_the_tables(change):
    world = World()
    before = revision()

    change(world)

    assert revision() > before


def selected(action: str, row: Any) -> dict[str, Any]:
    return {"action": action, "_selected_action": [row.pk], "post": "yes"}


DESK_CHANGES = {
    "condition edited": lambda w: (rule_address(w.rule), w.rule_form(row_of(w.condition, value="qwen*"))),
    "condition added": lambda w: (rule_address(w.rule), w.rule_form(row_of(w.condition), LLAMA)),
    "condition deleted": lambda w: (rule_address(w.rule), w.rule_form(row_of(w.condition, DELETE="on"))),
    "endpoints of a rule": lambda w: (
        rule_address(w.rule),
        w.rule_form(row_of(w.condition), endpoints=[w.other.pk]),
    ),
    "rule disabled": lambda w: (reverse(RULE_LIST), selected("disable", w.rule)),
    "rules deleted": lambda w: (reverse(RULE_LIST), selected("delete_selected", w.rule)),
    "rule deleted": lambda w: (rule_address(w.rule, "delete"), {"post": "yes"}),
    "order in the list": lambda w: (
        reverse(RULE_LIST),
        {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": w.rule.pk, "form-0-order": "7"}
        | {"_save": "Save"},
    ),
    "aliases deleted": lambda w: (reverse(ALIAS_LIST), selected("delete_selected", w.alias)),
    "endpoint drained": lambda w: (reverse(LIST), selected("drain", w.endpoint)),
    "endpoint edited": lambda w: (edit_address(w.endpoint), form_data(w.endpoint, tags="cpu")),
    "endpoints deleted": lambda w: (reverse(LIST), selected("delete_selected", w.endpoint)),
}  # fmt: skip


@pytest.mark.parametrize("change", DESK_CHANGES.values(), ids=DESK_CHANGES.keys())
def test_it_counts_a_change_at_the_desk(admin_client, change):
    address, data = change(World())
    before = revision()

    assert admin_client.post(address, data).status_code == 302

    assert revision() > before


def test_it_counts_nothing_for_a_refused_form(admin_client):
    world = World()
    before = revision()

    page = admin_client.post(rule_address(world.rule), world.rule_form(row_of(world.condition, value="a**")))

    assert page.status_code == 200
    assert revision() == before


def elsewhere() -> int:
    """The revision as another connection sees it."""
    seen: list[int] = []

    def look() -> None:
        try:
            seen.append(revision())
        finally:
            connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.django_db(transaction=True)
def test_it_shows_the_count_to_others_only_with_the_change():
    rule = make_rule(LLAMA)
    before = elsewhere()

    with transaction.atomic():
        rule.endpoints.add(make_endpoint())
        rule.conditions.all().delete()
        assert revision() > before
        assert elsewhere() == before

    assert elsewhere() > before


@pytest.mark.django_db(transaction=True)
def test_it_takes_the_count_back_with_the_change():
    rule = make_rule(LLAMA)
    before = revision()

    with transaction.atomic():
        rule.delete()
        transaction.set_rollback(True)

    assert revision() == before
    assert RoutingRule.objects.exists()


@pytest.mark.parametrize("table", [Endpoint, ModelAlias, RoutingRule, RuleCondition])
def test_it_cannot_empty_a_table_by_a_slip(table):
    assert not hasattr(table.objects, "delete")
