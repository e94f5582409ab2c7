"""Values for JSON schemas, and words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla_site.demo.media import parse_multipart
from olla_site.demo.schemas import fill_schema
from olla_site.demo.words import build_reply, count_tokens, cut_tokens, last_prompt


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": "Berlin"}),
        ({"enum": ["red", "blue"]}, "red"),
        ({"enum": ["cold", "rain"]}, "rain"),
        ({"const": 5}, 5),
        ({"type": "integer"}, 7),
        ({"type": "number", "maximum": 3}, 3.0),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "string"]}, "Berlin"),
        ({"type": "string", "maxLength": 3}, "Ber"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [7, 7]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}, 7),
        ({"$ref": "#/$defs/gone"}, "Berlin"),
        (None, {}),
    ],
)
def test_it_fills_a_schema(schema, expected):
    assert fill_schema(schema, "Will it rain 7 days in Berlin") == expected


def test_it_ends_with_a_schema_that_refers_to_itself():
    node = {
        "type": "object",
        "properties": {
            "next": {"$ref": "#/$defs/node"},
            "many": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["many"],
    }
    value = fill_schema({"$ref": "#/$defs/node", "$defs": {"node": node}}, "")
    assert isinstance(value["many"], list)


def test_it_ends_with_a_schema_that_demands_itself():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert isinstance(fill_schema(node, ""), dict)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Count to 3", "1, 2, 3."),
        ("what is 6*7", "6 * 7 = 42."),
        ("2 + 2", "2 + 2 = 4."),
        ("9 - 4?", "9 - 4 = 5."),
    ],
)
def test_it_answers_a_little(prompt, expected):
    assert build_reply(prompt, "me", "m").endswith(f"] {expected}")


def test_it_mentions_what_was_asked():
    assert '"volcanoes"' in build_reply("Tell me about volcanoes", "me", "m")


@given(st.text())
def test_it_loses_nothing_when_cutting_tokens(text):
    assert "".join(cut_tokens(text)) == text


@given(st.text())
def test_it_repeats_itself_for_one_seed(prompt):
    assert build_reply(prompt, "me", "m", 1) == build_reply(prompt, "me", "m", 1)


def test_it_reads_the_last_user_message_with_parts():
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert last_prompt([{"role": "user", "content": "no"}, {"role": "user", "content": parts}]) == "look"
    assert last_prompt([]) == ""


def test_it_counts_tokens_anywhere_in_a_value():
    assert count_tokens([{"role": "user", "content": "two words"}, 5]) == 3


@given(st.binary())
def test_it_returns_the_bytes_of_a_part(content):
    body = (
        b'--xyz0\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + content
        + b"\r\n--xyz0--\r\n"
    )
    if b"\r\n--xyz0" not in content:
        assert parse_multipart("multipart/form-data; boundary=xyz0", body)[0].content == content


def test_it_refuses_a_body_without_boundary():
    with pytest.raises(ValueError, match="boundary"):
        parse_multipart("multipart/form-data", b"")
