"""Passthrough or translation, decided for the one endpoint that was chosen.

An endpoint that speaks the Messages API itself gets the body untouched, unless the request needs something it is
declared to lack. Native support is a fact of the endpoint, found by probing or set by the operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from .anthropic_request import AnthropicRequest, Block, Turn, block_kind
from .errors import parse_backend_error
from .json_text import InvalidJsonError, Json, parse_json

_MAX_DEPTH = 4
_SOUGHT = ("image", "document")


class Mode(StrEnum):
    """How a Messages request reaches the backend; also the value of the mode header."""

    PASSTHROUGH = "passthrough"
    TRANSLATION = "translation"


class Limitation(StrEnum):
    """What a native endpoint can be declared to lack."""

    NO_TOOL_USE = "no_tool_use"
    NO_EXTENDED_THINKING = "no_extended_thinking"
    NO_VISION = "no_vision"
    NO_DOCUMENTS = "no_documents"
    NO_SERVER_TOOLS = "no_server_tools"


class FallbackReason(StrEnum):
    """Why a request was translated, as the statistics count it."""

    NONE = ""
    NO_COMPATIBLE_ENDPOINTS = "no_compatible_endpoints"
    NO_PASSTHROUGH = "translator_does_not_support_passthrough"
    CANNOT_PASSTHROUGH = "cannot_passthrough"


@dataclass(frozen=True, slots=True)
class NativeSupport:
    """Whether an endpoint has a Messages path of its own, and what that path lacks."""

    enabled: bool = False
    limitations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RequestNeeds:
    """What a request asks of the backend, as far as endpoints differ."""

    tools: bool = False
    thinking: bool = False
    vision: bool = False
    documents: bool = False
    server_tools: bool = False


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """The mode, why it is not passthrough, and which limitations were in the way."""

    mode: Mode
    reason: FallbackReason = FallbackReason.NONE
    missing: tuple[Limitation, ...] = ()


def choose_mode(needs: RequestNeeds, support: NativeSupport, *, passthrough_enabled: bool = True) -> ModeChoice:
    """Passthrough if the endpoint has the path, the setting allows it and nothing needed is lacking."""
    missing = tuple(wanted for wanted in _wanted(needs) if wanted in support.limitations)
    if support.enabled and passthrough_enabled and not missing:
        return ModeChoice(Mode.PASSTHROUGH)
    return ModeChoice(Mode.TRANSLATION, FallbackReason.CANNOT_PASSTHROUGH, missing)


def find_needs(request: AnthropicRequest) -> RequestNeeds:
    """What a request asks for; contents are opened only where a name in them makes it worth while."""
    kinds = _find_kinds(request)
    thinking = request.thinking.get("type") if isinstance(request.thinking, dict) else request.thinking
    return RequestNeeds(
        tools=bool(request.tools),
        thinking=thinking is not None and thinking != "disabled",
        vision="image" in kinds,
        documents="document" in kinds,
        server_tools=any(
            tool.input_schema is None and tool.type not in {None, "custom"} for tool in request.tools
        ),
    )


def lacks_native_path(status: int, body: bytes) -> bool:
    """Whether an answer means that the endpoint has no Messages path, rather than not this model.

    The caller should then remember it for the endpoint and send the request again, translated.
    """
    if status in {405, 501}:
        return True
    return status == 404 and "model" not in parse_backend_error(body, status).message.lower()


def _wanted(needs: RequestNeeds) -> Iterable[Limitation]:
    """The limitations that would be in the way of a request."""
    if needs.tools:
        yield Limitation.NO_TOOL_USE
    if needs.thinking:
        yield Limitation.NO_EXTENDED_THINKING
    if needs.vision:
        yield Limitation.NO_VISION
    if needs.documents:
        yield Limitation.NO_DOCUMENTS
    if needs.server_tools:
        yield Limitation.NO_SERVER_TOOLS


def _find_kinds(request: AnthropicRequest) -> set[str]:
    """Which of images and documents a request holds, and perhaps other types of blocks."""
    kinds: set[str] = set()
    wanted = _named(request.conversation)
    if not wanted:
        return kinds
    for turn in request.messages:
        if _named(turn.content) - kinds:
            _collect_kinds(_open(turn), kinds, _MAX_DEPTH)
            if wanted <= kinds:
                break
    return kinds


def _named(raw: msgspec.Raw) -> set[str]:
    """The types that may stand in a text: within a JSON string their quotes would be escaped."""
    text = bytes(raw)
    if b'"source"' not in text:  # either has one
        return set()
    return {kind for kind in _SOUGHT if b'"%b"' % kind.encode() in text}


def _open(turn: Turn) -> Json:
    try:
        return parse_json(turn.content)
    except InvalidJsonError:
        # The backend, or the translation, will say so in its own words.
        return None


def _collect_kinds(value: Json, kinds: set[str], depth: int) -> None:
    """The types of blocks, also those inside tool results and documents."""
    if isinstance(value, list) and depth:
        for item in value:
            _collect_kinds(item, kinds, depth - 1)
    elif isinstance(value, dict) and depth:
        _collect_block_kinds(value, kinds, depth)


def _collect_block_kinds(block: Block, kinds: set[str], depth: int) -> None:
    kind = block_kind(block)
    kinds.add(kind)
    inner = block.get("source") if kind == "document" else block
    if isinstance(inner, dict) and kind in {"document", "tool_result"}:
        _collect_kinds(inner.get("content"), kinds, depth - 1)
