"""What the tests of the Anthropic routes say to and hear from scripted backends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes import Header, Reply, json_reply, sse_reply
from tests.proxy.conftest import Exchange, Proxy

MESSAGES = "/olla/anthropic/v1/messages"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def ask(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A small Messages request for model m."""
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **fields}


async def send(
    proxy: Proxy, fields: dict[str, Any] | None = None, headers: Sequence[tuple[str, str]] = (), **more: Any
) -> Exchange:
    """A Messages request and its whole answer."""
    return await proxy.call("POST", MESSAGES, ask() if fields is None else fields, headers, **more)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a chat completion's stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m-real", "choices": [choice], **more}


def completion(text: str = "Hi there", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text, **more}
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "m-real",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hi "}),
    chunk({"content": "there"}),
    chunk(finish="stop"),
    {"id": "c1", "choices": [], "usage": USAGE},
]


def chat_stream(**more: Any) -> Reply:
    """A chat completion as a stream."""
    return sse_reply(CHUNKS, **more)


NATIVE_USAGE = {
    "input_tokens": 11, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
}  # fmt: skip


def message(text: str = "Hi there", **more: Any) -> dict[str, Any]:
    """A whole Anthropic message."""
    return {
        "id": "msg_01AbCdEfGhJkMnPqRsTuVwXy",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": dict(NATIVE_USAGE),
        **more,
    }


def events(text: str = "Hi there") -> list[bytes]:
    """An Anthropic stream, one event each."""
    start = message(text, content=[], stop_reason=None)
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": dict(NATIVE_USAGE),
        },
        {"type": "message_stop"},
    ]
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in values]


def native_stream(*pieces: Any, headers: Sequence[Header] = ()) -> Reply:
    """Those events, or these pieces, from a native backend."""
    return Reply(headers=[(b"Content-Type", b"text/event-stream"), *headers], chunks=list(pieces) or events())


def native_reply(**more: Any) -> Reply:
    """That message from a native backend."""
    return json_reply(message(), **more)
