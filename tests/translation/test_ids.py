"""Ids and thinking signatures."""

from __future__ import annotations

import json

import pytest

from translation.ids import (
    ThinkingSigner,
    build_message_id,
    build_tool_id,
    encode_base58,
    is_own_signature,
    remove_own_thinking,
    sign_thinking,
)


def test_it_builds_message_ids_of_plain_letters():
    found = {build_message_id(bytes([number]) * 16) for number in range(256)}
    assert len(found) == 256
    assert all(entry.startswith("msg_01") and not set(entry[6:]) & set("0OIl") for entry in found)


@pytest.mark.parametrize(("data", "text"), [(b"", ""), (b"\0\0", "11"), (b"\0a", "12g"), (b"hello", "Cn8eVZg")])
def test_it_encodes_base58(data, text):
    assert encode_base58(data) == text


def test_it_derives_tool_ids_that_differ():
    ids = {build_tool_id(b"x" * 16, number) for number in range(50)} | {build_tool_id(b"y" * 16, 0)}
    assert len(ids) == 51


def test_it_signs_pieces_like_the_whole():
    signer = ThinkingSigner(b"key")
    signer.update("grü")
    signer.update("ße")
    assert signer.build_signature() == sign_thinking("grüße", b"key")
    assert sign_thinking("grüße", b"key") != sign_thinking("grüße", b"other")


def test_it_recognises_its_own_signatures():
    assert is_own_signature(sign_thinking("x", b"k"))
    assert not is_own_signature("EqoBCkYIBRgCKkA")
    assert not is_own_signature(None)


OURS = {"type": "thinking", "thinking": "t", "signature": sign_thinking("t", b"k")}
THEIRS = {"type": "thinking", "thinking": "t", "signature": "genuine"}
SAID = {"type": "text", "text": "x"}


def request(*messages):
    return json.dumps({"model": "m", "messages": list(messages), "kept": {"a": 1}}).encode()


def test_it_removes_its_own_thinking_for_the_genuine_api():
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [OURS, THEIRS, SAID]},
        {"role": "assistant", "content": [OURS]},
        {"role": "assistant", "content": [SAID]},
    ]
    cleaned = json.loads(remove_own_thinking(request(*turns)))
    assert cleaned["messages"] == [turns[0], {"role": "assistant", "content": [THEIRS, SAID]}, turns[3]]
    assert cleaned["kept"] == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        request({"role": "assistant", "content": [THEIRS]}),
        request({"role": "user", "content": OURS["signature"]}),
        request({"role": "user", "content": [{"type": "text", "text": OURS["signature"]}, 5]}),
        b"not json olla-v1.",
        b'["olla-v1."]',
        b'{"messages": "olla-v1."}',
        b'{"messages": ["olla-v1."]}',
    ],
)
def test_it_leaves_every_other_body_untouched(body):
    assert remove_own_thinking(body) is body
