"""Estimating tokens, and asking the backend's tokenizer."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.translation.shapes import assistant, body, call, result, text, tool, translate, user
from tests.translation.sizes import sized
from translation.anthropic_request import parse_count_request, parse_request
from translation.errors import TranslationError
from translation.image_size import read_image_size
from translation.token_count import (
    PromptSize,
    Tokenizer,
    build_count,
    build_llamacpp_template,
    build_llamacpp_tokenize,
    build_vllm_tokenize,
    learn_ratio,
    measure_prompt,
    parse_context_length,
    parse_count,
    tokenizer_for,
)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


def image(data: bytes) -> dict[str, object]:
    return {"type": "image", "source": {"type": "base64", "data": base64.b64encode(data).decode()}}


def document(**source):
    return {"type": "document", "title": "Title678", "source": source}


def estimated(*messages, **fields) -> int:
    return measure_prompt(parse_request(body(*messages, **fields))).estimate()


def test_it_counts_at_least_one_token():
    assert measure_prompt(parse_count_request(b"{}")).estimate() == 1


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("12345678", 2),
        ("123456789", 3),
        ("äöüß", 2),
        ([text("1234"), text("5678")], 2),
        ([image(png(750, 100))], 100),
        ([image(png(9000, 9000))], 1600),
        ([image(b"unknown")], 1000),
        ([{"type": "image", "source": {"type": "url", "url": "https://x.test"}}], 1000),
        ([{"type": "image"}], 1000),
        ([document(type="text", data="12345678")], 4),
        ([document(type="content", content="12345678")], 4),
        ([document(type="content", content=[text("12345678")])], 4),
        ([document(type="base64", data="AAAA")], 3002),
        ([{"type": "document", "title": "1234"}], 1),
        ([{"type": "search_result", "title": "1234", "source": "1234", "content": [text("1234")]}], 3),
        ([{"type": "thinking", "thinking": "12345678", "signature": "x" * 400}], 2),
        ([{"type": "redacted_thinking", "data": "x" * 400}], 0),
        ([call("A", "1234", x=1)], 3),
        ([{"type": "tool_use", "name": 5}], 1),
        ([result("A", "12345678")], 2),
        ([result("A", [text("1234"), image(png(750, 10))])], 11),
        ([{"type": "novelty", "value": 5}], 0),
    ],
)
def test_it_estimates_content(content, tokens):
    assert estimated(user(content)) == 4 + tokens


def test_it_adds_system_tools_and_messages():
    base = estimated(user("1234"))
    assert estimated(user("1234"), assistant("1234")) == base + 5
    assert estimated(user("1234"), system="12345678") == base + 2
    assert estimated(user("1234"), system=[text("12345678")]) == base + 2
    schema = {"name": "1234", "description": "5678", "input_schema": {"a": 1}}
    assert estimated(user("1234"), tools=[schema, {"type": "web_search_20250305"}]) == base + 4


def test_it_counts_absurd_nesting_as_nothing():
    content = [result("A", "12345678")]
    for _ in range(30):
        content = [result("A", content)]
    assert estimated(user(content)) == 4


def test_it_takes_a_learned_ratio():
    request = parse_request(body(user("x" * 100)))
    assert measure_prompt(request).estimate(2.0) == 54


@pytest.mark.parametrize(
    ("size", "counted", "expected"),
    [
        (PromptSize(4000, 0, 10), 1040, 4.0),
        (PromptSize(4000, 0, 10), 840, 4.2),  # upwards slowly
        (PromptSize(4000, 0, 10), 2040, 3.2),  # downwards twice as fast
        (PromptSize(4000, 0, 10), 1, 4.0),
        (PromptSize(0, 0, 10), 50, 4.0),
        (PromptSize(4000, 0, 0), 40, 4.8),  # held at 8
        (PromptSize(4000, 0, 0), 40_000, 3.0),  # held at 1.5
    ],
)
def test_it_learns_a_ratio_slowly(size, counted, expected):
    assert learn_ratio(4.0, size, counted) == pytest.approx(expected)


def test_it_learns_from_text_alone_and_from_enough_of_it():
    assert PromptSize(1000).teaches
    assert not PromptSize(999).teaches
    assert not PromptSize(9000, tokens=1).teaches


def test_it_refuses_to_measure_what_nests_too_deeply_where_it_is_called():
    def deeper(levels: int, request):
        return deeper(levels - 1, request) if levels else measure_prompt(request).estimate()

    refusals = 0
    for depth in range(700, 1000, 20):
        schema = b'{"a":' * depth + b"1" + b"}" * depth
        data = body(tools=[{"name": "f", "input_schema": {"x": 0}}]).replace(b'{"x": 0}', schema)
        try:
            request = parse_request(data)
        except TranslationError:
            break
        try:
            deeper(60, request)
        except TranslationError:
            refusals += 1
    assert refusals


def test_it_builds_the_answer():
    assert build_count(5) == b'{"input_tokens":5}'


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vllm", Tokenizer.VLLM),
        ("llamacpp", Tokenizer.LLAMACPP),
        ("omlx", Tokenizer.NATIVE),
        ("x", Tokenizer.NONE),
    ],
)
def test_it_knows_the_tokenizers_of_backend_kinds(kind, expected):
    assert tokenizer_for(kind) is expected


def test_it_asks_vllm():
    built = translate(user("hi"), tools=[tool()])
    asked = json.loads(build_vllm_tokenize(built.body))
    assert set(asked) == {"model", "messages", "tools", "add_generation_prompt"}
    assert asked["add_generation_prompt"] is True
    continued = {**json.loads(built.body), "continue_final_message": True, "add_generation_prompt": False}
    again = json.loads(build_vllm_tokenize(json.dumps(continued).encode()))
    assert (again["continue_final_message"], again["add_generation_prompt"]) == (True, False)


def test_it_asks_llamacpp_in_two_steps():
    built = translate(user("hi"), tools=[tool()])
    assert set(json.loads(build_llamacpp_template(built.body))) == {"messages", "tools"}
    assert json.loads(build_llamacpp_tokenize(b'{"prompt":"P"}')) == {"content": "P", "add_special": True}


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"prompt":5}'])
def test_it_refuses_a_template_answer_without_prompt(answer):
    with pytest.raises(TranslationError) as failure:
        build_llamacpp_tokenize(answer)
    assert failure.value.status == 502


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (b'{"input_tokens":7}', 7),
        (b'{"count":8,"max_model_len":4096,"tokens":[1]}', 8),
        (b'{"tokens":[1,2,3]}', 3),
        (b'{"count":true,"tokens":[]}', 0),
    ],
)
def test_it_reads_a_count(answer, count):
    assert parse_count(answer) == count


@pytest.mark.parametrize(
    "answer",
    [b"x", b"{}", b'{"count":-1}', b'{"count":"5"}', b'{"tokens":5}', b"5", b'{"count":1%b}' % (b"0" * 400)],
)
def test_it_refuses_what_is_no_count(answer):
    with pytest.raises(TranslationError) as failure:
        parse_count(answer)
    assert failure.value.status == 502


@pytest.mark.parametrize(
    ("answer", "length"), [(b'{"max_model_len":4096}', 4096), (b"{}", None), (b'{"max_model_len":0}', None)]
)
def test_it_reads_the_window_beside_a_count(answer, length):
    assert parse_context_length(answer) == length


JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 480, 640)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(640, 480), (640, 480)),
        (png(640, 480)[:20], None),
        (b"GIF89a" + struct.pack("<HH", 640, 480), (640, 480)),
        (JPEG, (640, 480)),
        (JPEG[:-3], None),
        (b"\xff\xd8\x00\x00\x00\x00", None),
        (b"\xff\xd8\xff\xc4\x00\x02", None),
        (b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", 640, 480), (640, 480)),
        (b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10, None),
        (b"RIFF\0\0\0\0WEBPVP8L" + b"\0" * 5 + struct.pack("<I", 639 | 479 << 14), (640, 480)),
        (b"RIFF\0\0\0\0WEBPVP8L", None),
        (
            b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"),
            (640, 480),
        ),
        (b"RIFF\0\0\0\0WEBPVP8X", None),
        (b"RIFF\0\0\0\0WEBPNONE", None),
        (b"BM", None),
        (b"", None),
    ],
)
def test_it_reads_the_size_of_pictures(data, size):
    assert read_image_size(base64.b64encode(data).decode()) == size


@pytest.mark.parametrize("data", ["ü", "a", "===", "\ud83d"])
def test_it_reads_no_size_from_what_is_no_base64(data):
    assert read_image_size(data) is None


@sized
@given(st.sampled_from([png(1, 1)[:16], JPEG[:4], b"RIFF\0\0\0\0WEBP", b"GIF8", b""]), st.binary(max_size=60))
def test_it_never_fails_on_any_picture(head, data):
    read_image_size(base64.b64encode(head + data).decode())
