"""Builders of chat backends' answers and streams."""

from __future__ import annotations

import json
from typing import Any

from tests.translation.grammar import Stream, read_stream
from translation.anthropic_stream import AnthropicStream
from translation.facts import ReplyFacts

FACTS = ReplyFacts(model="local", entropy=bytes(range(16)), input_tokens=7, max_tokens=50)


def answer(message: Any = None, finish: Any = "stop", **more: Any) -> bytes:
    """A whole chat answer with one choice."""
    choice = {"index": 0, "message": message or {"role": "assistant", "content": "hi"}, "finish_reason": finish}
    choice.update(more.pop("choice", {}))
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return json.dumps({"id": "c-1", "model": "up", "choices": [choice], "usage": usage, **more}).encode()


def tool_call(call_id: str = "A", name: str = "f", arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def delta(finish: Any = None, **fields: Any) -> dict[str, Any]:
    """A chunk whose only choice has these delta fields."""
    return {"id": "c-1", "model": "up", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def piece(slot: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    """A tool call delta; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    fields = {"index": slot, "id": call_id, "function": function}
    return {key: value for key, value in fields.items() if value is not None and value != {}}


def tools(*pieces: Any, **more: Any) -> dict[str, Any]:
    return delta(tool_calls=list(pieces), **more)


def usage_chunk(prompt: int = 11, completion: int = 4, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def sse(*chunks: Any, done: bool = True) -> bytes:
    """An event stream of chunks; bytes are put in as they are."""
    frames = [
        chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks
    ]
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def run(data: bytes, facts: ReplyFacts = FACTS, *, step: int = 0) -> tuple[bytes, AnthropicStream]:
    """Feed a whole stream, in pieces of `step` bytes, and end it."""
    stream = AnthropicStream(facts, 0.0)
    out = b""
    for start in range(0, len(data), step or len(data) or 1):
        out += stream.feed(data[start : start + (step or len(data))], 0.0)
    return out + stream.finish(0.0), stream


def streamed(*chunks: Any, facts: ReplyFacts = FACTS, done: bool = True) -> Stream:
    """The checked Anthropic stream that these chunks become."""
    return read_stream(run(sse(*chunks, done=done), facts)[0], live=facts.live_arguments)
