"""Hostile clients and hostile backends on the Messages route: never a 500, never a stream out of order."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.fakes import Reply, ScriptedBackend, json_reply
from tests.proxy.anthropic_builders import CHUNKS, MESSAGES, ask, completion, native_reply, send
from tests.proxy.conftest import Proxy
from tests.translation.grammar import read_stream

PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
RICH: dict[str, Any] = {
    "model": "m",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "system", "content": [{"type": "text", "text": "a reminder"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": PIXEL},
                {"type": "image", "source": {"type": "url", "url": "https://images.test/x.png"}},
                {
                    "type": "document",
                    "title": "T",
                    "citations": {"enabled": True},
                    "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "image", "source": PIXEL}]},
                },
                {
                    "type": "search_result",
                    "title": "S",
                    "source": "s",
                    "content": [{"type": "text", "text": "found"}],
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "olla-v1.0"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I call"},
                {"type": "tool_use", "id": "A", "name": "f", "input": {"x": [1, {"y": 2}]}},
                {"type": "tool_use", "id": "B", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "A", "content": "done", "is_error": True},
                {
                    "type": "tool_result",
                    "tool_use_id": "B",
                    "content": [{"type": "text", "text": "a"}, {"type": "image", "source": PIXEL}],
                },
            ],
        },
    ],
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        {"name": "g", "input_schema": {"type": "object"}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 4,
    "stream": False,
    "container": "c",
}
DEEP = json.loads("[" * 60 + "]" * 60)
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 10**30, -(10**30), 0.5, 1e300, "", "x", "\x00", "\ud800", "😀" * 50, "a\nb\r\n\r\nc",
    "data: {}\n\n", [], [[]], [None], [0], ["x"], {}, {"": 0}, {"type": None}, {"type": []}, {"type": {}},
    {"type": "text"}, {"type": "text", "text": []}, {"type": "novelty"}, {"type": "\udfff\n"}, [{"type": "text"}],
    DEEP, {"a": DEEP}, "x" * 5000,
]  # fmt: skip


def positions(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from positions(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at that place."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


def drop(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy without that place."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def twist(chance: random.Random, value: Any) -> bytes:
    """The JSON of a value with one to three places spoilt, and now and then the text itself."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(list(positions(value)))
        value = drop(value, path) if chance.random() < 0.15 else put(value, path, chance.choice(HOSTILE))
    text = json.dumps(value).encode()
    roll = chance.random()
    if roll < 0.05:
        return text[: chance.randrange(len(text))]
    if roll < 0.1:
        at = chance.randrange(len(text))
        return text[:at] + chance.choice((b"\xff", b"\x00", b"}", b'"', b",")) + text[at:]
    return text


def check_answer(answer: Any, body: bytes) -> None:
    """A message, or an error of the client's own making in the envelope."""
    assert answer.status in (200, 400, 404, 413), (answer.status, answer.body, body)
    if answer.status == 200 and answer.header("content-type") == "text/event-stream":
        read_stream(answer.body)
    elif answer.status == 200:
        assert answer.json().get("type") == "message" or "input_tokens" in answer.json(), body
    else:
        assert answer.json()["type"] == "error", body
        assert answer.json()["error"]["message"], body


@pytest.mark.parametrize("path", [MESSAGES, MESSAGES + "/count_tokens"])
@pytest.mark.parametrize("kind", ["openai", "vllm", "sglang", "llamacpp", "docker-model-runner"])
async def test_it_answers_or_refuses_whatever_a_client_sends(
    proxy: Proxy, kind: str, path: str, long_form: bool
) -> None:
    script = {
        "/v1/messages": native_reply(),
        "/anthropic/v1/messages": native_reply(),
        "/v1/messages/count_tokens": json_reply({"input_tokens": 5}),
        "/anthropic/v1/messages/count_tokens": json_reply({"input_tokens": 5}),
        "/tokenize": json_reply({"count": 5, "tokens": [1]}),
        "/apply-template": json_reply({"prompt": "p"}),
        "*": json_reply(completion()),
    }
    chance = random.Random(f"{kind}{path}")
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind, requests_per_minute=1_000_000)
        for _ in range(1500 if long_form else 60):
            body = twist(chance, RICH)
            check_answer(await proxy.call("POST", path, body), body)


