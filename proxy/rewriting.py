"""Replacing the model a request names, and no other byte of its body. (pure)"""

from __future__ import annotations

import json
import re

import msgspec

from proxy.errors import ErrorCode, OllaError
from proxy.inbound import BodyFacts, RawHeaders, get_header
from proxy.multipart import find_multipart_span

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")
_skip_value = json.JSONDecoder().raw_decode


def rewrite_model(body: bytes, headers: RawHeaders, facts: BodyFacts, model: str) -> bytes:
    """The body with `model` in the place of the one it names: in JSON, or as the form field of an upload.

    Raises OllaError(invalid_request) when its bytes cannot be changed in place: it is compressed, or repeats a key
    with a value too odd to step over.
    """
    if get_header(headers, b"content-encoding"):
        raise OllaError(
            ErrorCode.INVALID_REQUEST,
            "This model name is sent on under another name, which a compressed body does not allow.",
        )
    if facts.is_json:
        try:
            start, end = find_json_span(body, facts)
        except (ValueError, RecursionError) as error:
            message = "The request body repeats a key; send each once."
            raise OllaError(ErrorCode.INVALID_REQUEST, message) from error
        return body[:start] + msgspec.json.encode(model) + body[end:]
    span = find_multipart_span(body, get_header(headers, b"content-type") or b"")
    if span is None:
        return body
    return body[: span[0]] + model.encode() + body[span[1] :]


def find_json_span(body: bytes, facts: BodyFacts) -> tuple[int, int]:
    """Where the value of the top-level key spelling `model` stands in a JSON object, quotes included.

    Raises ValueError when there is none; `facts` come from the same body.
    """
    at = body.index(b"{") + 1
    while True:
        key = _STRING.match(body, _skip(body, at))
        if key is None:
            raise ValueError("no model in this body")
        start = _skip(body, _skip(body, key.end()) + 1)
        name = msgspec.json.decode(key.group(), type=str)
        raw = bytes(facts.fields.get(name, b""))
        # A repeated key keeps its last value only, so an earlier one need not be what stands here.
        end = start + len(raw)
        if not raw or not body.startswith(raw, start) or body[_skip(body, end)] not in b",}":
            end = _value_end(body, start)
        if name.casefold() == "model":
            return start, end
        at = _skip(body, end) + 1


def _skip(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    return found.end() if found else at


def _value_end(body: bytes, start: int) -> int:
    """The end of one JSON value; Latin-1 keeps every byte one character."""
    return int(_skip_value(body.decode("latin-1"), start)[1])
