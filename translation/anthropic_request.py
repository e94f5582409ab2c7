"""An Anthropic Messages request as a checked record.

`parse_request` applies the checks that hold for passthrough and translation alike. Message contents stay
undecoded bytes, so that a request that is passed through costs no more than a scan; see `translation.turns`.
Fields unknown here are tolerated and remembered by name. A null counts as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from .errors import TranslationError
from .json_text import InvalidJsonError, Json, parse_typed

Block = dict[str, Json]
Fields = dict[str, msgspec.Raw]


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One entry of `messages`; the content is still JSON text."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class Tool(msgspec.Struct, frozen=True):
    """One entry of `tools`: a client tool with a schema, or one that Anthropic defines or runs itself."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class AnthropicRequest:
    """A Messages request; `others` names the top-level fields that have no place of their own here."""

    model: str
    conversation: msgspec.Raw  # `messages` as JSON text
    messages: tuple[Turn, ...]
    max_tokens: int
    stream: bool
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop_sequences: tuple[str, ...]
    tools: tuple[Tool, ...]
    tool_choice: Json
    system: Json
    thinking: Json
    output_config: Json
    output_format: Json
    metadata: dict[str, Json]
    others: tuple[str, ...]

    @property
    def user_id(self) -> str:
        """The client's `metadata.user_id`, or ""; it names an account and a session, so it may seed stickiness."""
        found = self.metadata.get("user_id")
        return found if isinstance(found, str) else ""


_NULL = msgspec.Raw(b"null")
_EMPTY_LIST = msgspec.Raw(b"[]")
_TOP_LEVEL: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(Fields)

# In the order in which the first failure is reported.
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "model": msgspec.json.Decoder(str),
    "messages": msgspec.json.Decoder(tuple[Turn, ...]),
    "max_tokens": msgspec.json.Decoder(int),
    "stream": msgspec.json.Decoder(bool),
    "stop_sequences": msgspec.json.Decoder(tuple[str, ...]),
    "metadata": msgspec.json.Decoder(dict[str, Any]),
    "tools": msgspec.json.Decoder(tuple[Tool, ...]),
    "temperature": msgspec.json.Decoder(float),
    "top_p": msgspec.json.Decoder(float),
    "top_k": msgspec.json.Decoder(int),
    "tool_choice": msgspec.json.Decoder(Any),
    "system": msgspec.json.Decoder(Any),
    "thinking": msgspec.json.Decoder(Any),
    "output_config": msgspec.json.Decoder(Any),
    "output_format": msgspec.json.Decoder(Any),
}
_DEFAULTS: dict[str, Json] = {
    "model": "",
    "messages": (),
    "stream": False,
    "stop_sequences": (),
    "metadata": {},
    "tools": (),
}


def parse_request(body: bytes, fields: Fields | None = None) -> AnthropicRequest:
    """Read and check a Messages request; raises TranslationError (400).

    `fields` are the values of the body's object, where the caller has them already.
    """
    request, given = _read(body, fields)
    if not request.model:
        raise TranslationError("model is required")
    if not request.messages:
        raise TranslationError("messages: at least one message is required")
    if "max_tokens" not in given:
        raise TranslationError("max_tokens is required")
    _check_ranges(request)
    return request


def parse_count_request(body: bytes, fields: Fields | None = None) -> AnthropicRequest:
    """Read a count_tokens request: the same types, but neither model, messages nor max_tokens are required."""
    return _read(body, fields)[0]


def block_kind(block: Block) -> str:
    """The type word of a block; "" when it has none, or one that is no word."""
    kind = block.get("type")
    return kind if isinstance(kind, str) else ""


def _read(body: bytes, fields: Fields | None) -> tuple[AnthropicRequest, set[str]]:
    try:
        found = fields or parse_typed(_TOP_LEVEL, body)
    except InvalidJsonError as error:
        raise TranslationError(f"The request body is not a JSON object: {error}") from None
    raw = {name: value for name, value in found.items() if value != _NULL}
    values = {name: _decode_field(name, raw) for name in _DECODERS}
    given = {name for name in _DECODERS if name in raw}
    others = tuple(name for name in raw if name not in _DECODERS)
    values["max_tokens"] = values["max_tokens"] or 0
    conversation = raw.get("messages", _EMPTY_LIST)
    return AnthropicRequest(**values, conversation=conversation, others=others), given


def _decode_field(name: str, raw: Fields) -> Json:
    value = raw.get(name)
    if value is None:
        return _DEFAULTS.get(name)
    try:
        return parse_typed(_DECODERS[name], value)
    except InvalidJsonError as error:
        raise TranslationError(str(error), path=name) from None


def _check_ranges(request: AnthropicRequest) -> None:
    # 0 warms the prompt cache without an answer.
    if request.max_tokens < 0:
        raise TranslationError("max_tokens must not be negative")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise TranslationError("temperature must be between 0 and 2")
    if request.top_p is not None and not 0 <= request.top_p <= 1:
        raise TranslationError("top_p must be between 0 and 1")
    if request.top_k is not None and request.top_k < 0:
        raise TranslationError("top_k must not be negative")
