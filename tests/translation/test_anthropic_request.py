"""Reading and checking a Messages request."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.translation.shapes import body, user
from tests.translation.sizes import sized
from translation.anthropic_request import AnthropicRequest, parse_count_request, parse_request
from translation.errors import TranslationError
from translation.turns import BATCH_BYTES, MOST_BLOCKS, MOST_TURNS, DecodedTurn, open_turns


def decode_turns(request: AnthropicRequest) -> list[DecodedTurn]:
    return [turn for batch in open_turns(request) for turn in batch]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"[]", b"null", b'"x"', b"{", b'{"model":"\xff"}', b'{"\xff":1}', b"[" * 5000],
)
def test_it_refuses_a_body_that_is_no_json_object(data):
    with pytest.raises(TranslationError) as failure:
        parse_request(data)
    assert (failure.value.status, failure.value.kind) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ...}, "model is required"),
        ({"model": ""}, "model is required"),
        ({"model": 5}, "model: Expected `str`"),
        ({"model": True}, "model: Expected `str`"),
        ({"model": ["a"]}, "model: Expected `str`"),
        ({"model": {}}, "model: Expected `str`"),
        ({"model": None}, "model is required"),
        ({"messages": ...}, "at least one message"),
        ({"messages": []}, "at least one message"),
        ({"messages": {}}, "messages: Expected `array`"),
        ({"messages": [1]}, "messages: Expected `object`"),
        ({"messages": [{"content": "x"}]}, "messages: Object missing required field `role`"),
        ({"max_tokens": ...}, "max_tokens is required"),
        ({"max_tokens": -1}, "max_tokens must not be negative"),
        ({"max_tokens": "9"}, "max_tokens: Expected `int`"),
        ({"max_tokens": True}, "max_tokens: Expected `int`"),
        ({"stream": "yes"}, "stream: Expected `bool`"),
        ({"stop_sequences": [1]}, "stop_sequences: Expected `str`"),
        ({"metadata": []}, "metadata: Expected `object`"),
        ({"tools": {}}, "tools: Expected `array`"),
        ({"tools": [{"name": 1}]}, "tools: Expected `str | null`"),
        ({"tools": [{"name": "a", "input_schema": "x"}]}, "tools: Expected `object | null`"),
        ({"temperature": "hot"}, "temperature: Expected `float`"),
        ({"temperature": 3}, "temperature must be between"),
        ({"temperature": -0.1}, "temperature must be between"),
        ({"top_p": 1.1}, "top_p must be between"),
        ({"top_p": -1}, "top_p must be between"),
        ({"top_k": -1}, "top_k must not be negative"),
        ({"top_k": 1.5}, "top_k: Expected `int`"),
    ],
)
def test_it_refuses_a_bad_field(fields, words):
    with pytest.raises(TranslationError) as failure:
        parse_request(body(**fields, context_management={"edits": []}))
    assert words in failure.value.message
    assert failure.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 0},
        {"top_p": 1},
        {"top_k": 0},
        {"max_tokens": 0},
        {"max_tokens": 1},
        {"temperature": None, "tools": None, "stream": None, "metadata": None},
        {"model": "org/model:7b"},
        {"thinking": "on"},
        {"thinking": True},
    ],
)
def test_it_accepts_a_boundary(fields):
    parse_request(body(**fields))


def test_it_reports_the_first_failure_in_order():
    with pytest.raises(TranslationError, match="model is required"):
        parse_request(b'{"messages": [], "max_tokens": -1}')


def test_it_ignores_a_model_that_is_nested():
    with pytest.raises(TranslationError, match="model is required"):
        parse_request(body(model=..., metadata={"model": "inner"}))


def test_it_keeps_the_names_of_unknown_fields():
    request = parse_request(body(context_management={}, zeta=1, alpha=None))
    assert request.others == ("context_management", "zeta")


@pytest.mark.parametrize(("metadata", "expected"), [({"user_id": "u"}, "u"), ({"user_id": 5}, ""), ({}, "")])
def test_it_reads_the_user_id(metadata, expected):
    assert parse_request(body(metadata=metadata)).user_id == expected


def test_it_needs_nothing_but_json_to_count():
    assert parse_count_request(b"{}").messages == ()


def test_it_opens_string_list_and_single_object_contents():
    turns = decode_turns(parse_request(body(user("a"), user({"type": "x"}), user([]))))
    assert [turn.blocks for turn in turns] == [[{"type": "text", "text": "a"}], [{"type": "x"}], []]


def test_it_opens_a_long_conversation_in_batches():
    turns = [user("a" * 10_000) for _ in range(20)]
    batches = list(open_turns(parse_request(body(*turns))))
    assert [len(batch) for batch in batches] == [7, 7, 6]
    assert all(sum(len(str(turn.blocks)) for turn in batch) < 2 * BATCH_BYTES for batch in batches)
    assert [turn.path for batch in batches for turn in batch] == [f"messages[{index}]" for index in range(20)]
    many = parse_request(body(*[user("a")] * (MOST_TURNS + 1)))
    assert [len(batch) for batch in open_turns(many)] == [MOST_TURNS, 1]


def test_it_opens_a_turn_of_very_many_blocks_in_parts():
    blocks = [{"type": "text", "text": str(number)} for number in range(MOST_BLOCKS + 5)]
    turns = decode_turns(parse_request(body(user("a"), user(*blocks))))
    assert [len(turn.blocks) for turn in turns] == [1, MOST_BLOCKS, 5]
    assert turns[2].name_block(4) == f"messages[1].content[{MOST_BLOCKS + 4}]"
    assert turns[1].blocks + turns[2].blocks == blocks


def test_it_keeps_a_system_turn_in_one_piece():
    blocks = [{"type": "text", "text": "x"}] * (MOST_BLOCKS + 5)
    turns = decode_turns(parse_request(body(user("a"), {"role": "system", "content": blocks})))
    assert [len(turn.blocks) for turn in turns] == [1, MOST_BLOCKS + 5]


@pytest.mark.parametrize(
    ("content", "path"),
    [(None, "messages[0].content"), (5, "messages[0].content"), ([1], "messages[0].content[0]")],
)
def test_it_names_the_turn_whose_content_is_wrong(content, path):
    with pytest.raises(TranslationError) as failure:
        decode_turns(parse_request(body({"role": "user", "content": content})))
    assert failure.value.path == path


def test_it_names_the_wrong_turn_among_good_ones():
    good = [user("a"), user([{"type": "text", "text": "b"}]), user({"type": "text"})]
    with pytest.raises(TranslationError) as failure:
        decode_turns(parse_request(body(*good, user([{"type": "text", "text": "c"}, "d"]))))
    assert failure.value.path == "messages[3].content[1]"


def test_it_names_the_turn_whose_text_is_broken():
    data = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\xff"}]}'
    with pytest.raises(TranslationError) as failure:
        decode_turns(parse_request(data))
    assert failure.value.path == "messages[0].content"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@sized
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_it_never_raises_anything_else_on_any_bytes(data):
    for parse in (parse_request, parse_count_request):
        with suppress(TranslationError):
            decode_turns(parse(data))
