"""The one door between bytes and JSON values of this package.

Every decoding failure (syntax, broken UTF-8, numbers out of range, nesting beyond the interpreter's stack)
becomes `InvalidJsonError`, so that no parser here can raise anything foreign.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

Json = Any
"""A decoded JSON value: str, int, float, bool, None, list or dict; checked where it is used."""

_T = TypeVar("_T")
_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()
# msgspec reports broken UTF-8 as UnicodeDecodeError (a ValueError) and deep nesting as RecursionError.
_FAILURES = (msgspec.MsgspecError, ValueError, RecursionError)


class InvalidJsonError(ValueError):
    """The text is not JSON, or not of the wanted shape; the message says where."""


def parse_json(data: bytes | str | msgspec.Raw) -> Json:
    """Decode any JSON text; raises InvalidJsonError."""
    try:
        return _DECODER.decode(data)
    except _FAILURES as error:
        raise InvalidJsonError(_describe(error)) from None


def parse_typed(decoder: msgspec.json.Decoder[_T], data: bytes | msgspec.Raw) -> _T:
    """Decode JSON text with a typed decoder; raises InvalidJsonError."""
    try:
        return decoder.decode(data)
    except _FAILURES as error:
        raise InvalidJsonError(_describe(error)) from None


def build_json(value: Json) -> bytes:
    """Encode a JSON value compactly; raises InvalidJsonError when it nests too deeply."""
    try:
        return _ENCODER.encode(value)
    except RecursionError:
        raise InvalidJsonError("nested too deeply") from None


def build_json_text(value: Json) -> str:
    """Encode a JSON value compactly, as text."""
    return build_json(value).decode()


def text_size(text: str) -> int:
    """The bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    return str(error)
