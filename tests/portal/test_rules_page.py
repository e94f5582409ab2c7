"""The page of rules and aliases: in order, in words, with buttons for those who may."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from endpoints.models import ModelAlias, Revision, RoutingRule, RuleCondition
from olla_site.portal.rule_changes import Placed, find_orders
from tests.endpoints.rule_desk import LLAMA, make_rule
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db
EVIL = "<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}"


def read(client, address: str = "/rules/") -> str:
    load_now()
    response = client.get(address)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def names(text: str) -> list[str]:
    return re.findall(r"<h2>([^\s<]+)", text)


def press(client, rule: RoutingRule, step: str, past: RoutingRule | None = None, *, htmx: bool = False) -> Any:
    data = {"past": str(past.pk)} if past else {}
    return client.post(f"/rules/{rule.pk}/{step}/", data, headers={"HX-Request": "true"} if htmx else {})


def stored() -> list[str]:
    return list(RoutingRule.objects.order_by("order", "name").values_list("name", flat=True))


def number() -> int:
    return Revision.objects.get(pk=1).number


def test_it_says_what_rules_are_for_when_there_are_none(viewer, administrator):
    assert "No rules yet" in read(viewer)
    assert "An administrator can add them" in read(viewer)
    assert "/admin/endpoints/routingrule/add/" in read(administrator)


def test_it_tells_rules_in_their_order_in_words(viewer):
    lease()
    endpoint("gpu-1", "llama3", tags="gpu")
    make_rule(name="late", order=30, enabled=False)
    make_rule(LLAMA, name="first", order=10, action="restrict", tags="gpu", message="")
    text = read(viewer)

    assert names(text) == ["first", "late"]
    assert "when model matches llama*" in text
    assert "only endpoints tagged gpu" in text
    assert 'title="gpu-1"' in text
    assert "1 of 2 enabled" in text
    assert "/rules/1/" not in text
    assert "Edit" not in text


def test_it_tells_what_is_odd_about_a_rule(viewer):
    make_rule(name="all", order=1)
    make_rule(LLAMA, name="after", order=2, action="prefer", tags="gone", message="")
    make_rule(LLAMA, name="empty", order=3, action="restrict", message="")
    make_rule({**LLAMA, "field": "no such"}, name="unknown", order=4)
    text = read(viewer)

    assert "no rule after it is reached" in text
    assert "Never reached: all before it applies to every request." in text
    assert "No endpoint has the tag gone now." in text
    assert "broken: it names no endpoint any more" in text
    assert "cannot be used: " in text


def test_it_shows_where_aliases_lead_now(viewer):
    lease()
    endpoint("one", "llama3")
    endpoint("two", "llama3", status="offline")
    ModelAlias.objects.create(name="fast", targets="qwen3\nllama3")
    ModelAlias.objects.create(name="lost", targets="nothing")
    text = read(viewer)

    assert re.findall(r'class="tag place([^"]*)"[^>]*title="(\w+)"', text) == [("", "one"), (" gone", "two")]
    assert text.count("nobody has it now") == 1
    assert text.count("no endpoint lists it") == 2


def test_it_moves_rules_one_past_the_other(administrator):
    first, second, third = (make_rule(name=name, order=order) for name, order in (("a", 10), ("b", 10), ("c", 20)))
    before = number()

    assert press(administrator, third, "up", second).status_code == 302
    assert stored() == ["a", "c", "b"]
    press(administrator, first, "down", third)
    assert stored() == ["c", "a", "b"]
    assert number() > before
    assert LogEntry.objects.filter(object_id=str(first.pk)).get().change_message == "Moved down past c."


def test_it_moves_no_rule_by_an_old_picture(administrator):
    first, second, third = (make_rule(name=name, order=10) for name in "abc")
    before = number()

    answer = press(administrator, third, "up", first, htmx=True)
    press(administrator, first, "up")
    press(administrator, second, "down", second)

    assert "changed meanwhile" in answer.headers["HX-Trigger"]
    assert (stored(), number()) == (["a", "b", "c"], before)


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([10, 20, 30], [10, 20, 30]),
        ([20, 10, 30], [10, 20, 30]),
        ([5, 5, 5], [10, 20, 30]),
        ([0, 0, 7], [10, 20, 30]),
    ],
)
def test_it_numbers_anew_only_where_it_must(orders, expected):
    rows = [
        Placed(key, name, order, True, None) for key, (name, order) in enumerate(zip("bac", orders, strict=True))
    ]

    assert find_orders(rows) == expected


def test_it_switches_rules_and_notes_who_did(administrator):
    rule = make_rule(LLAMA, name="r")
    before = number()

    text = html.unescape(press(administrator, rule, "disable", htmx=True).content.decode())
    assert 'class="rule is-off"' in text
    assert (RoutingRule.objects.get().enabled, number() > before) == (False, True)
    press(administrator, rule, "enable")
    assert RoutingRule.objects.get().enabled
    assert [each.change_message for each in LogEntry.objects.order_by("pk")] == ["Rule disabled.", "Rule enabled."]


def test_it_deletes_a_rule_with_its_conditions(administrator):
    rule = make_rule(LLAMA, name="r")
    press(administrator, rule, "delete")

    assert not RoutingRule.objects.exists()
    assert not RuleCondition.objects.exists()
    assert "not there any more" in press(administrator, rule, "delete", htmx=True).headers["HX-Trigger"]


@pytest.mark.parametrize("group", ["Viewers", "Operators"])
def test_it_lets_nobody_else_change_rules(sign_in, group):
    rule = make_rule(LLAMA, name="r")
    client = sign_in(group)

    for step in ("disable", "delete", "up"):
        assert press(client, rule, step).status_code == 403
    assert client.post("/rules/preview/", {"step": "disable", "rule": rule.pk}).status_code == 403
    assert client.post("/rules/preview/form/", {}).status_code == 403
    assert RoutingRule.objects.get().enabled


def test_it_knows_no_other_button(administrator):
    rule = make_rule(LLAMA, name="r")

    assert press(administrator, rule, "save").status_code == 404
    assert administrator.get(f"/rules/{rule.pk}/disable/").status_code == 405


def test_it_shows_hostile_text_as_text(administrator):
    endpoint(EVIL[:90], EVIL, tags="t")
    make_rule({**LLAMA, "value": EVIL * 10}, name=EVIL, message=EVIL * 10)
    make_rule(LLAMA, name="long", action="restrict", tags="t", message="")
    ModelAlias.objects.create(name=EVIL, targets=EVIL + "\n" + "x" * 10_000, notes=EVIL * 300)
    load_now()

    raw = administrator.get("/rules/").content.decode()

    assert "<script>alert" not in raw
    assert len(raw) < 40_000


def test_it_costs_the_same_however_many_there_are(viewer, django_assert_max_num_queries):
    counts = []
    for begin in (0, 30):
        for each in range(begin, begin + 30):
            made = make_rule(LLAMA, name=f"r{each}", order=each, action="restrict", tags="x", message="")
            made.endpoints.add(endpoint(f"e{each}", "m"))
            ModelAlias.objects.create(name=f"a{each}", targets="m")
        load_now()
        with django_assert_max_num_queries(14) as seen:
            viewer.get("/rules/")
        counts.append(len(seen))
    assert counts[0] == counts[1]
