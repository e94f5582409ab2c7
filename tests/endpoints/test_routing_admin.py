"""The desk of model aliases and routing rules: what is stored, what is refused, what is told."""

from __future__ import annotations

import json
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from endpoints import records
from endpoints.models import DiscoveredModel, Endpoint, ModelAlias, RoutingRule, RuleCondition
from endpoints.rule_review import ACTION_FIELDS
from endpoints.rules import RuleAction
from tests.endpoints.desk import FILLED as ENDPOINT
from tests.endpoints.desk import add as add_endpoint
from tests.endpoints.desk import error_texts, make_endpoint
from tests.endpoints.rule_desk import (
    ALIAS_ADD,
    ALIAS_LIST,
    LLAMA,
    RULE_ADD,
    RULE_LIST,
    add_rule,
    conditions,
    make_rule,
    row_of,
    rule_address,
)

pytestmark = pytest.mark.django_db


def said(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def refusals(response) -> list[str]:
    assert response.status_code == 200
    return error_texts(response.content.decode())


def add_alias(client, **values):
    data = {"name": "fast", "targets": "llama3\nqwen3", "notes": "", **values}
    return client.post(reverse(ALIAS_ADD), data, follow=True)


# --------------------------------------------------------------------------------------------------- aliases


def test_it_stores_an_alias_without_blank_lines_spaces_and_repeats(admin_client):
    add_alias(admin_client, name=" fast ", targets="\n llama3 \n\nqwen3\nLLAMA3\n")

    alias = ModelAlias.objects.get()
    assert (alias.name, alias.target_names()) == ("fast", ("llama3", "qwen3"))


def test_it_tells_of_repeated_and_unknown_targets(admin_client):
    DiscoveredModel.objects.create(endpoint=make_endpoint(), name="llama3:latest")

    page = add_alias(admin_client, targets="llama3\nqwen3\nllama3")

    assert "qwen3 now" in said(page)[0]
    assert "llama3 was listed more than once" in said(page)[1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": "   "}, "This field is required."),
        ({"targets": " \n \n"}, "This field is required."),
        ({"targets": "FASTER"}, "FASTER is itself an alias"),
        ({"name": "Faster"}, "There is an alias of this name already"),
    ],
)
def test_it_refuses_an_alias_and_says_why(admin_client, values, text):
    ModelAlias.objects.create(name="faster", targets="llama3")

    assert any(text in each for each in refusals(add_alias(admin_client, **values)))
    assert ModelAlias.objects.count() == 1


def test_it_does_not_take_an_alias_for_its_own_double(admin_client):
    alias = ModelAlias.objects.create(name="fast", targets="llama3")
    address = reverse("admin:endpoints_modelalias_change", args=[alias.pk])

    assert admin_client.post(address, {"name": "Fast", "targets": "fast\nllama3"}).status_code == 302


def test_it_lists_aliases(admin_client):
    ModelAlias.objects.create(name="fast", targets="llama3\nqwen3", notes="for <chat>")

    page = admin_client.get(reverse(ALIAS_LIST)).content.decode()

    assert "llama3, qwen3" in page
    assert "for &lt;chat&gt;" in page


# ----------------------------------------------------------------------------------------------------- rules


def test_it_stores_a_rule_that_acts(admin_client):
    endpoint = make_endpoint(tags="gpu")

    add_rule(
        admin_client, LLAMA, {"field": "header", "header": "X-Team", "operator": "is", "value": "blue"},
        action="restrict", message="", tags=" GPU,gpu , ", endpoints=[endpoint.pk],
    )  # fmt: skip

    rule = records.load_rules()[0]
    assert rule.action is RuleAction.RESTRICT
    assert (rule.tags, rule.endpoint_ids) == (frozenset({"gpu"}), frozenset({endpoint.pk}))
    assert [(each.field, each.header, each.value) for each in rule.conditions] == [
        ("model", "", "llama*"), ("header", "X-Team", "blue"),
    ]  # fmt: skip
    assert RoutingRule.objects.get().tags == "gpu"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"action": "restrict", "message": ""}, "This action needs tags or endpoints"),
        ({"action": "policy", "message": ""}, "This action needs a value here"),
        ({"tags": "gpu"}, "The chosen action does not use this"),
        ({"percentage": "100", "action": "split", "tags": "gpu", "message": ""}, "from 1 to 99"),
        ({"percentage": "0", "action": "split", "tags": "gpu", "message": ""}, "from 1 to 99"),
        ({"action": "policy", "policy": "random", "message": ""}, "random is not one of the available choices"),
        ({"action": "strategy", "strategy": "alias", "message": ""}, "alias is not one of the available choices"),
        ({"action": "strategy", "strategy": "optimistic", "fallback": "x", "message": ""}, "x is not one of"),
        ({"action": "explode"}, "explode is not one of the available choices"),
        ({"action": "restrict", "endpoints": ["999"], "message": ""}, "999 is not one of the available choices"),
    ],
)
def test_it_refuses_a_rule_and_says_why(admin_client, changes, text):
    page = add_rule(admin_client, LLAMA, **changes)

    assert any(text in each for each in refusals(page)), refusals(page)
    assert not RoutingRule.objects.exists()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"value": "llama["}, "every [ needs its ]"),
        ({"value": " "}, "This field is required."),
        ({"field": "header"}, "Enter the name of a header"),
        ({"header": "X-Team"}, "Only the field Header has a header name"),
        ({"field": "client_network", "operator": "is", "value": "10.0.0.0/99"}, "Enter a network"),
        ({"field": "client_key"}, "client_key is not one of the available choices"),
        ({"operator": "regex"}, "regex is not one of the available choices"),
    ],
)
def test_it_refuses_a_condition_and_stores_nothing(admin_client, row, text):
    page = add_rule(admin_client, {**LLAMA, **row})

    assert any(text in each for each in refusals(page)), refusals(page)
    assert not RoutingRule.objects.exists()


