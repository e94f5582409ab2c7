"""Whole answers of chat backends as Anthropic messages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from anthropic.types import Message

from tests.translation.replies import FACTS, answer, delta, piece, sse, tool_call, tools, usage_chunk
from translation.anthropic_response import build_anthropic_response
from translation.errors import TranslationError
from translation.ids import sign_thinking
from translation.tool_arguments import Quality, repair_arguments


def message_of(body: bytes, **facts):
    """The Anthropic message of an answer, checked against the SDK's own model."""
    message = json.loads(build_anthropic_response(body, replace(FACTS, **facts)).body)
    Message.model_validate(message, strict=True)
    return message


def content_of(message, **facts):
    return message_of(answer(message), **facts)["content"]


def failure_of(body: bytes, **facts) -> TranslationError:
    with pytest.raises(TranslationError) as failure:
        build_anthropic_response(body, replace(FACTS, **facts))
    return failure.value


def text(value):
    return {"type": "text", "text": value}


def thinking(value, shown=None):
    return {
        "type": "thinking",
        "thinking": value if shown is None else shown,
        "signature": sign_thinking(value, FACTS.signature_key),
    }


def use(call_id="A", name="f", **given):
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def test_it_builds_a_whole_message():
    assert message_of(answer()) == {
        "id": "msg_0112drXXUifSrRnXLGbXg8E",
        "type": "message",
        "role": "assistant",
        "model": "local",
        "content": [text("hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "output_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "a"}, [text("a")]),
        ({"content": ""}, [text("")]),
        ({"content": None}, [text("")]),
        ({}, [text("hi")]),
        (
            {"content": [{"type": "text", "text": "a"}, "b", {"type": "output_text", "text": "c"}, 5]},
            [text("abc")],
        ),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}, 5]}, text("a")]},
            [thinking("t"), text("a")],
        ),
        ({"content": [{"type": "thinking", "thinking": "t"}, text("a")]}, [thinking("t"), text("a")]),
        ({"content": 5, "reasoning": {}}, [text("")]),
        ({"content": "a", "reasoning": "r"}, [thinking("r"), text("a")]),
        ({"content": "a", "reasoning_content": "r"}, [thinking("r"), text("a")]),
        ({"content": "a", "reasoning": "", "reasoning_content": "r"}, [thinking("r"), text("a")]),
        ({"content": "a", "reasoning": "r", "reasoning_content": "s"}, [thinking("r"), text("a")]),
        (
            {"content": "a", "reasoning_details": [{"text": "r"}, {"summary": "s"}, 5, {}]},
            [thinking("rs"), text("a")],
        ),
        ({"content": None, "reasoning": "r"}, [thinking("r")]),
        ({"content": "a", "tool_calls": []}, [text("a")]),
        ({"content": "a", "tool_calls": "x"}, [text("a")]),
        ({"content": None, "tool_calls": [tool_call(arguments='{"x":1}')]}, [use(x=1)]),
        (
            {"content": "a", "reasoning": "r", "tool_calls": [tool_call("A"), tool_call("B", "g")]},
            [thinking("r"), text("a"), use("A"), use("B", "g")],
        ),
        ({"function_call": {"name": "f", "arguments": '{"x":1}'}}, None),
        ({"tool_calls": [{"id": "A", "type": "function"}, 5]}, [text("")]),
        ({"tool_calls": [tool_call(arguments={"x": 1})]}, [use(x=1)]),
        ({"tool_calls": [tool_call(arguments=None)]}, [use()]),
        ({"tool_calls": [tool_call(arguments="")]}, [use()]),
        ({"tool_calls": [tool_call("A", arguments='{"a":1}'), tool_call("A", arguments='{"b":2}')]}, None),
    ],
)
def test_it_translates_content(message, content):
    built = content_of(message)
    if content is None:
        assert [block["type"] for block in built].count("tool_use") == len(message.get("tool_calls", [1]))
    else:
        assert built == content


def test_it_keeps_large_integers_and_numbers_exact():
    body = answer({"tool_calls": [tool_call(arguments='{"n": 123456789012345678901234567890, "f": 1.10}')]})
    built = build_anthropic_response(body, FACTS).body
    assert b'{"n": 123456789012345678901234567890, "f": 1.10}' in built


def test_it_invents_ids_for_calls_without():
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g"}}]
    first, second = content_of({"tool_calls": calls})
    assert first["id"].startswith("toolu_01")
    assert second["id"].startswith("toolu_01")
    assert first["id"] != second["id"]


def test_it_gives_tools_their_own_names_back():
    message = {"tool_calls": [tool_call(name="short_1")]}
    assert content_of(message, renamed={"short_1": "a.long.name"})[0]["name"] == "a.long.name"


def test_it_refuses_a_call_without_name():
    body = answer({"tool_calls": [{"id": "A", "function": {"arguments": "{}"}}]})
    assert failure_of(body).status == 502


