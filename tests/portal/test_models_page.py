"""The catalogue's pages: every model once, filters, places, drift, one model."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from endpoints.models import DiscoveredModel, ModelAlias
from olla_site.portal.model_words import write_count
from olla_site.portal.models_page import PAGE
from proxy.live import live
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_counters_of_use():
    live.reset()
    yield
    live.reset()


def read(client, address: str = "/models/", **fields) -> str:
    load_now()
    response = client.get(address, fields)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def names(text: str) -> list[str]:
    return re.findall(r'class="name"[^>]*>(.*?)</a>', text)


def note(row, model: str, **facts: Any) -> None:
    """What discovery would have learned of a model."""
    DiscoveredModel.objects.filter(endpoint=row, name=model).update(**facts)


def test_it_says_when_there_is_nothing(viewer):
    assert "No models yet" in read(viewer)


def test_it_shows_each_model_once_with_where_it_is(viewer):
    lease()
    one = endpoint("one", "llama3", "qwen3")
    endpoint("two", "llama3", status="offline")
    note(one, "llama3", state="loaded", size_bytes=5 * 1024**3, context_length=131072)

    text = read(viewer)

    assert names(text) == ["llama3", "qwen3"]
    assert "2 models, 2 ready to use" in text
    places = re.findall(r'class="tag place([^"]*)"[^>]*title="(.*?)"', text)
    assert places[:2] == [(" in-memory", "one: loaded"), (" gone", "two: unavailable")]
    assert "5.00 GB" in text
    assert "128k" in text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"q": "LAMA"}, ["llama3"]),
        ({"q": "%"}, []),
        ({"family": "qwen"}, ["qwen3"]),
        ({"now": "loaded"}, ["llama3"]),
        ({"now": "away"}, ["phi4"]),
        ({"now": "usable"}, ["llama3", "qwen3"]),
        ({"endpoint": "nonsense"}, []),
        ({"sort": "size"}, ["qwen3", "llama3", "phi4"]),
        ({"sort": "nonsense", "page": "-1"}, ["llama3", "phi4", "qwen3"]),
        ({"page": "99"}, ["llama3", "phi4", "qwen3"]),
    ],
)
def test_it_filters_and_sorts(viewer, fields, expected):
    lease()
    row = endpoint("one", "llama3", "qwen3")
    endpoint("two", "phi4", status="offline")
    note(row, "llama3", state="loaded", size_bytes=10)
    note(row, "qwen3", size_bytes=20, family="qwen")

    assert names(read(viewer, **fields)) == expected


def test_it_marks_what_names_suggest(viewer):
    lease()
    told = endpoint("one", "told-vision", "llama-3.1-vision")
    note(told, "told-vision", capabilities=["tools"], context_length=8192)
    assert names(read(viewer, can="vision")) == ["llama-3.1-vision"]
    text = read(viewer)
    assert "chat?, vision?" in text
    assert "~128k" in text
    assert "tools?" not in text
    assert read(viewer, "/models/llama-3.1-vision").count("(guessed from the name)") == 2


def test_it_pages_through_many(viewer):
    lease()
    endpoint("one", *(f"m{number:04}" for number in range(PAGE + 5)))

    assert names(read(viewer)) == [f"m{number:04}" for number in range(PAGE)]
    assert names(read(viewer, page=2)) == [f"m{number:04}" for number in range(PAGE, PAGE + 5)]
    assert f"{PAGE + 5} models" in read(viewer)


def test_it_reports_names_that_are_not_the_same_everywhere(viewer):
    lease()
    for name, digest in (("one", "ab12" * 16), ("two", "cd34" * 16)):
        note(endpoint(name, "llama3"), "llama3", digest=digest)

    text = read(viewer)

    assert "<strong>1 name</strong> not the same everywhere" in text
    assert "ab12" * 3 in text
    assert "cd34" * 3 in text


def test_it_tells_one_model_whole(viewer):
    lease()
    row = endpoint("one", "org/llama-3:8b")
    note(row, "org/llama-3:8b", digest="sha256:" + "a" * 64, quantization="Q4_K_M")
    ModelAlias.objects.create(name="fast", targets="org/llama-3:8b")

    text = read(viewer, "/models/org/llama-3:8b")

    assert "ready to use" in text
    assert "<code>aaaaaaaaaaaa</code>" in text
    assert re.search(r"<dt>Aliases</dt><dd><code[^>]*>fast</code>", text)
    assert "Nobody has asked for it yet." in text
    assert "/explain/?path=" in text


def test_it_does_not_know_other_models(viewer):
    load_now()
    assert viewer.get("/models/none").status_code == 404


def test_it_shows_hostile_names_as_text(viewer):
    lease()
    evil = "<script>alert(1)</script>\u202e" + "x" * 150
    endpoint("one", evil)
    load_now()
    for address in ("/models/", "/models/" + evil.replace("/", "%2F")):
        response = viewer.get(address)
        assert response.status_code == 200
        assert "<script>alert" not in response.content.decode()


def test_it_stays_light_with_a_large_fleet(viewer, django_assert_max_num_queries):
    lease()
    shared = [f"shared-model-with-a-rather-long-name-{number}:latest" for number in range(20)]
    for number in range(100):
        endpoint(f"endpoint-with-a-long-name-{number}", *shared, f"own-{number}-a", f"own-{number}-b")
    load_now()

    with django_assert_max_num_queries(6):
        response = viewer.get("/models/")

    assert len(response.content) < 250_000


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, ""), (131072, "128k"), (2048, "2k"), (1_000_000, "1000k"), (500, "500")]
)
def test_it_writes_context_lengths_as_people_do(value, text):
    assert write_count(value) == text
