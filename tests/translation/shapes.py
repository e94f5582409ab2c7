"""Builders of requests and their translations, shared by the tests of this package."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from translation.anthropic_request import parse_request
from translation.backend_traits import BackendTraits
from translation.openai_request import OpenAIRequest, TranslationOptions, build_openai_request

PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def body(*messages: Any, **fields: Any) -> bytes:
    """A Messages request as bytes; without messages it says hello."""
    turns = list(messages) or [{"role": "user", "content": "hello"}]
    request = {"model": "local", "max_tokens": 100, "messages": turns, **fields}
    return json.dumps({name: value for name, value in request.items() if value is not ...}).encode()


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content[0] if len(content) == 1 else list(content)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def call(call_id: str = "A", name: str = "f", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def result(call_id: str = "A", content: Any = "done", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object", "properties": {}}, **more}


def translate(*messages: Any, traits: BackendTraits | None = None, **fields: Any) -> OpenAIRequest:
    options = TranslationOptions(traits=traits or BackendTraits())
    return build_openai_request(parse_request(body(*messages, **fields)), options)


def sent(*messages: Any, traits: BackendTraits | None = None, **fields: Any) -> Any:
    """The chat request that a Messages request becomes."""
    return json.loads(translate(*messages, traits=traits, **fields).body)


def chat(*messages: Any, traits: BackendTraits | None = None, **fields: Any) -> Any:
    """The chat messages that a conversation becomes."""
    return sent(*messages, traits=traits, **fields)["messages"]


def losses(*messages: Any, traits: BackendTraits | None = None, **fields: Any) -> list[str]:
    return [loss.name for loss in translate(*messages, traits=traits, **fields).losses]


def with_traits(**changes: Any) -> BackendTraits:
    return replace(BackendTraits(), **changes)