def test_it_hides_thinking_from_a_client_that_wants_none():
    assert content_of({"content": "a", "reasoning": "r"}, omit_thinking=True)[0] == thinking("r", shown="")


def test_it_splits_inline_thinking_where_asked():
    message = {"content": "<think>\nr\n</think>\n\na"}
    assert content_of(message, think_tags=True) == [thinking("r"), text("a")]
    assert content_of(message) == [text("<think>\nr\n</think>\n\na")]


def test_it_shows_a_refusal():
    message = message_of(answer({"content": None, "refusal": "I cannot"}))
    assert message["content"] == [text("I cannot")]
    assert message["stop_reason"] == "refusal"
    assert message["stop_details"] == {"type": "refusal", "category": None, "explanation": None}


# ---- tool arguments


@pytest.mark.parametrize(
    ("raw", "expected", "quality"),
    [
        ("", {}, Quality.SOUND),
        ("  ", {}, Quality.SOUND),
        ('{"a": 1}', {"a": 1}, Quality.SOUND),
        (' {"a": 1} \n', {"a": 1}, Quality.SOUND),
        ('```json\n{"a": 1}\n```', {"a": 1}, Quality.REPAIRED),
        ('```{"a": 1}```', {"a": 1}, Quality.REPAIRED),
        ('"{\\"a\\": 1}"', {"a": 1}, Quality.REPAIRED),
        ('{"a": 1} and then', {"a": 1}, Quality.REPAIRED),
        ('{"a": 1}{"a": 1}', {"a": 1}, Quality.REPAIRED),
        ('{"a": NaN} x', None, Quality.MALFORMED),
        ('{"a": ', None, Quality.MALFORMED),
        ("[1]", None, Quality.MALFORMED),
        ("null", None, Quality.MALFORMED),
        ('"text"', None, Quality.MALFORMED),
        ("5", None, Quality.MALFORMED),
        ("{" * 3000, None, Quality.MALFORMED),
        ('{"a":' * 3000, None, Quality.MALFORMED),
    ],
)
def test_it_repairs_arguments_or_shows_that_it_cannot(raw, expected, quality):
    arguments = repair_arguments(raw)
    assert arguments.quality is quality
    assert json.loads(arguments.text) == ({"_malformed_arguments": raw} if expected is None else expected)


def test_it_counts_what_it_repaired():
    calls = [tool_call("A", arguments="{"), tool_call("B", arguments='{"a":1} x'), tool_call("C")]
    report = build_anthropic_response(answer({"tool_calls": calls}), FACTS).report
    assert (report.malformed_arguments, report.repaired_arguments) == (1, 1)


# ---- why it ended


@pytest.mark.parametrize(
    ("message", "finish", "choice", "expected"),
    [
        ({"content": "a"}, "stop", {}, ("end_turn", None)),
        ({"content": "a"}, None, {}, ("end_turn", None)),
        ({"content": "a"}, "novel", {}, ("end_turn", None)),
        ({"content": "a"}, 5, {}, ("end_turn", None)),
        ({"content": "a"}, "length", {}, ("max_tokens", None)),
        ({"content": "a"}, "content_filter", {}, ("refusal", None)),
        ({"content": "a"}, "tool_calls", {}, ("end_turn", None)),
        ({"content": "a"}, "function_call", {}, ("end_turn", None)),
        ({"tool_calls": [tool_call()]}, "tool_calls", {}, ("tool_use", None)),
        ({"tool_calls": [tool_call()]}, "stop", {}, ("tool_use", None)),
        ({"tool_calls": [tool_call()]}, None, {}, ("tool_use", None)),
        ({"tool_calls": [tool_call()]}, "length", {}, ("max_tokens", None)),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "function_call", {}, ("tool_use", None)),
        ({"content": "a"}, "stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ({"content": "a"}, "stop", {"matched_stop": "END"}, ("stop_sequence", "END")),
        ({"content": "a"}, "stop", {"stop_reason": "</s>"}, ("end_turn", None)),
        ({"content": "a"}, "stop", {"stop_reason": 128009}, ("end_turn", None)),
        ({"content": "a"}, "stop", {"matched_stop": 2}, ("end_turn", None)),
    ],
)
def test_it_translates_the_finish_reason(message, finish, choice, expected):
    built = message_of(answer(message, finish, choice=choice), stop_sequences=("", "END"))
    assert (built["stop_reason"], built["stop_sequence"]) == expected


@pytest.mark.parametrize(
    ("window", "reason"), [(8, "model_context_window_exceeded"), (9, "max_tokens"), (None, "max_tokens")]
)
def test_it_tells_a_full_window_from_a_reached_limit(window, reason):
    assert message_of(answer(finish="length"), context_length=window)["stop_reason"] == reason


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_it_fails_when_the_backend_says_it_failed(finish):
    assert failure_of(answer(finish=finish)).status == 502