def test_it_tells_warnings_of_rule_and_conditions(admin_client):
    page = add_rule(
        admin_client, {**LLAMA, "operator": "is"}, action="restrict", tags="attic", message=""
    )  # fmt: skip

    assert "No endpoint has the tag attic now." in said(page)
    assert "llama*: is compares the whole text. For a pattern choose matches." in said(page)
    assert RoutingRule.objects.exists()


def test_it_warns_of_a_rule_without_conditions(admin_client):
    assert any("r1 has no conditions" in text for text in said(add_rule(admin_client)))
    assert not any("no conditions" in text for text in said(add_rule(admin_client, LLAMA, name="r2")))


def test_it_edits_adds_and_deletes_conditions(admin_client):
    rule = make_rule(LLAMA, {**LLAMA, "value": "qwen*"})
    first, second = rule.conditions.all()
    data = conditions(
        row_of(first, DELETE="on"), row_of(second, value="gpt-*"), {**LLAMA, "rule": rule.pk}, initial=2
    )

    admin_client.post(
        rule_address(rule), {"name": "r1", "order": "1", "action": "reject", "message": "No.", **data}
    )

    assert [each.value for each in rule.conditions.all()] == ["gpt-*", "llama*"]
    assert records.load_rules() == []  # enabled was left out, as a browser does with an empty box


def test_it_lists_rules_in_words_and_order(admin_client):
    endpoint = make_endpoint(tags="gpu")
    last = make_rule(LLAMA, name="last", order=20, action="restrict", tags="gpu", message="")
    last.endpoints.add(endpoint)
    make_rule(name="first", order=1, message="<b>No</b>")

    page = admin_client.get(reverse(RULE_LIST)).content.decode()

    assert "when model matches llama*: only endpoints tagged gpu or gpu-1" in page
    assert "always: refuse: &lt;b&gt;No&lt;/b&gt;" in page
    assert page.index("refuse:") < page.index("when model")


def test_it_needs_few_queries_however_many_rules(admin_client):
    endpoint = make_endpoint()
    for number in range(30):
        make_rule(LLAMA, LLAMA, name=f"r{number}", action="restrict", message="").endpoints.add(endpoint)

    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get(reverse(RULE_LIST)).status_code == 200

    assert len(queries) <= 10


def reorder(client, rule, order, **more):
    data = {
        "form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-MIN_NUM_FORMS": "0",
        "form-MAX_NUM_FORMS": "1000", "form-0-id": rule.pk, "form-0-order": order, "_save": "Save", **more,
    }  # fmt: skip
    return client.post(reverse(RULE_LIST), data, follow=True)


def test_it_changes_the_order_in_the_list_and_nothing_else(admin_client):
    rule = make_rule(LLAMA)

    reorder(admin_client, rule, "3", **{"form-0-action": "policy", "form-0-enabled": ""})

    rule.refresh_from_db()
    assert (rule.order, rule.action, rule.enabled) == (3, "reject", True)


@pytest.mark.parametrize(("action", "before"), [("enable", False), ("disable", True)])
def test_it_switches_rules_on_and_off(admin_client, action, before):
    rule = make_rule(enabled=before)
    data = {"action": action, "_selected_action": [rule.pk]}

    assert said(admin_client.post(reverse(RULE_LIST), data, follow=True)) == [f"r1: {action}d."]
    assert said(admin_client.post(reverse(RULE_LIST), data, follow=True)) == [f"Nothing to do: already {action}d."]

    rule.refresh_from_db()
    assert rule.enabled is not before
    assert f"Rule {action}d." in admin_client.get(rule_address(rule, "history")).content.decode()


def test_it_says_of_a_rule_stored_past_the_form_that_it_cannot_be_used(admin_client):
    make_rule(name="good", order=1)
    RoutingRule.objects.create(name="bad", action="policy", policy="random")

    assert "cannot be used" in admin_client.get(reverse(RULE_LIST)).content.decode()
    assert [rule.name for rule in records.load_rules()] == ["good"]


def test_it_gives_the_page_the_fields_of_each_action_and_no_inline_script(admin_client):
    page = admin_client.get(reverse(RULE_ADD)).content.decode()

    found = re.search(r'data-fields="([^"]*)"', page)
    assert found
    assert json.loads(found[1].replace("&quot;", '"')) == {a.value: list(f) for a, f in ACTION_FIELDS.items()}
    assert "endpoints/rule_form.js" in page
    assert not re.search(r"<script(?![^>]* src=)(?![^>]*type=\"application/json\")[^>]*>", page)
    assert "Conditions explained" in page


# -------------------------------------------------------------------------------------------- tags of endpoints


def test_it_stores_tags_of_endpoints_in_one_spelling(admin_client):
    add_endpoint(admin_client, tags=" GPU, on-site,gpu ,")

    assert Endpoint.objects.get().tags == "gpu, on-site"
    assert records.build_record(Endpoint.objects.get(), (), {}).tags == {"gpu", "on-site"}


def test_it_refuses_control_characters_in_tags(admin_client):
    page = add_endpoint(admin_client, **{**ENDPOINT, "tags": "g\x07pu"})

    assert any("control character" in text for text in refusals(page))


def test_it_lets_a_condition_go_with_its_rule(admin_client):
    rule = make_rule(LLAMA)

    admin_client.post(rule_address(rule, "delete"), {"post": "yes"})

    assert not RuleCondition.objects.exists()
