"""Conversations through both translations: what the tables keep comes back unchanged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.translation.grammar import read_stream
from tests.translation.replies import run, sse
from tests.translation.shapes import body
from tests.translation.sizes import sized
from translation.anthropic_request import parse_request
from translation.anthropic_response import build_anthropic_response
from translation.backend_traits import BackendTraits, ThinkingHistory
from translation.openai_request import TranslationOptions, build_openai_request

TRAITS = BackendTraits(top_k=True, thinking_history=ThinkingHistory.REASONING_CONTENT, pdf_files=True)
words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.text(alphabet="abcXYZ_-0", min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
inputs = st.dictionaries(words, values, max_size=3)
images = st.builds(
    lambda data: {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
    st.text(alphabet="ABCD", min_size=4, max_size=8),
)
user_blocks = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, words) | images, min_size=1, max_size=3
)


@st.composite
def conversations(draw) -> list[dict[str, Any]]:
    """User and assistant turns in alternation; each call is answered in the next turn."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(user_blocks)}]
    for turn in range(draw(st.integers(0, 3))):
        blocks: list[dict[str, Any]] = []
        if draw(st.booleans()):
            blocks.append({"type": "thinking", "thinking": draw(words), "signature": "s"})
        blocks.append({"type": "text", "text": draw(words)})
        ids = [f"call-{turn}-{number}" for number in range(draw(st.integers(0, 3)))]
        blocks += [{"type": "tool_use", "id": i, "name": draw(names), "input": draw(inputs)} for i in ids]
        results: list[dict[str, Any]] = [
            {"type": "tool_result", "tool_use_id": i, "content": draw(words)} for i in draw(st.permutations(ids))
        ]
        more = draw(user_blocks) if draw(st.booleans()) or not results else []
        turns += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results + more}]
    return turns


def back(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Chat messages as Anthropic turns, by the reverse of the documented mapping."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "assistant":
            turns.append({"role": "assistant", "content": list(assistant_blocks(message))})
            continue
        if not turns or turns[-1]["role"] != "user":
            turns.append({"role": "user", "content": []})
        turns[-1]["content"] += user_blocks_of(message)
    return turns


def assistant_blocks(message: dict[str, Any]):
    if "reasoning_content" in message:
        yield {"type": "thinking", "thinking": message["reasoning_content"], "signature": "s"}
    if message["content"]:
        yield {"type": "text", "text": message["content"]}
    for call in message.get("tool_calls", ()):
        given_input = json.loads(call["function"]["arguments"])
        yield {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given_input}


def user_blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}]
    content = message["content"]
    return (
        [{"type": "text", "text": content}] if isinstance(content, str) else [block_of(part) for part in content]
    )


def block_of(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    media_type, data = part["image_url"]["url"].removeprefix("data:").split(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def joined(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts of a user turn as one, joined as the translation joins them."""
    merged = []
    for turn in turns:
        blocks: list[dict[str, Any]] = []
        for block in turn["content"]:
            if turn["role"] == "user" and block["type"] == "text" and blocks and blocks[-1]["type"] == "text":
                blocks[-1] = {"type": "text", "text": blocks[-1]["text"] + "\n\n" + block["text"]}
            else:
                blocks.append(block)
        merged.append({"role": turn["role"], "content": blocks})
    return merged


def chat_request(turns: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    built = build_openai_request(parse_request(body(*turns, **fields)), TranslationOptions(traits=TRAITS))
    assert built.losses == ()
    request: dict[str, Any] = json.loads(built.body)
    return request


@sized
@given(conversations())
def test_it_keeps_every_block_of_a_conversation(turns):
    assert back(chat_request(turns)["messages"]) == joined(turns)


@sized
@given(
    st.fixed_dictionaries(
        {"max_tokens": st.integers(1, 99999)},
        optional={
            "system": words,
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(0, 500),
            "stop_sequences": st.lists(words, min_size=1, max_size=3),
            "stream": st.booleans(),
        },
    ),
    st.lists(st.tuples(names, words, inputs), max_size=3, unique_by=lambda entry: entry[0]),
)
def test_it_keeps_every_plain_field(fields, definitions):
    tools = [
        {"name": name, "description": told, "input_schema": {"type": "object", "properties": properties}}
        for name, told, properties in definitions
    ]
    request = chat_request([{"role": "user", "content": "x"}], tools=tools, **fields)
    same = ("max_tokens", "temperature", "top_p", "top_k")
    found: dict[str, Any] = {name: request[name] for name in same if name in request}
    if "stop" in request:
        found["stop_sequences"] = request["stop"]
    if request["messages"][0]["role"] == "system":
        found["system"] = request["messages"][0]["content"]
    if "stream" in fields:
        found["stream"] = request["stream"]
    assert found == fields
    functions = [entry["function"] for entry in request.get("tools", ())]
    assert [
        {"name": entry["name"], "description": entry["description"], "input_schema": entry["parameters"]}
        for entry in functions
    ] == tools


@st.composite
def replies(draw) -> list[dict[str, Any]]:
    """The blocks of an assistant's answer, in the order a message shows them."""
    blocks: list[dict[str, Any]] = []
    if draw(st.booleans()):
        blocks.append({"type": "thinking", "thinking": draw(words)})
    blocks.append({"type": "text", "text": draw(words)})
    calls = [f"c{number}" for number in range(draw(st.integers(0, 3)))]
    return blocks + [{"type": "tool_use", "id": i, "name": draw(names), "input": draw(inputs)} for i in calls]


def message_for(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat message a backend would send for these blocks."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "thinking":
            message["reasoning"] = block["thinking"]
        elif block["type"] == "text":
            message["content"] = block["text"]
        else:
            function = {"name": block["name"], "arguments": json.dumps(block["input"])}
            calls.append({"id": block["id"], "type": "function", "function": function})
    return {**message, "tool_calls": calls} if calls else message


def unsigned(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in block.items() if key != "signature"} for block in content]


@sized
@given(replies())
def test_it_keeps_every_block_of_an_answer(blocks):
    choice = {"index": 0, "message": message_for(blocks), "finish_reason": "stop"}
    facts = build_openai_request(parse_request(body()), TranslationOptions()).facts
    response = build_anthropic_response(json.dumps({"choices": [choice]}).encode(), facts)
    assert unsigned(json.loads(response.body)["content"]) == blocks


@sized
@given(replies(), st.data())
def test_it_keeps_every_block_of_a_streamed_answer(blocks, data):
    message = message_for(blocks)
    chunks: list[dict[str, Any]] = []
    for name in ("reasoning", "content"):
        chunks += [{name: letters} for letters in cut(message.get(name) or "", data)]
    for slot, call in enumerate(message.get("tool_calls", ())):
        head = {"index": slot, "id": call["id"], "function": {"name": call["function"]["name"], "arguments": ""}}
        chunks.append({"tool_calls": [head]})
        for part in cut(call["function"]["arguments"], data):
            chunks.append({"tool_calls": [{"index": slot, "function": {"arguments": part}}]})
    frames = [{"choices": [{"index": 0, "delta": chunk}]} for chunk in chunks]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert unsigned(read_stream(run(sse(*frames, last))[0]).message["content"]) == blocks


def cut(text: str, data: st.DataObject) -> list[str]:
    size = data.draw(st.integers(1, 8))
    return [text[start : start + size] for start in range(0, len(text), size)]