def test_it_answers_a_warm_up_with_nothing():
    message = message_of(answer({"content": "x"}, "length"), warm_up=True)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0


# ---- usage


def usage(**counts):
    base = {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    return {**base, **counts}


@pytest.mark.parametrize(
    ("given", "expected", "estimated"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, usage(input_tokens=9, output_tokens=2), False),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            usage(input_tokens=5, output_tokens=2, cache_read_input_tokens=4),
            False,
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            },
            usage(input_tokens=2, output_tokens=2, cache_read_input_tokens=4, cache_creation_input_tokens=3),
            False,
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 99}},
            usage(input_tokens=0, output_tokens=2, cache_read_input_tokens=9),
            False,
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 6}},
            usage(input_tokens=9, output_tokens=8, output_tokens_details={"thinking_tokens": 6}),
            False,
        ),
        (None, usage(input_tokens=7, output_tokens=2), True),
        ({}, usage(input_tokens=7, output_tokens=2), True),
        ([], usage(input_tokens=7, output_tokens=2), True),
        ({"prompt_tokens": 0, "completion_tokens": 0}, usage(input_tokens=7), True),
        ({"prompt_tokens": "9", "completion_tokens": True}, usage(input_tokens=7, output_tokens=2), True),
        ({"prompt_tokens": 9, "completion_tokens": 10**400}, usage(input_tokens=9, output_tokens=2), True),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, usage(input_tokens=9, output_tokens=2), True),
    ],
)
def test_it_translates_usage_or_estimates_it(given, expected, estimated):
    response = build_anthropic_response(answer({"content": "12345678"}, usage=given), FACTS)
    assert json.loads(response.body)["usage"] == expected
    assert response.report.usage_estimated is estimated


def test_it_reports_the_backends_own_names():
    report = build_anthropic_response(answer(), FACTS).report
    assert (report.upstream_id, report.upstream_model, report.stop_reason) == ("c-1", "up", "end_turn")


# ---- what is no answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>oops</html>",
        b"{",
        b"{}",
        b"\xff",
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [{}]}',
        b'{"choices": [5]}',
        b'{"choices": [{"index": 1, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": [], "message": {"content": "x"}}]}',
        b'{"choices": [{"message": "x"}]}',
        b'{"usage": {"prompt_tokens": 1}}',
        b"[1]",
        b": comment\n\n",
        b"data: nonsense\n\n",
    ],
)
def test_it_refuses_what_is_no_answer(body):
    assert failure_of(body).status == 502


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ({"message": "boom"}, 500, "api_error"),
        ({"message": "boom", "code": 429}, 429, "rate_limit_error"),
        ({"message": "boom", "code": "503"}, 503, "api_error"),
        ({"message": "boom", "code": 42}, 500, "api_error"),
        ({"message": "boom", "type": "overloaded_error"}, 529, "overloaded_error"),
        ("boom", 500, "api_error"),
        ({"code": "context_length_exceeded", "message": "maximum context length is 4096 tokens"}, 400, None),
    ],
)
def test_it_maps_an_error_that_came_as_success(error, status, kind):
    found = failure_of(json.dumps({"error": error}).encode())
    assert found.status == status
    assert found.kind == (kind or "invalid_request_error")


def test_it_maps_an_error_object_without_words():
    found = failure_of(b'{"object": "error"}')
    assert (found.status, found.message) == (500, "The backend reported an error.")


# ---- an event stream nobody asked for


def test_it_puts_an_event_stream_together():
    body = sse(
        delta(role="assistant"),
        delta(reasoning="r"),
        delta(content="a"),
        delta(content="b"),
        tools(piece(0, "A", "f", '{"x"')),
        tools(piece(0, None, None, ":1}")),
        delta(finish="tool_calls"),
        usage_chunk(11, 4),
    )
    message = message_of(body)
    assert message["content"] == [thinking("r"), text("ab"), use(x=1)]
    assert (message["stop_reason"], message["usage"]["input_tokens"]) == ("tool_use", 11)


@pytest.mark.parametrize("done", [True, False])
def test_it_accepts_a_stream_with_either_kind_of_end(done):
    assert (
        message_of(sse(delta(content="a", finish=None if done else "stop"), done=done))["stop_reason"]
        == "end_turn"
    )


def test_it_counts_chunks_it_could_not_read():
    body = sse(delta(content="a"), b"data: {broken\n\n", b"data:\n\n", delta(finish="stop"))
    assert build_anthropic_response(body, FACTS).report.bad_chunks == 1


@pytest.mark.parametrize(
    "body",
    [
        sse(delta(content="a"), done=False),
        sse(delta(content="a"), {"error": {"message": "boom"}}),
        b"data: " + b"x" * (17 * 1024 * 1024),
    ],
)
def test_it_refuses_a_stream_that_broke_off(body):
    assert failure_of(body).status in {500, 502}