EXTREMES: dict[str, Callable[[], bytes]] = {
    "a body nested 100,000 deep": lambda: b'{"model":"m","max_tokens":1,"messages":' + b"[" * 100_000,
    "a content nested 900 deep": lambda: _nested(900, b"content"),
    "an input nested 450 deep": lambda: _nested(450, b"input"),
    "an input nested 900 deep": lambda: _nested(900, b"input"),
    "server results in lists 800 deep": lambda: _nested(800, b"result"),
    "a schema nested 900 deep": lambda: _nested(900, b"schema"),
    "10,000 tools": lambda: json.dumps(
        ask(tools=[{"name": f"t{n}", "input_schema": {"type": "object"}} for n in range(10_000)])
    ).encode(),
    "10,000 empty turns": lambda: json.dumps(
        {**ask(), "messages": [{"role": "user", "content": []}] * 10_000}
    ).encode(),
    "a number of 5,000 digits": lambda: json.dumps(ask()).replace("50", "9" * 5000).encode(),
    "an input number of 5,000 digits": lambda: _call(b'{"n":' + b"9" * 5000 + b"}"),
    "a float out of range": lambda: _call(b'{"n":1e999}'),
    "keys twice": lambda: (
        b'{"model":"m","max_tokens":1,"max_tokens":2,"messages":[],'
        b'"messages":[{"role":"user","role":"user","content":"a","content":"b"}]}'
    ),
    "the model twice": lambda: (
        b'{"model":"m","model":"n","max_tokens":1,"messages":[{"role":"user","content":"a"}]}'
    ),
    "half a surrogate": lambda: b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\\ud83d"}]}',
    "broken UTF-8": lambda: b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\xff"}]}',
    "a byte order mark": lambda: b"\xef\xbb\xbf" + json.dumps(ask()).encode(),
    "UTF-16": lambda: json.dumps(ask()).encode("utf-16"),
    "nothing": lambda: b"",
    "blanks": lambda: b" \r\n\t",
    "a list": lambda: b"[]",
    "NaN": lambda: b'{"model":"m","max_tokens":NaN,"messages":[]}',
}  # fmt: skip


def _turn(block: bytes) -> bytes:
    return (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"},'
        b'{"role":"assistant","content":[' + block + b"]},"
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"A","content":"x"}]}]}'
    )


def _call(given: bytes) -> bytes:
    return _turn(b'{"type":"tool_use","id":"A","name":"f","input":' + given + b"}")


def _nested(depth: int, where: bytes) -> bytes:
    lists, objects = b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    if where == b"input":
        return _call(objects)
    if where == b"result":
        block = b'{"type":"web_search_tool_result","tool_use_id":"x","content":' + lists + b"}"
        return _turn(block + b',{"type":"tool_use","id":"A","name":"f","input":{}}')
    if where == b"schema":
        tools = b'"tools":[{"name":"f","input_schema":' + objects + b"}]"
        return b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}],' + tools + b"}"
    return b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":' + lists + b"}]}"


@pytest.mark.parametrize("path", [MESSAGES, MESSAGES + "/count_tokens"])
@pytest.mark.parametrize("kind", ["openai-compatible", "ollama", "vllm"])
@pytest.mark.parametrize("extreme", EXTREMES)
async def test_it_answers_or_refuses_an_extreme(proxy: Proxy, extreme: str, kind: str, path: str) -> None:
    script = {"/v1/messages": native_reply(), "/tokenize": json_reply({"count": 5}), "*": json_reply(completion())}
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        body = EXTREMES[extreme]()
        check_answer(await proxy.call("POST", path, body), body[:200])


STRAY = (b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"data:\n\n", b": x\n\n")


def spoil(chance: random.Random) -> list[bytes]:
    """A chat stream of a few sound and a few spoilt pieces, cut at any byte."""
    lines = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in CHUNKS]
    begun = {"index": 0, "id": "A", "function": {"name": "f", "arguments": '{"a"'}}
    for call in (begun, {"index": 0, "function": {"arguments": ":1}"}}):
        delta = {"choices": [{"index": 0, "delta": {"tool_calls": [call], "reasoning": "hm"}}]}
        lines.insert(chance.randrange(len(lines)), b"data: " + json.dumps(delta).encode() + b"\n\n")
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(lines))
        value = None
        with suppress(ValueError):
            value = json.loads(lines[at].removeprefix(b"data: "))
        roll = chance.randrange(7)
        if roll == 0 and isinstance(value, dict):
            path = chance.choice(list(positions(value)))
            lines[at] = b"data: " + json.dumps(put(value, path, chance.choice(HOSTILE))).encode() + b"\n\n"
        elif roll == 1:
            lines.insert(at, lines[at])
        elif roll == 2:
            del lines[at]
        elif roll == 3:
            lines.insert(
                at, chance.choice((b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"data:\n\n", b": x\n\n"))
            )
        elif roll == 4:
            lines[at] = lines[at][: chance.randrange(len(lines[at]))]
        elif roll == 5:
            lines.insert(at, bytes(chance.randrange(256) for _ in range(30)))
        else:
            chance.shuffle(lines)
    if chance.random() < 0.6:
        lines.append(b"data: [DONE]\n\n")
    text = b"".join(lines)
    cuts = sorted(chance.randrange(len(text)) for _ in range(3))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


async def test_it_keeps_the_grammar_whatever_a_backend_streams(proxy: Proxy, long_form: bool) -> None:
    chance = random.Random("streams")
    rounds = 3000 if long_form else 150
    stream = [(b"Content-Type", b"text/event-stream")]
    async with ScriptedBackend([Reply(headers=stream, chunks=spoil(chance)) for _ in range(rounds)]) as backend:
        await proxy.add(backend.url)
        for number in range(rounds):
            answer = await send(proxy, ask(stream=number % 5 != 0))
            assert answer.status in (200, 500, 502), answer.body
            assert answer.complete
            assert not answer.aborted
            if answer.status != 200:
                assert answer.json()["type"] == "error"
            elif number % 5:
                read_stream(answer.body)
            else:
                assert answer.json()["type"] == "message"
    await proxy.settled()
