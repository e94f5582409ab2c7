"""Passthrough or translation, and the statistics of translators."""

from __future__ import annotations

import pytest

from tests.translation.shapes import PIXEL, assistant, body, call, result, text, tool, user
from translation.anthropic_request import parse_request
from translation.mode import (
    FallbackReason,
    Limitation,
    Mode,
    NativeSupport,
    RequestNeeds,
    choose_mode,
    find_needs,
    lacks_native_path,
)
from translation.translator_stats import TranslatorTotals, build_statistics, format_latency, format_rate

IMAGE = {"type": "image", "source": PIXEL}
PDF = {"type": "document", "source": {"type": "base64", "data": "x"}}


@pytest.mark.parametrize(
    ("turns", "fields", "needs"),
    [
        ([user("image of a document")], {}, RequestNeeds()),
        ([user([text("image")])], {}, RequestNeeds()),
        ([user([IMAGE])], {}, RequestNeeds(vision=True)),
        ([user(IMAGE)], {}, RequestNeeds(vision=True)),
        ([user([PDF])], {}, RequestNeeds(documents=True)),
        ([user("x"), assistant([call()]), user([result("A", [IMAGE])])], {}, RequestNeeds(vision=True)),
        (
            [user([{"type": "document", "source": {"type": "content", "content": [IMAGE]}}])],
            {},
            RequestNeeds(vision=True, documents=True),
        ),
        ([user([{"type": "document", "source": 5}])], {}, RequestNeeds(documents=True)),
        ([user([IMAGE]), user([IMAGE]), user([PDF])], {}, RequestNeeds(vision=True, documents=True)),
        ([user([{"type": "document", "source": 5}]), user([{"type": "image"}])], {}, RequestNeeds(documents=True)),
        ([user([{"type": 5, "image": 1}])], {}, RequestNeeds()),
        ([user([{"type": {}, "image": 1, "source": 1}, {"type": ["document"]}])], {}, RequestNeeds()),
        ([user("x")], {"tools": [tool()]}, RequestNeeds(tools=True)),
        ([user("x")], {"tools": []}, RequestNeeds()),
        ([user("x")], {"tools": [tool(type="custom")]}, RequestNeeds(tools=True)),
        (
            [user("x")],
            {"tools": [{"type": "web_search_20250305", "name": "w"}]},
            RequestNeeds(tools=True, server_tools=True),
        ),
        ([user("x")], {"thinking": {"type": "adaptive"}}, RequestNeeds(thinking=True)),
        ([user("x")], {"thinking": True}, RequestNeeds(thinking=True)),
        ([user("x")], {"thinking": {"type": "disabled"}}, RequestNeeds()),
        ([user("x")], {"thinking": None}, RequestNeeds()),
        ([user("x")], {"thinking": {"type": []}}, RequestNeeds(thinking=True)),
    ],
)
def test_it_finds_what_a_request_needs(turns, fields, needs):
    assert find_needs(parse_request(body(*turns, **fields))) == needs


def test_it_leaves_broken_contents_to_others():
    data = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":"\xff"}]}]}'
    )
    assert find_needs(parse_request(data)) == RequestNeeds()


EVERYTHING = RequestNeeds(tools=True, thinking=True, vision=True, documents=True, server_tools=True)


@pytest.mark.parametrize(
    ("needs", "limitations", "missing"),
    [
        (RequestNeeds(), set(Limitation), ()),
        (EVERYTHING, set(), ()),
        (EVERYTHING, {"no_token_counting", "token_counting_404", "novel"}, ()),
        (RequestNeeds(tools=True), {"no_tool_use"}, ("no_tool_use",)),
        (RequestNeeds(thinking=True), {"no_extended_thinking"}, ("no_extended_thinking",)),
        (RequestNeeds(vision=True), {"no_vision"}, ("no_vision",)),
        (RequestNeeds(documents=True), {"no_documents"}, ("no_documents",)),
        (RequestNeeds(server_tools=True), {"no_server_tools"}, ("no_server_tools",)),
        (EVERYTHING, {"no_vision", "no_tool_use"}, ("no_tool_use", "no_vision")),
    ],
)
def test_it_passes_through_unless_something_needed_is_lacking(needs, limitations, missing):
    choice = choose_mode(needs, NativeSupport(enabled=True, limitations=frozenset(limitations)))
    assert choice.mode is (Mode.TRANSLATION if missing else Mode.PASSTHROUGH)
    assert choice.missing == missing


