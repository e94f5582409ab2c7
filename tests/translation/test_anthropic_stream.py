"""Streams of chat backends as Anthropic events; every output goes through the grammar checker."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.translation.grammar import read_stream
from tests.translation.replies import (
    FACTS,
    answer,
    delta,
    piece,
    run,
    sse,
    streamed,
    tool_call,
    tools,
    usage_chunk,
)
from translation.anthropic_stream import AnthropicStream
from translation.errors import TranslationError
from translation.ids import sign_thinking

LIVE = replace(FACTS, live_arguments=True)


def blocks(stream):
    return [
        {key: value for key, value in block.items() if key not in {"type", "signature"}}
        for block in stream.message["content"]
    ]


# ---- text and thinking


def test_it_streams_text():
    stream = streamed(delta(role="assistant"), delta(content="a"), delta(content="b"), delta(finish="stop"))
    assert stream.outline == ["start", "+text", "text_delta", "text_delta", "-", "delta", "stop"]
    assert blocks(stream) == [{"text": "ab"}]
    assert stream.message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    "fields",
    [{}, {"role": "assistant"}, {"content": None}, {"content": ""}, {"tool_calls": []}, {"tool_calls": None}],
)
def test_it_makes_no_block_of_nothing(fields):
    assert streamed(delta(**fields), delta(finish="stop")).outline == ["start", "delta", "stop"]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_it_streams_signed_thinking_before_text(name):
    stream = streamed(delta(**{name: "r"}), delta(**{name: "s"}), delta(content="a"), delta(finish="stop"))
    assert stream.outline == [
        *["start", "+thinking", "thinking_delta", "thinking_delta", "signature_delta", "-"],
        *["+text", "text_delta", "-", "delta", "stop"],
    ]
    assert stream.message["content"][0]["signature"] == sign_thinking("rs", FACTS.signature_key)


def test_it_hides_thinking_from_a_client_that_wants_none():
    stream = streamed(
        delta(reasoning="r"), delta(content="a", finish="stop"), facts=replace(FACTS, omit_thinking=True)
    )
    assert stream.outline[1:4] == ["+thinking", "signature_delta", "-"]
    assert blocks(stream) == [{"thinking": ""}, {"text": "a"}]


def test_it_orders_one_chunk_that_holds_everything():
    chunk = delta(reasoning="r", content="a", tool_calls=[piece(0, "A", "f", "{}")])
    stream = streamed(chunk, delta(finish="tool_calls"))
    assert [block["type"] for block in stream.message["content"]] == ["thinking", "text", "tool_use"]


def test_it_splits_inline_thinking_where_asked():
    facts = replace(FACTS, think_tags=True)
    pieces = [delta(content=part) for part in ("<th", "ink>r", "\n</thi", "nk>\n", "\na<b", "c")]
    stream = streamed(*pieces, delta(finish="stop"), facts=facts)
    assert blocks(stream) == [{"thinking": "r"}, {"text": "a<bc"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>r", [{"thinking": "r"}]),
        ("<think>r\n", [{"thinking": "r"}]),
        ("<think>r</thi", [{"thinking": "r</thi"}]),
        ("<thi", [{"text": "<thi"}]),
        ("<think>r</think>\n", [{"thinking": "r"}]),
        ("  plain", [{"text": "  plain"}]),
        ("", []),
    ],
)
def test_it_gives_back_what_the_splitter_held(text, expected):
    assert blocks(streamed(delta(content=text, finish="stop"), facts=replace(FACTS, think_tags=True))) == expected


def test_it_reads_lists_of_parts_and_refusals():
    content = [{"type": "thinking", "thinking": [{"text": "r"}]}, {"type": "text", "text": "a"}]
    stream = streamed(delta(content=content), delta(refusal="no"), delta(finish="stop"))
    assert blocks(stream) == [{"thinking": "r"}, {"text": "ano"}]
    assert stream.message["stop_reason"] == "refusal"
    assert stream.message["stop_details"]["type"] == "refusal"


def test_it_ignores_further_choices():
    chunk = {"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]}
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    assert blocks(streamed(chunk, other, delta(finish="stop"))) == [{"text": "yes"}]


# ---- tools


def test_it_streams_text_then_a_tool():
    stream = streamed(
        delta(content="a"),
        tools(piece(0, "A", "f", "")),
        tools(piece(0, None, None, '{"x"')),
        tools(piece(0, None, None, ":1}")),
        delta(finish="tool_calls"),
    )
    assert stream.outline == [
        *["start", "+text", "text_delta", "-", "+tool_use", "input_json_delta", "-", "delta", "stop"]
    ]
    assert blocks(stream)[1] == {"id": "A", "name": "f", "input": {"x": 1}}
    assert stream.message["stop_reason"] == "tool_use"


def test_it_keeps_tool_text_tool_in_order():
    stream = streamed(
        tools(piece(0, "A", "f", "{}")),
        delta(content="between"),
        tools(piece(1, "B", "g", "{}")),
        delta(reasoning="r"),
        delta(finish="tool_calls"),
    )
    assert [block["type"] for block in stream.message["content"]] == ["tool_use", "text", "tool_use", "thinking"]


@pytest.mark.parametrize("facts", [FACTS, LIVE])
def test_it_streams_fifteen_tools(facts):
    chunks = [tools(piece(slot, f"id{slot}", "f", f'{{"n":{slot}}}')) for slot in range(15)]
    stream = streamed(*chunks, delta(finish="tool_calls"), facts=facts)
    assert [block["input"]["n"] for block in stream.message["content"]] == list(range(15))


@pytest.mark.parametrize("facts", [FACTS, LIVE])
@pytest.mark.parametrize(
    "order",
    [
        ["a0", "b0", "a1", "b1"],
        ["a0", "b0", "b1", "a1"],
        ["b0", "a0", "b1", "a1"],
        ["a0", "a1", "b0", "b1"],
        ["a0", "b0", "a1", "b1", "a2"],
    ],
)
def test_it_untangles_interleaved_calls(order, facts):
    pieces = {
        "a0": piece(0, "A", "f", '{"x"'),
        "a1": piece(0, None, None, ":1}"),
        "a2": piece(0, None, None, " \n"),
        "b0": piece(1, "B", "g", '{"y"'),
        "b1": piece(1, None, None, ":2}"),
    }
    stream = streamed(*[tools(pieces[name]) for name in order], delta(finish="tool_calls"), facts=facts)
    inputs = {block["name"]: block["input"] for block in stream.message["content"]}
    assert inputs == {"f": {"x": 1}, "g": {"y": 2}}
    assert [block["name"] for block in stream.message["content"]] == (
        ["g", "f"] if order[0] == "b0" else ["f", "g"]
    )


@pytest.mark.parametrize("facts", [FACTS, LIVE])
@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # arguments before id and name
        ([piece(0, None, None, '{"x"'), piece(0, "A", "f", ":1}")], [("A", "f", {"x": 1})]),
        # id and name in different chunks
        ([piece(0, "A"), piece(0, None, "f"), piece(0, None, None, "{}")], [("A", "f", {})]),
        # everything repeated in each chunk
        ([piece(0, "A", "f", '{"x"'), piece(0, "A", "f", ":1}")], [("A", "f", {"x": 1})]),
        # no index at all
        ([piece(None, "A", "f", '{"x"'), piece(None, None, None, ":1}")], [("A", "f", {"x": 1})]),
        # two whole calls under one index
        ([piece(0, "A", "f", "{}"), piece(0, "B", "g", '{"y":2}')], [("A", "f", {}), ("B", "g", {"y": 2})]),
        # the second call of an index without id
        ([piece(0, "A", "f", "{}"), piece(0, None, "f", '{"y":2}')], [("A", "f", {}), (None, "f", {"y": 2})]),
        # a new id in every chunk of one call
        ([piece(0, "A", "f", '{"x"'), piece(0, "Z", None, ":1}")], [("A", "f", {"x": 1})]),
        # a name in two pieces
        ([piece(0, "A", "get_"), piece(0, None, "it"), piece(0, None, None, "{}")], [("A", "get_it", {})]),
        # two known names without arguments are two calls
        ([piece(0, None, "f"), piece(0, None, "g")], [(None, "f", {}), (None, "g", {})]),
        # a name repeated while arguments run
        ([piece(0, "A", "f", '{"x"'), piece(0, None, "other", ":1}")], [("A", "f", {"x": 1})]),
        # arguments as an object
        ([piece(0, "A", "f", {"x": 1})], [("A", "f", {"x": 1})]),
        # no id ever
        ([piece(0, None, "f", "{}")], [(None, "f", {})]),
        # no arguments
        ([piece(0, "A", "f")], [("A", "f", {})]),
        # only an index
        ([{"index": 0}], []),
    ],
)
def test_it_understands_how_backends_cut_calls(pieces, expected, facts):
    known = replace(facts, tools=frozenset({"f", "g"}))
    stream = streamed(*[tools(part) for part in pieces], delta(finish="tool_calls"), facts=known)
    found = [(block["id"], block["name"], block["input"]) for block in stream.message["content"]]
    assert [entry[1:] for entry in found] == [entry[1:] for entry in expected]
    for (call_id, _, _), (wanted, _, _) in zip(found, expected, strict=True):
        assert call_id == wanted if wanted else call_id.startswith("toolu_01")


def test_it_reads_the_old_function_call():
    stream = streamed(
        delta(function_call={"name": "f", "arguments": '{"x"'}),
        delta(function_call={"arguments": ":1}"}),
        delta(finish="function_call"),
    )
    assert blocks(stream)[0]["input"] == {"x": 1}
    assert stream.message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("facts", [FACTS, LIVE])
def test_it_fails_for_a_call_that_is_never_named(facts):
    assert streamed(tools(piece(0, "A", None, "{}")), delta(finish="tool_calls"), facts=facts).error


def test_it_fails_for_arguments_of_a_call_that_has_ended():
    stream = streamed(
        tools(piece(0, "A", "f", "{}")),
        tools(piece(1, "B", "g", "{}")),
        tools(piece(0, None, None, '{"late":1}')),
        delta(finish="tool_calls"),
    )
    assert "had ended" in stream.error["message"]


def test_it_shows_arguments_that_cannot_be_repaired():
    data, stream = run(sse(tools(piece(0, "A", "f", '{"x":')), delta(finish="length")))
    message = read_stream(data).message
    assert message["content"][0]["input"] == {"_malformed_arguments": '{"x":'}
    assert message["stop_reason"] == "max_tokens"
    assert stream.report.malformed_arguments == 1


def test_it_repairs_arguments_before_they_are_sent():
    data, stream = run(sse(tools(piece(0, "A", "f", '```json\n{"x":1}\n```')), delta(finish="tool_calls")))
    assert read_stream(data).message["content"][0]["input"] == {"x": 1}
    assert stream.report.repaired_arguments == 1


def test_it_holds_an_unfinished_call_while_text_comes():
    stream = streamed(
        tools(piece(0, "A", "f", '{"x"')),
        delta(content="a"),
        tools(piece(0, None, None, ":1}")),
        delta(finish="tool_calls"),
    )
    assert blocks(stream) == [{"text": "a"}, {"id": "A", "name": "f", "input": {"x": 1}}]


def test_it_sends_live_arguments_as_they_come():
    stream = AnthropicStream(LIVE, 0.0)
    assert b"tool_use" in stream.feed(sse(tools(piece(0, "A", "f", '{"x"')), done=False), 0.0)
    assert b"partial_json" in stream.feed(sse(tools(piece(0, None, None, ":1}")), done=False), 0.0)


def test_it_counts_broken_live_arguments():
    data, stream = run(sse(tools(piece(0, "A", "f", '{"x":')), delta(content="a"), delta(finish="stop")), LIVE)
    assert [block["type"] for block in read_stream(data, live=True).message["content"]] == ["tool_use", "text"]
    assert stream.report.malformed_arguments == 1


def test_it_sends_long_arguments_in_pieces():
    arguments = json.dumps({"text": "x" * 500_000})
    stream = streamed(tools(piece(0, "A", "f", arguments)), delta(finish="tool_calls"))
    assert stream.outline.count("input_json_delta") == 62
    assert len(stream.message["content"][0]["input"]["text"]) == 500_000


def test_it_refuses_endless_calls_and_arguments():
    many = [tools(*[piece(slot, f"i{slot}", "f", "{}") for slot in range(600)])]
    assert "too many" in streamed(*many).error["message"]
    long = [tools(piece(0, "A", "f", "x" * 12_000_000))] * 3
    assert "too long" in streamed(*long).error["message"]


# ---- usage


def test_it_takes_usage_from_the_last_chunk():
    stream = streamed(delta(content="a"), delta(finish="stop"), usage_chunk(11, 4))
    assert stream.message["usage"]["input_tokens"] == 11
    assert stream.message["usage"]["output_tokens"] == 4


def test_it_starts_with_the_estimate_and_ends_with_the_truth():
    stream = streamed(delta(content="a"), delta(finish="stop"), usage_chunk(11, 4))
    assert stream.events[0]["message"]["usage"]["input_tokens"] == 7


def test_it_starts_with_the_truth_when_usage_comes_with_each_chunk():
    chunk = {**delta(content="a"), "usage": {"prompt_tokens": 11, "completion_tokens": 1}}
    last = {**delta(finish="stop"), "usage": {"prompt_tokens": 0, "completion_tokens": 4}}
    stream = streamed(chunk, last)
    assert stream.events[0]["message"]["usage"]["input_tokens"] == 11
    assert (stream.message["usage"]["input_tokens"], stream.message["usage"]["output_tokens"]) == (11, 4)


def test_it_reports_cached_tokens():
    stream = streamed(
        delta(content="a", finish="stop"),
        usage_chunk(
            11, 4, prompt_tokens_details={"cached_tokens": 6}, completion_tokens_details={"reasoning_tokens": 2}
        ),
    )
    usage = stream.message["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (5, 6)
    assert usage["output_tokens_details"] == {"thinking_tokens": 2}


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        ([delta(content="12345678")], 2),
        ([delta(content="1")], 1),
        ([delta(reasoning="1234", content="5678")], 2),
        ([delta(content="äöü!")], 1),
        ([], 0),
        ([tools(piece(0, "A", "f", '{"abc":1}'))], 2),
    ],
)
def test_it_estimates_usage_that_never_comes(chunks, tokens):
    data, stream = run(sse(*chunks, delta(finish="stop")))
    usage = read_stream(data).message["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (7, tokens)
    assert stream.report.usage_estimated is True


# ---- ends


@pytest.mark.parametrize(
    ("chunks", "done"),
    [
        ([delta(content="a", finish="stop")], False),
        ([delta(content="a")], True),
        ([delta(content="a", finish="stop")], True),
        ([], True),
    ],
)
def test_it_ends_well_on_a_finish_reason_or_the_end_mark(chunks, done):
    assert streamed(*chunks, done=done).error is None


def test_it_is_done_at_the_end_mark_and_ignores_the_rest():
    stream = AnthropicStream(FACTS, 0.0)
    out = stream.feed(sse(delta(content="a", finish="stop")) + sse(delta(content="late")), 0.0)
    assert stream.done
    assert read_stream(out).message["content"] == [{"type": "text", "text": "a"}]
    assert stream.feed(sse(delta(content="late")), 0.0) == b""
    assert stream.finish(0.0) == b""
    assert stream.fail(TranslationError("late"), 0.0) == b""


@pytest.mark.parametrize(
    "data", [b"", b": only a comment\n\n", b"<html>bad gateway</html>", b"data: {\n\n", b"  \n "]
)
def test_it_fails_when_nothing_was_said(data):
    out, stream = run(data)
    assert read_stream(out).outline == ["error"]
    assert stream.started is False
    assert stream.error is not None
    assert stream.error.status == 502


def test_it_accepts_an_end_mark_without_line_end():
    data = sse(delta(content="a"), done=False) + b"data: [DONE]"
    assert read_stream(run(data)[0]).message["stop_reason"] == "end_turn"


def test_it_fails_when_the_backend_breaks_off():
    out, stream = run(sse(delta(content="a"), done=False))
    assert read_stream(out).outline == ["start", "+text", "text_delta", "error"]
    assert stream.started is True


def test_it_fails_when_told_so():
    stream = AnthropicStream(FACTS, 0.0)
    out = stream.feed(sse(delta(content="a"), done=False), 0.0)
    out += stream.fail(TranslationError("The backend fell silent.", status=504), 1.0)
    assert read_stream(out).error == {"type": "timeout_error", "message": "The backend fell silent."}


def test_it_completes_when_only_usage_was_still_to_come():
    stream = AnthropicStream(FACTS, 0.0)
    out = stream.feed(sse(delta(content="a"), delta(finish="stop"), done=False), 0.0)
    out += stream.fail(TranslationError("gone", status=502), 1.0)
    assert read_stream(out).message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (sse({"error": {"message": "boom"}}), "api_error"),
        (sse({"error": {"message": "boom", "code": 503}}), "api_error"),
        (sse({"object": "error", "message": "boom", "code": 429}), "rate_limit_error"),
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}\n\n', None),
        (b'error: {"code":500,"message":"boom"}\n\n', "api_error"),
        (b'event: error\ndata: "boom"\n\n', "api_error"),
    ],
)
def test_it_passes_on_an_error_inside_the_stream(data, kind):
    first = sse(delta(content="a"), done=False)
    for start in (b"", first):
        out, stream = run(start + data)
        checked = read_stream(out)
        assert checked.error == {"type": kind or "overloaded_error", "message": "boom"}
        assert checked.outline[-1] == "error"
        # In one piece with the text nothing has left yet, so that the status can still tell.
        assert stream.started is False


def test_it_keeps_what_was_sent_before_an_error():
    stream = AnthropicStream(FACTS, 0.0)
    out = stream.feed(sse(delta(content="a"), done=False), 0.0)
    out += stream.feed(sse({"error": "boom"}), 0.0)
    assert read_stream(out).outline == ["start", "+text", "text_delta", "error"]


@pytest.mark.parametrize("finish", ["error", "abort"])
def test_it_fails_when_the_backend_says_it_failed(finish):
    assert streamed(delta(content="a"), delta(finish=finish)).error["type"] == "api_error"


def test_it_skips_chunks_it_cannot_read():
    broken = [b"data: {broken\n\n", b"data: \n\n", b"data: 5\n\n", b"data: {}\n\n"]
    chunks = [delta(content="a"), delta(content="b"), delta(content="c"), delta(finish="stop")]
    data, stream = run(sse(*[entry for pair in zip(chunks, broken, strict=True) for entry in pair]))
    assert blocks(read_stream(data)) == [{"text": "abc"}]
    assert stream.report.bad_chunks == 3


def test_it_fails_when_most_chunks_cannot_be_read():
    assert "could not be read" in streamed(b"data: {\n\n" * 3, delta(content="a", finish="stop")).error["message"]


def test_it_fails_on_an_endless_line():
    data = sse(delta(content="a"), done=False) + b"data: " + b"x" * (17 * 1024 * 1024)
    assert "too long" in read_stream(run(data, step=1 << 20)[0]).error["message"]


def test_it_answers_a_warm_up_with_nothing():
    stream = streamed(delta(content="x", finish="length"), usage_chunk(9, 1), facts=replace(FACTS, warm_up=True))
    assert stream.outline == ["start", "delta", "stop"]
    assert stream.message["stop_reason"] == "max_tokens"
    assert stream.message["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    ("finish", "more", "expected"),
    [("stop", {}, "end_turn"), ("length", {}, "max_tokens"), ("stop", {"stop_reason": "END"}, "stop_sequence")],
)
def test_it_translates_the_finish_reason(finish, more, expected):
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish, **more}]}
    stream = streamed(delta(content="a"), last, facts=replace(FACTS, stop_sequences=("END",)))
    assert stream.message["stop_reason"] == expected


# ---- whole answers instead of streams


@pytest.mark.parametrize("step", [0, 1, 7])
def test_it_turns_a_whole_answer_into_events(step):
    message = {
        "content": "a",
        "reasoning": "r",
        "tool_calls": [tool_call(arguments='{"x":1}'), tool_call("B", "g")],
    }
    out, stream = run(b"\n " + answer(message, "tool_calls"), step=step)
    checked = read_stream(out)
    assert blocks(checked)[:2] == [{"thinking": "r"}, {"text": "a"}]
    assert [block["id"] for block in checked.message["content"][2:]] == ["A", "B"]
    assert checked.message["usage"]["input_tokens"] == 5
    assert stream.report.upstream_id == "c-1"


def test_it_needs_no_finish_reason_in_a_whole_answer():
    assert read_stream(run(answer(finish=None))[0]).message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("data", "status"), [(b'{"error":{"message":"boom","code":429}}', 429), (b"{}", 502), (b'{"choices":', 502)]
)
def test_it_fails_before_it_started_when_the_whole_answer_is_none(data, status):
    out, stream = run(data)
    assert read_stream(out).outline == ["error"]
    assert stream.error is not None
    assert (stream.started, stream.error.status) == (False, status)


def test_it_refuses_an_endless_answer():
    out, stream = run(b"{" + b" " * (33 * 1024 * 1024), step=1 << 22)
    assert "too long" in read_stream(out).error["message"]
    assert stream.started is False


# ---- time


def test_it_pings_after_message_start_and_in_silence():
    stream = AnthropicStream(FACTS, 0.0, ping_interval=10.0)
    assert stream.due_ping(100.0) == b""
    out = stream.feed(sse(delta(content="a"), done=False), 100.0)
    assert stream.next_ping == 110.0
    assert stream.due_ping(109.9) == b""
    out += stream.due_ping(110.0)
    assert stream.due_ping(119.0) == b""
    assert read_stream(out, finished=False).pings == 2


def test_it_pings_while_arguments_are_held_back():
    stream = AnthropicStream(FACTS, 0.0, ping_interval=10.0)
    out = stream.feed(sse(tools(piece(0, "A", "f", '{"x"')), done=False), 0.0)
    assert stream.feed(sse(tools(piece(0, None, None, ":")), done=False), 9.0) == b""
    out += stream.feed(sse(tools(piece(0, None, None, "1}")), done=False), 10.0)
    assert read_stream(out, finished=False).pings == 2


def test_it_stays_silent_when_it_is_done():
    stream = AnthropicStream(FACTS, 0.0)
    stream.feed(sse(delta(content="a", finish="stop")), 0.0)
    assert stream.due_ping(1000.0) == b""
