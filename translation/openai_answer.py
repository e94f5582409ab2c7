"""What a chat backend says, whole or in chunks, as one plain record.

Backends disagree about types: content may be a list of parts, arguments an object, reasoning have one of four
names. Each field is read on its own; a surprising one is ignored and the rest of the chunk survives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .json_text import Json, build_json_text
from .usage import Usage, read_usage


class ToolDelta(NamedTuple):
    """A piece of a tool call, or a whole one."""

    slot: int  # the backend's index
    call_id: str
    name: str
    arguments: str
    has_function: bool


@dataclass(slots=True)
class Chunk:
    """One chunk of a stream, or a whole answer; empty text means nothing was said."""

    thinking: str = ""
    text: str = ""
    refusal: str = ""
    tools: list[ToolDelta] | None = None
    finish: str = ""
    matched_stop: str = ""
    usage: Usage | None = None
    model: str = ""
    upstream_id: str = ""
    is_error: bool = False
    has_choice: bool = False


def read_chunk(value: Json) -> Chunk | None:
    """Read a decoded chunk or answer; None when it is neither, nor an error, nor usage."""
    if not isinstance(value, dict):
        return None
    if value.get("error") or value.get("object") == "error":
        return Chunk(is_error=True)
    chunk = Chunk()
    usage = value.get("usage")
    if usage is not None:
        chunk.usage = read_usage(usage)
    choices = value.get("choices")
    if not isinstance(choices, list):
        return chunk if chunk.usage else None
    chunk.model = _text(value.get("model"))
    chunk.upstream_id = _text(value.get("id"))
    choice = _first_choice(choices)
    if choice is not None:
        _read_choice(choice, chunk)
    return chunk


def _first_choice(choices: list[Json]) -> dict[str, Json] | None:
    """The choice with index 0; further ones were never asked for."""
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index") in (0, None):
            return choice
    return None


def _read_choice(choice: dict[str, Json], chunk: Chunk) -> None:
    chunk.finish = _text(choice.get("finish_reason"))
    if chunk.finish:
        # vLLM and SGLang name the matched stop sequence; a number is a token id.
        chunk.matched_stop = _text(choice.get("stop_reason")) or _text(choice.get("matched_stop"))
    delta = choice.get("delta")
    if isinstance(delta, dict):
        chunk.has_choice = True
        _read_message(delta, chunk, whole=False)
        return
    message = choice.get("message")
    if isinstance(message, dict):
        chunk.has_choice = True
        _read_message(message, chunk, whole=True)


def _read_message(message: dict[str, Json], chunk: Chunk, *, whole: bool) -> None:
    content = message.get("content")
    if isinstance(content, str):
        chunk.text = content
        if len(message) == 1:  # nearly every chunk of a stream
            return
    elif isinstance(content, list):
        for part in content:
            _read_part(part, chunk)
    reasoning = _read_reasoning(message)
    if reasoning:
        chunk.thinking = reasoning
    chunk.refusal = _text(message.get("refusal"))
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        chunk.tools = [
            _read_call(call, at if whole else 0) for at, call in enumerate(calls) if isinstance(call, dict)
        ]
    legacy = message.get("function_call")
    if isinstance(legacy, dict) and not chunk.tools:
        chunk.tools = [_read_call({"function": legacy}, 0)]


def _read_reasoning(message: dict[str, Json]) -> str:
    for name in ("reasoning", "reasoning_content"):
        text = message.get(name)
        if isinstance(text, str) and text:
            return text
    details = message.get("reasoning_details")
    if not isinstance(details, list):
        return ""
    return "".join(
        _text(item.get("text")) or _text(item.get("summary")) for item in details if isinstance(item, dict)
    )


def _read_part(part: Json, chunk: Chunk) -> None:
    """One part of a content list: text, refusal or Mistral's thinking with text parts inside."""
    if isinstance(part, str):
        chunk.text += part
        return
    if not isinstance(part, dict):
        return
    if part.get("type") == "thinking":
        inner = part.get("thinking")
        pieces = inner if isinstance(inner, list) else [{"text": inner}]
        chunk.thinking += "".join(_text(piece.get("text")) for piece in pieces if isinstance(piece, dict))
    else:
        chunk.text += _text(part.get("text"))


def _read_call(call: dict[str, Json], index: int) -> ToolDelta:
    given = call.get("index")
    function = call.get("function")
    found = function if isinstance(function, dict) else {}
    return ToolDelta(
        slot=given if isinstance(given, int) else index,
        call_id=_text(call.get("id")),
        name=_text(found.get("name")),
        arguments=_arguments(found.get("arguments")),
        has_function=isinstance(function, dict),
    )


def _arguments(value: Json) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return build_json_text(value)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
