"""An Anthropic Messages request as a checked record.

`parse_request` applies the checks that hold for passthrough and translation alike. Message contents stay
undecoded bytes, so that a request that is passed through costs no more than a scan; `decode_turns` opens them.
Fields unknown here are tolerated and remembered by name. A null counts as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from .errors import TranslationError
from .json_text import InvalidJsonError, Json, parse_json, parse_typed

Block = dict[str, Json]


class Turn(msgspec.Struct, frozen=True):
    """One entry of `messages`; the content is still JSON text."""

    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class _OpenTurn(msgspec.Struct, frozen=True):
    """A turn of which the content is decoded too; one call for a whole conversation is thrice as fast."""

    content: str | list[Block] | Block


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


class DecodedTurn(msgspec.Struct, frozen=True):
    """A turn with its content as blocks; a plain string is one text block. `path` names it in errors."""

    role: str
    blocks: list[Block]
    path: str


_NULL = msgspec.Raw(b"null")
_EMPTY_LIST = msgspec.Raw(b"[]")
_OPEN_TURNS = msgspec.json.Decoder(list[_OpenTurn])
_TOP_LEVEL: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])

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


def parse_request(body: bytes) -> AnthropicRequest:
    """Read and check a Messages request; raises TranslationError (400)."""
    request, given = _read(body)
    if not request.model:
        raise TranslationError("model is required")
    if not request.messages:
        raise TranslationError("messages: at least one message is required")
    if "max_tokens" not in given:
        raise TranslationError("max_tokens is required")
    _check_ranges(request)
    return request


def parse_count_request(body: bytes) -> AnthropicRequest:
    """Read a count_tokens request: the same types, but neither model, messages nor max_tokens are required."""
    return _read(body)[0]


def decode_turns(request: AnthropicRequest) -> list[DecodedTurn]:
    """Open the contents of all turns; raises TranslationError naming the turn."""
    try:
        opened = parse_typed(_OPEN_TURNS, request.conversation)
    except InvalidJsonError:
        # One of them is wrong: the slow way finds out which.
        return [_decode_turn(turn, f"messages[{index}]") for index, turn in enumerate(request.messages)]
    return [
        DecodedTurn(turn.role, _as_blocks(found.content), f"messages[{index}]")
        for index, (turn, found) in enumerate(zip(request.messages, opened, strict=True))
    ]


def block_kind(block: Block) -> str:
    """The type word of a block; "" when it has none, or one that is no word."""
    kind = block.get("type")
    return kind if isinstance(kind, str) else ""


def _read(body: bytes) -> tuple[AnthropicRequest, set[str]]:
    try:
        raw = parse_typed(_TOP_LEVEL, body)
    except InvalidJsonError as error:
        raise TranslationError(f"The request body is not a JSON object: {error}") from None
    raw = {name: value for name, value in raw.items() if value != _NULL}
    values = {name: _decode_field(name, raw) for name in _DECODERS}
    given = {name for name in _DECODERS if name in raw}
    others = tuple(name for name in raw if name not in _DECODERS)
    values["max_tokens"] = values["max_tokens"] or 0
    conversation = raw.get("messages", _EMPTY_LIST)
    return AnthropicRequest(**values, conversation=conversation, others=others), given


def _decode_field(name: str, raw: dict[str, msgspec.Raw]) -> Json:
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


def _as_blocks(content: str | list[Block] | Block) -> list[Block]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content} if isinstance(content, str) else content]


def _decode_turn(turn: Turn, path: str) -> DecodedTurn:
    try:
        content = parse_json(turn.content)
    except InvalidJsonError as error:
        raise TranslationError(str(error), path=f"{path}.content") from None
    if isinstance(content, str | dict):
        return DecodedTurn(turn.role, _as_blocks(content), path)
    if not isinstance(content, list):
        raise TranslationError("must be a string or a list of content blocks", path=f"{path}.content")
    for index, block in enumerate(content):
        if not isinstance(block, dict):
            raise TranslationError("must be an object", path=f"{path}.content[{index}]")
    return DecodedTurn(turn.role, content, path)
