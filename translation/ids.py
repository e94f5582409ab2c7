"""Ids and signatures that Anthropic clients expect, derived from bytes the caller draws.

A message has sixteen random bytes; its id and the ids of tool calls the backend left nameless follow from them,
so the same input always gives the same output. Thinking blocks carry a signature that is recognisably ours: a
block with such a signature must not be sent to the genuine API, which accepts only its own.
"""

from __future__ import annotations

import hashlib
import hmac

from .json_text import InvalidJsonError, Json, build_json, parse_json

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
SIGNATURE_PREFIX = "olla-v1."
"""How a thinking signature of this product begins; no genuine signature (base64) contains a full stop."""


def build_message_id(entropy: bytes) -> str:
    """The id of a message: `msg_01` and its random bytes in base58."""
    return "msg_01" + encode_base58(entropy)


def build_tool_id(entropy: bytes, ordinal: int) -> str:
    """The id of the tool call number `ordinal` of a message, for backends that send none."""
    digest = hashlib.blake2b(entropy + ordinal.to_bytes(4, "big"), digest_size=16).digest()
    return "toolu_01" + encode_base58(digest)


def encode_base58(data: bytes) -> str:
    """Bytes as text without the letters that look alike (0 O I l)."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    leading = len(data) - len(data.lstrip(b"\0"))
    return _ALPHABET[0] * leading + "".join(reversed(digits))


class ThinkingSigner:
    """Signs one thinking block whose text arrives in pieces."""

    __slots__ = ("_mac",)

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def update(self, text: str) -> None:
        """Add the next piece of the thinking text."""
        self._mac.update(text.encode())

    def build_signature(self) -> str:
        """The signature of all text so far."""
        return SIGNATURE_PREFIX + self._mac.hexdigest()


def sign_thinking(text: str, key: bytes) -> str:
    """The signature of a whole thinking text."""
    signer = ThinkingSigner(key)
    signer.update(text)
    return signer.build_signature()


def is_own_signature(signature: Json) -> bool:
    """Whether a thinking block's signature was made by this product."""
    return isinstance(signature, str) and signature.startswith(SIGNATURE_PREFIX)


def remove_own_thinking(body: bytes) -> bytes:
    """A passthrough body without thinking blocks signed here, for the genuine API; untouched when it has none."""
    if SIGNATURE_PREFIX.encode() not in body:
        return body
    try:
        return _drop_own_thinking(body)
    except InvalidJsonError:
        return body


def _drop_own_thinking(body: bytes) -> bytes:
    request = parse_json(body)
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list):
        return body
    kept = [turn for turn in map(_without_own_thinking, messages) if turn is not None]
    if len(kept) == len(messages) and all(new is old for new, old in zip(kept, messages, strict=True)):
        return body
    return build_json({**request, "messages": kept})


def _without_own_thinking(turn: Json) -> Json:
    """The turn without our thinking blocks, or None when nothing else was in it."""
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        return turn
    kept = [block for block in content if not _is_own_thinking(block)]
    if len(kept) == len(content):
        return turn
    return {**turn, "content": kept} if kept else None


def _is_own_thinking(block: Json) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking" and is_own_signature(block.get("signature"))