@pytest.mark.parametrize(("enabled", "allowed"), [(False, True), (True, False), (False, False)])
def test_it_translates_where_passthrough_is_not_to_be_had(enabled, allowed):
    choice = choose_mode(RequestNeeds(), NativeSupport(enabled=enabled), passthrough_enabled=allowed)
    assert (choice.mode, choice.reason) == (Mode.TRANSLATION, FallbackReason.CANNOT_PASSTHROUGH)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (405, b"", True),
        (501, b"", True),
        (404, b"404 page not found", True),
        (404, b'{"detail":"Not Found"}', True),
        (404, b'{"type":"error","error":{"message":"The model `x` does not exist."}}', False),
        (400, b"", False),
        (200, b"", False),
    ],
)
def test_it_tells_a_missing_path_from_a_missing_model(status, answer, expected):
    assert lacks_native_path(status, answer) is expected


# ---- statistics


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(0, 0, "0%"), (0, 5, "0%"), (5, 5, "100%"), (2, 3, "66.7%"), (1, 1000, "0.1%")]
)
def test_it_formats_rates(part, whole, expected):
    assert format_rate(part, whole) == expected


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(0, 0, "0ms"), (490.9, 2, "245ms"), (2999, 3, "999ms"), (3000, 3, "1.0s"), (5120, 2, "2.6s")],
)
def test_it_formats_latencies(total, count, expected):
    assert format_latency(total, count) == expected


def test_it_reports_nothing_as_zeros():
    report = build_statistics([], "T")
    assert report == {
        "timestamp": "T",
        "translators": [],
        "summary": {
            "total_translators": 0,
            "active_translators": 0,
            "total_requests": 0,
            "overall_success_rate": "0%",
            "total_passthrough": 0,
            "total_translations": 0,
            "overall_passthrough_rate": "0%",
            "total_streaming": 0,
            "total_non_streaming": 0,
        },
    }


def totals() -> TranslatorTotals:
    return TranslatorTotals(
        name="anthropic",
        requests=4,
        successes=2,
        passthrough=1,
        translated=3,
        streaming=3,
        latency=500.0,
        fallbacks={"cannot_passthrough": 2, "no_compatible_endpoints": 1},
        upstream_errors=1,
        stream_failures=1,
        dropped_features={"top_k": 1, "block": 2},
        by_model={"b": 1, "a": 3},
    )


def test_it_reports_translators_by_requests():
    report = build_statistics([TranslatorTotals("idle"), totals()], "T")
    first, second = report["translators"]
    assert (first["translator_name"], second["translator_name"]) == ("anthropic", "idle")
    assert first["success_rate"] == "50.0%"
    assert first["failed_requests"] == 2
    assert first["passthrough_rate"] == "25.0%"
    assert first["non_streaming_requests"] == 1
    assert first["fallback_cannot_passthrough"] == 2
    assert first["fallback_no_compatible_endpoints"] == 1
    assert first["fallback_translator_does_not_support_passthrough"] == 0
    assert first["average_latency"] == "250ms"
    assert list(first["dropped_features"]) == ["block", "top_k"]
    assert report["summary"]["active_translators"] == 1
    assert report["summary"]["overall_success_rate"] == "50.0%"


def test_it_counts_any_answer_as_success_in_the_lenient_view():
    report = build_statistics([totals()], "T", lenient=True)
    assert report["translators"][0]["successful_requests"] == 4
    assert report["summary"]["overall_success_rate"] == "100%"
