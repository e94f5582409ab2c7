"""The pages on requests: the list, its filters, its live rows, and one request."""

from __future__ import annotations

import html
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from endpoints.models import Endpoint
from olla_site.portal.requests_page import PAGE, draw_waterfall
from proxy.models import RequestLog, key_at

pytestmark = pytest.mark.django_db
NOW = time.time()


def log(number: float = 0, **values: Any) -> RequestLog:
    """A row; a greater number is newer."""
    at = NOW - 1000 + number
    defaults: dict[str, Any] = {
        "id": key_at(at) + int(number),
        "time": datetime.fromtimestamp(at, UTC),
        "request_id": f"id-{number}",
        "client": "192.0.2.7",
        "peer": "192.0.2.7",
        "method": "POST",
        "path": "/olla/openai/v1/chat/completions",
        "provider": "openai",
        "model": "llama3",
        "endpoint": "gpu-1",
        "endpoint_id": 7,
        "status": 200,
        "outcome": "success",
        "attempts": 1,
        "total_ms": 120.0,
    }
    return RequestLog.objects.create(**{**defaults, **values})


def read(client, address: str = "/requests/", **fields) -> str:
    response = client.get(address, fields)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def keys(text: str) -> list[int]:
    return [int(key) for key in re.findall(r'data-key="(\d+)"', text)]


def test_it_says_how_to_begin_when_there_is_nothing(viewer):
    text = read(viewer)

    assert "No requests yet" in text
    assert '<div class="empty" id="none">' in text


def test_it_lists_the_newest_first_and_pages_both_ways(viewer):
    made = [log(number).pk for number in range(PAGE + 20)]
    first = read(viewer)
    older = re.search(r'href="([^"]*before[^"]*)"', first)
    assert older is not None
    second = read(viewer, older[1])
    newer = re.search(r'href="([^"]*after[^"]*)"', second)
    assert newer is not None

    assert keys(first) == made[::-1][:PAGE]
    assert keys(second) == made[::-1][PAGE:]
    assert keys(read(viewer, newer[1])) == keys(first)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"outcome": "broken"}, [1]),
        ({"endpoint": "8"}, [2]),
        ({"model": "phi%"}, [3]),
        ({"q": "id-4"}, [4]),
        ({"q": "10.0.0.9"}, [5]),
        ({"q": "phi"}, [3]),
        ({"q": "%"}, []),
        ({"outcome": "broken", "q": "id-4"}, []),
        ({"outcome": "no such", "endpoint": "x", "within": "7"}, [5, 4, 3, 2, 1, 0]),
        ({"within": "900"}, []),
    ],
)
def test_it_filters_and_searches(viewer, fields, expected):
    changes: dict[int, dict[str, Any]] = {
        1: {"outcome": "broken"}, 2: {"endpoint_id": 8}, 3: {"model": "phi%"}, 5: {"client": "10.0.0.9"},
    }  # fmt: skip
    made = {number: log(number, **changes.get(number, {})).pk for number in range(6)}

    assert keys(read(viewer, **fields)) == [made[number] for number in expected]


def test_it_gives_a_live_page_what_came_since(viewer):
    made = [log(10 * number).pk for number in range(4)]

    assert keys(read(viewer, "/requests/rows/", after=str(made[2] - 1))) == made[:1:-1]
    assert keys(read(viewer, "/requests/rows/", after=str(made[1]), outcome="broken")) == []
    assert keys(read(viewer, "/requests/rows/", after="nonsense")) == []
    assert keys(read(viewer, "/requests/rows/")) == []


def test_it_tells_one_request_whole(viewer):
    row = log(
        model="fast",
        sent_model="llama3",
        attempts=2,
        first_byte_ms=60.0,
        input_tokens=12,
        output_tokens=30,
        total_tokens=42,
        attempt_notes='[{"endpoint_id":6,"endpoint":"gpu-0","began_ms":1,"waited_ms":0,"ms":9,"status":null,'
        '"verdict":"failed","error":"not_connected_refused"},{"endpoint_id":7,"endpoint":"gpu-1","began_ms":40,'
        '"waited_ms":30,"ms":80,"status":200,"verdict":"good","error":""}]',
        trace='{"action":"routed","strategy":"alias","reason":"why","rule":"night","candidates":[["gpu-0"]],'
        '"dropped":{"status":2}}',
    )

    text = read(viewer, f"/requests/{row.pk}/")

    for words in (
        "1. gpu-0",
        "it refused the connection",
        "waited 30 ms in line",
        "Rule: night",
        "Left out: 2 (its status takes no traffic)",
    ):
        assert words in text
    assert "12 in, 30 out" in text
    assert "/explain/?path=%2Folla%2Fopenai" in text
    assert "1. gpu-0" in read(viewer, "/requests/id/id-0/")


@pytest.mark.parametrize("address", ["/requests/1/", f"/requests/{2**64}/", "/requests/id/nobody/"])
def test_it_does_not_know_what_never_was(viewer, address):
    assert viewer.get(address).status_code == 404


def test_it_draws_waiting_and_attempts_to_scale():
    note = {"endpoint": "a", "endpoint_id": 1, "began_ms": 50, "waited_ms": 25, "ms": 50, "status": 200}
    (bar,) = draw_waterfall([{**note, "verdict": "good", "error": ""}], 100.0, 75.0)

    assert (bar["wait_x"], bar["wait_width"], bar["x"], bar["width"], bar["first"]) == (250, 250, 500, 500, 750)


@pytest.mark.parametrize(("total", "ms"), [(0.0, None), (0.0, 5), (10.0, 1e9), (10.0, None)])
def test_it_draws_inside_the_lines_whatever_was_measured(total, ms):
    note = {"endpoint": "a", "endpoint_id": 1, "began_ms": 5, "waited_ms": 9, "ms": ms, "status": None}
    (bar,) = draw_waterfall([{**note, "verdict": "", "error": "x"}], total, None)

    assert 0 <= bar["wait_x"] <= bar["x"] <= 1000
    assert 0 <= bar["x"] + bar["width"] <= 1002


def test_it_shows_hostile_text_as_text(viewer):
    evil = "<script>alert(1)</script>"
    row = log(request_id=evil, model=evil, endpoint=evil, client=evil, error_code=evil, metrics='{"<b>": "<i>"}')
    for address in ("/requests/", f"/requests/{row.pk}/"):
        raw = viewer.get(address).content.decode()
        assert evil not in raw
        assert "<b>" not in raw


def test_it_costs_the_same_however_much_there_is(viewer, django_assert_max_num_queries):
    Endpoint.objects.create(name="gpu-1", url="http://192.0.2.1:1")
    counts = []
    for number in range(2):
        for each in range(60 * number + 1):
            log(1000 * number + each)
        with django_assert_max_num_queries(9) as seen:
            viewer.get("/requests/")
        counts.append(len(seen))
    assert counts[0] == counts[1]
