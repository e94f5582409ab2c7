"""The page on explain: a request that is never sent, told in words."""

from __future__ import annotations

import html
import re

import pytest

from endpoints.models import RoutingRule
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db
PATH = "/olla/openai/v1/chat/completions"


def ask(client, **fields) -> str:
    load_now()
    response = client.get("/explain/", {"path": PATH, **fields})
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def rows(text: str) -> list[tuple[str, str]]:
    """Name and verdict of each row, tags taken out."""
    body = re.search(r'id="considered".*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    assert body is not None
    found = []
    for row in re.findall(r"<tr.*?</tr>", body[1], re.DOTALL):
        cells = [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        found.append((" ".join(cells[0].split()), " ".join(cells[2].split())))
    return found


def test_it_shows_only_the_form_at_first(viewer):
    load_now()
    text = viewer.get("/explain/").content.decode()

    assert 'name="path"' in text
    assert 'id="told"' not in text


def test_it_says_who_is_tried_and_who_is_left_out(viewer):
    lease()
    endpoint("one", "llama3")
    endpoint("two", "phi4")
    endpoint("three", "llama3", status="offline")

    text = ask(viewer, model="llama3")

    assert "Goes to one" in text
    assert rows(text) == [
        ("one", "may answer chosen by the policy"),
        ("three", "left out its status takes no traffic"),
        ("two", "left out it does not have the model"),
    ]


def test_it_tells_a_refusal_with_its_status(viewer):
    lease()
    endpoint("one", "llama3")

    text = ask(viewer, model="gone")

    assert "404" in text
    assert "model_not_found" in text
    assert rows(text) == [("one", "left out it does not have the model")]


def test_it_names_the_rule_that_decides(viewer):
    lease()
    endpoint("one", "llama3")
    RoutingRule.objects.create(name="closed today", order=1, action="reject", message="Come back tomorrow.")

    text = ask(viewer, model="llama3")

    assert "403 forbidden_by_rule: Come back tomorrow." in re.sub(r"<[^>]+>", "", text)
    assert "closed today: matches" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"path": "no slash"}, "begins with a slash"),
        ({"model": "m", "body": "{}"}, "not both"),
        ({"headers": "no colon"}, "Name: value"),
        ({"path": "/admin/"}, "Requests are forwarded under /olla/ alone"),
        ({"body": '{"model": 3'}, "not valid JSON"),
    ],
)
def test_it_says_what_is_wrong_and_keeps_what_was_typed(viewer, fields, words):
    text = ask(viewer, **fields)

    assert words in text
    assert all(value in text for value in fields.values())


def test_it_says_when_nobody_is_asked(viewer):
    assert "Answered here" in ask(viewer, path="/olla/openai/v1/models", method="GET")


def test_it_shows_hostile_text_as_text(viewer):
    lease()
    endpoint("<script>alert(1)</script>", "<img src=x onerror=alert(1)>")
    load_now()

    raw = viewer.get("/explain/", {"path": PATH, "model": "<img src=x onerror=alert(1)>"}).content.decode()

    assert "<script>alert" not in raw
    assert "<img src=x" not in raw


def test_it_asks_no_more_of_the_database_for_more_endpoints(viewer, django_assert_max_num_queries):
    lease()
    for number in range(60):
        endpoint(f"e{number}", "llama3")
    load_now()

    with django_assert_max_num_queries(8):
        viewer.get("/explain/", {"path": PATH, "model": "llama3"})
