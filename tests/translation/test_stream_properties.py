"""Properties of streams: cuts do not matter, and nothing a backend sends breaks the grammar."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.translation.grammar import read_stream
from tests.translation.replies import FACTS, answer, delta, piece, run, sse, tool_call, tools, usage_chunk
from tests.translation.sizes import sized
from translation.anthropic_response import build_anthropic_response
from translation.anthropic_stream import AnthropicStream
from translation.errors import TranslationError
from translation.sse import SseParser

MODES = {
    "plain": FACTS,
    "live": replace(FACTS, live_arguments=True),
    "tags": replace(FACTS, think_tags=True),
    "omitted": replace(FACTS, omit_thinking=True),
    "warm_up": replace(FACTS, warm_up=True),
    "declared": replace(FACTS, tools=frozenset({"f", "g"})),
}
EVERYTHING = sse(
    delta(role="assistant", content=""),
    delta(reasoning="hm ä😀"),
    delta(content="<think>x</think>"),
    delta(content="grüße 😀"),
    tools(piece(0, "A", "f", '{"x":')),
    b": keep-alive\r\n\r\n",
    tools(piece(1, "B", "g", '{"y":"')),
    b"data: {broken\n\n",
    tools(piece(0, None, None, '"ü"}'), piece(1, None, None, '😀"}')),
    b"event: message\r\ndata:" + json.dumps(delta(finish="tool_calls")).encode() + b"\r\n\r\n",
    usage_chunk(),
)

texts = st.text(max_size=12)
slots = st.sampled_from([0, 1, 2, None])
fragments = st.sampled_from(['{"a"', ":1}", "{}", "", " ", '{"b":2}', "}", "```", '"x"', "[1]"])
pieces = st.builds(
    piece,
    slots,
    st.none() | st.sampled_from(["A", "B"]),
    st.none() | st.sampled_from(["f", "g", "get_"]),
    st.none() | fragments,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
finishes = st.sampled_from([None, None, None, "stop", "length", "tool_calls", "content_filter", "abort", "novel"])
sound_chunks = st.one_of(
    st.builds(lambda text: delta(content=text), texts),
    st.builds(lambda text: delta(reasoning=text), texts),
    st.builds(lambda parts: tools(*parts), st.lists(pieces, max_size=3)),
    st.builds(usage_chunk, st.integers(0, 99), st.integers(0, 99)),
    st.builds(lambda finish: delta(finish=finish), finishes),
)
FIELDS = [
    "content",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "refusal",
]
strange_deltas = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4)
strange_chunks = st.one_of(
    json_values,
    st.builds(lambda fields, finish: delta(finish=finish, **fields), strange_deltas, json_values),
    st.builds(
        tools,
        st.fixed_dictionaries(
            {},
            optional={
                "index": json_values,
                "id": json_values,
                "function": json_values
                | st.fixed_dictionaries({}, optional={"name": json_values, "arguments": json_values}),
            },
        ),
    ),
    st.builds(lambda choices: {"choices": choices}, json_values),
    st.builds(lambda usage: {**delta(content="a"), "usage": usage}, json_values),
    st.builds(lambda error: {"error": error}, json_values),
    st.binary(max_size=30),
    st.builds(lambda data: b"data: " + data + b"\n\n", st.binary(max_size=30)),
)
chunk_lists = st.lists(sound_chunks, max_size=12)


def judge(data: bytes, facts, **how: Any):
    return read_stream(run(data, facts, **how)[0], live=facts.live_arguments)


@pytest.mark.parametrize("mode", MODES)
def test_it_gives_the_same_bytes_however_the_stream_is_cut(mode):
    facts = MODES[mode]
    whole = run(EVERYTHING, facts)[0]
    assert read_stream(whole, live=facts.live_arguments).error is None
    for cut in range(1, len(EVERYTHING)):
        stream = AnthropicStream(facts, 0.0)
        parts = [stream.feed(EVERYTHING[:cut], 0.0), stream.feed(EVERYTHING[cut:], 0.0), stream.finish(0.0)]
        assert b"".join(parts) == whole, cut


@pytest.mark.parametrize("step", [1, 2, 3, 64])
def test_it_gives_the_same_bytes_for_drips(step):
    assert run(EVERYTHING, step=step)[0] == run(EVERYTHING)[0]


def test_it_gives_the_same_bytes_for_a_cut_whole_answer():
    data = answer({"content": "grüße", "tool_calls": [tool_call()]})
    whole = run(data)[0]
    for cut in range(1, len(data)):
        stream = AnthropicStream(FACTS, 0.0)
        assert stream.feed(data[:cut], 0.0) + stream.feed(data[cut:], 0.0) + stream.finish(0.0) == whole


@sized
@given(chunk_lists, st.sampled_from(sorted(MODES)), st.booleans(), st.integers(1, 40))
def test_it_says_the_same_for_every_size_of_pieces(chunks, mode, done, step):
    data = sse(*chunks, done=done)
    whole, cut = judge(data, MODES[mode]), judge(data, MODES[mode], step=step)
    assert whole.error == cut.error
    if whole.error is None:
        assert whole.events == cut.events


@sized
@given(st.lists(sound_chunks | strange_chunks, max_size=10), st.sampled_from(sorted(MODES)), st.booleans())
@example([{"error": {"message": "\ud83d\ude00"}}], "plain", True)
def test_it_keeps_the_grammar_whatever_the_backend_sends(chunks, mode, done):
    judge(sse(*chunks, done=done), MODES[mode])


@sized
@given(chunk_lists, st.data(), st.sampled_from(sorted(MODES)))
def test_it_keeps_the_grammar_when_chunks_are_lost_doubled_or_torn(chunks, data, mode):
    frames = [frame + b"\n\n" for frame in sse(*chunks, delta(finish="stop")).split(b"\n\n")[:-1]]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frames) - 1)) if frames else 0
        change = data.draw(st.sampled_from(["lose", "double", "tear", "swap"]))
        frame = frames[at : at + 1]
        if change == "lose":
            frames[at : at + 1] = []
        elif change == "double":
            frames[at : at + 1] = frame * 2
        elif change == "tear":
            frames[at : at + 1] = [part[: data.draw(st.integers(0, len(part)))] for part in frame]
        else:
            frames[at : at + 2] = frames[at : at + 2][::-1]
    judge(b"".join(frames), MODES[mode])


@sized
@given(st.binary(max_size=300), st.integers(1, 20))
def test_it_keeps_the_grammar_for_any_bytes(data, step):
    judge(data, FACTS, step=step)


@sized
@given(chunk_lists, st.integers(0, 12))
def test_it_never_ends_well_when_the_backend_broke_off(chunks, at):
    unfinished = [chunk for chunk in chunks if not (chunk.get("choices") or [{}])[0].get("finish_reason")][:at]
    assert judge(sse(*unfinished, done=False), FACTS).error is not None


@sized
@given(st.lists(sound_chunks | strange_chunks, max_size=8) | st.binary(max_size=200))
def test_it_reads_any_answer_or_refuses_it(value):
    body = value if isinstance(value, bytes) else sse(*value)
    with suppress(TranslationError):
        json.loads(build_anthropic_response(body, FACTS).body)


@sized
@given(json_values)
def test_it_reads_any_json_or_refuses_it(value):
    with suppress(TranslationError):
        json.loads(build_anthropic_response(json.dumps(value).encode(), FACTS).body)


@sized
@given(st.dictionaries(st.sampled_from([*FIELDS, "content"]), json_values, max_size=5), json_values)
def test_it_reads_any_message_or_refuses_it(message, finish):
    with suppress(TranslationError):
        json.loads(build_anthropic_response(answer(message, finish), FACTS).body)


@sized
@given(chunk_lists)
def test_it_collects_a_stream_into_what_the_events_say(chunks):
    data = sse(*chunks, delta(finish="stop"))
    checked = judge(data, FACTS)
    if checked.error is not None and "had ended" in checked.error["message"]:
        # A stream has shown the call by then; a whole answer can still drop what follows its arguments.
        return
    if checked.error is not None:
        with pytest.raises(TranslationError):
            build_anthropic_response(data, FACTS)
        return
    message = json.loads(build_anthropic_response(data, FACTS).body)
    assert message["usage"] == checked.message["usage"]
    assert message["stop_reason"] == checked.message["stop_reason"]
    assert _joined(message["content"]) == _joined(checked.message["content"])


def _joined(content: list[dict[str, Any]]) -> tuple[str, str, list[Any]]:
    """Text, thinking and calls of a message, whatever blocks they were cut into."""
    text = "".join(block["text"] for block in content if block["type"] == "text")
    thinking = "".join(block["thinking"] for block in content if block["type"] == "thinking")
    calls = [(block["name"], block["input"]) for block in content if block["type"] == "tool_use"]
    return text, thinking, calls


# ---- the event parser alone


@sized
@given(st.lists(st.text(alphabet="abä: \r", max_size=8).map(str.encode), max_size=6), st.integers(1, 9))
def test_it_parses_the_same_events_from_any_pieces(lines, step):
    data = b"".join(b"data:" + line + b"\n\n" for line in lines)
    whole, cut = SseParser(), SseParser()
    expected = [*whole.feed(data), *whole.close()]
    found = [event for start in range(0, len(data), step) for event in cut.feed(data[start : start + step])]
    assert found + cut.close() == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [("", b"a")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a\n\n", [("", b" a")]),
        (b"\xef\xbb\xbfdata: a\r\n\r\n", [("", b"a")]),
        (b"event: e\ndata: a\ndata: b\n\n", [("e", b"a\nb")]),
        (b"event: e\n\ndata: a\n\n", [("", b"a")]),
        (b": note\nid: 5\nretry: 1\ndata: a\n\n", [("", b"a")]),
        (b"error: {}\n\n", [("error", b"{}")]),
        (b"data: a", [("", b"a")]),
        (b"data: a\n", [("", b"a")]),
        (b"data:\n\n", [("", b"")]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_it_parses_events(data, expected):
    parser = SseParser()
    assert [*parser.feed(data), *parser.close()] == expected


def test_it_bounds_an_event_of_many_lines():
    stream = AnthropicStream(FACTS, 0.0)
    line = b"data: " + b"x" * (1 << 20) + b"\n"
    out = b"".join(stream.feed(line, 0.0) for _ in range(20))
    assert "too long" in read_stream(out).error["message"]


def test_it_reads_events_that_lack_their_blank_lines():
    chunks = [delta(content="a"), delta(content="b"), delta(finish="stop")]
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n" for chunk in chunks)
    assert judge(data, FACTS).message["content"] == [{"type": "text", "text": "ab"}]
    assert judge(data + b"data: [DONE]\n\n", FACTS).message["stop_reason"] == "end_turn"
    assert judge(b"data: {\ndata: [DONE]\n\n", FACTS).outline == ["start", "delta", "stop"]
