"""Inbound: the client's request as a plain record, and how it is read. (pure)

The body is looked at once, for the few top-level fields routing needs, and kept as the bytes that came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from msgspec.structs import replace

from proxy.errors import ErrorCode, ErrorShape, OllaError
from proxy.expansion import READABLE, expand_body
from proxy.multipart import find_multipart_model
from proxy.record import RequestRecord, no_record

RawHeaders = list[tuple[bytes, bytes]]
T = TypeVar("T")

# POSTs to these change nothing at a backend but cost time: they may be tried elsewhere, and they must carry a
# body that says which model. Matched on the end of the decoded path, whatever the base path before it; a thread's
# `messages` (OpenAI's assistants) are no inference, they add to the thread.
INFERENCE = re.compile(
    r"(?:/(?:chat/completions(?:/vision)?|completions?|embeddings?|"
    r"api/(?:v\d+/)?(?:embed|embeddings|generate|chat)|generate|responses|rerank(?:ing)?|score|classify|pooling|"
    r"encode|moderations|(?:de)?tokenize|infill|apply-template|images/(?:generations|edits|variations)|"
    r"audio/(?:speech|transcriptions|translations))|(?:^|/v\d+)/messages(?:/count_tokens)?)/?\Z"
)
MOST_PATH_BYTES = 4096
# Where a key may be repeated, larger bodies are refused rather than parsed in full: it takes 30 ms a MiB.
MOST_EXACT_BYTES = 1024 * 1024
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\])\s*\.{1,2}\s*(?:[;?#][^/\\]*)?(?:[/\\]|\Z)")
_BEGINS_OBJECT = re.compile(rb"[ \t\r\n]*\{")
# A letter of `model` written as an escape.
_ESCAPED_LETTER = re.compile(rb"\\u00[46][45cdfCDF]")
_STREAM_BY_DEFAULT = ("/api/chat", "/api/generate")
_BOM = b"\xef\xbb\xbf"
_SAFE_IN_PATH = "/!$&'()*+,;=:@-._~"
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_flag = msgspec.json.Decoder(bool).decode


class BodyFacts(msgspec.Struct, frozen=True):
    """What the body says of itself; None where absent or of the wrong type."""

    model: str | None = None
    stream: bool | None = None
    is_json: bool = False
    # The top-level values as they stand in the body; empty when it is compressed or no JSON object.
    fields: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator's request asks beyond a client's (`proxy.operator_token` says who may)."""

    pin: str | None = None  # the name or number of the one endpoint that may answer
    trace_to: RawHeaders | None = None  # the headers of the answer, where its trace goes


class Inbound(msgspec.Struct, frozen=True):
    """One request as routing and forwarding see it. `path` and `query` are what a backend would get.

    A Struct, as are the other records made for every request: a frozen dataclass takes 6 us longer to make.
    """

    method: str
    prefix: str  # the provider prefix in lower case, or `proxy`
    path: str  # canonical, percent-encoded, with leading slash
    decoded_path: str
    query: bytes
    headers: RawHeaders
    body: bytes
    facts: BodyFacts
    client: str  # address of the client, "" when unknown
    scheme: str
    host: str
    request_id: str
    started: float  # monotonic seconds
    shape: ErrorShape = ErrorShape.OPENAI
    peer: str = ""  # the other end of the connection: the client, or the last trusted proxy
    order: Order | None = None
    # What is noted of the request on its way; the one thing of it that changes.
    record: RequestRecord = msgspec.field(default_factory=no_record)

    @property
    def model(self) -> str | None:
        """The model asked for, as the client wrote it."""
        return self.facts.model

    @property
    def is_inference(self) -> bool:
        """Whether the call only computes, so that trying it elsewhere is harmless."""
        return self.method == "POST" and is_inference_path(self.decoded_path)


@lru_cache(maxsize=1024)
def is_inference_path(decoded: str) -> bool:
    """Whether a POST to this path only computes."""
    return INFERENCE.search(decoded) is not None


def wants_stream(facts: BodyFacts, decoded_path: str, shape: ErrorShape) -> bool:
    """Whether the client asked for a stream, which is what Ollama's own API sends unless told not to."""
    if facts.stream is not None:
        return facts.stream
    return shape is ErrorShape.OLLAMA and facts.is_json and decoded_path.endswith(_STREAM_BY_DEFAULT)


def parse_target(raw: bytes) -> tuple[str, str]:
    """The canonical encoded path and its decoded text, from what follows the route prefix as sent.

    Decoded once and encoded again, so that `%2F` is a slash and every byte has one spelling. Dot segments (also
    those a second decoding would bring out) and control characters are refused: no path can leave an endpoint's
    base. Raises OllaError(invalid_request).
    """
    if len(raw) > 3 * MOST_PATH_BYTES:
        raise OllaError(ErrorCode.INVALID_REQUEST, f"The path is longer than {MOST_PATH_BYTES} bytes.")
    return _parse_target_once(raw)


@lru_cache(maxsize=512)
def _parse_target_once(raw: bytes) -> tuple[str, str]:
    decoded = unquote_to_bytes(raw) or b"/"
    if len(decoded) > MOST_PATH_BYTES:
        raise OllaError(ErrorCode.INVALID_REQUEST, f"The path is longer than {MOST_PATH_BYTES} bytes.")
    if any(byte < 0x20 or byte == 0x7F for byte in decoded):
        raise OllaError(ErrorCode.INVALID_REQUEST, "The path contains control characters.")
    if _has_dot_segment(decoded):
        raise OllaError(ErrorCode.INVALID_REQUEST, "The path contains . or .. segments; send it resolved.")
    return quote_from_bytes(decoded, _SAFE_IN_PATH), decoded.decode("utf-8", "replace")


def _has_dot_segment(decoded: bytes) -> bool:
    """Whether a segment is `.` or `..`, for a backend that decodes again, cuts parameters or trims blanks too."""
    for _ in range(4):
        if _DOT_SEGMENT.search(decoded):
            return True
        if b"%" not in decoded:
            return False
        decoded = unquote_to_bytes(decoded)
    return False


def join_target(base_path: str, path: str, *, preserve: bool) -> str:
    """The path to send: `path` itself, or joined to the endpoint's base with doubled slashes collapsed."""
    if not preserve or not base_path:
        return path
    tail = "/".join(part for part in path.split("/") if part)
    return f"{base_path}/{tail}" if tail else base_path


def get_header(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of a header (names are lower case, as ASGI gives them)."""
    for key, value in headers:
        if key == name:
            return value
    return None


def parse_body(body: bytes, headers: RawHeaders, *, inference: bool, limit: int) -> BodyFacts:
    """Read the top-level facts of a request body.

    A JSON object is read whatever Content-Type and Content-Encoding say, for some backends look at neither.
    `limit` bounds what a compressed body may expand to (bytes, 0 for none but MOST_EXPANSION). Raises OllaError:
    invalid_json on inference paths whose body is empty or not JSON, ambiguous_model when several keys spell
    `model`, request_too_large when a compressed body expands too far.
    """
    facts, problem = _read_object(body)
    if facts is not None:
        return facts
    text = body
    if body and (encoding := _encoding_of(headers)):
        expanded = expand_body(body, encoding, limit)
        if expanded is None:
            return _facts_of_unreadable(encoding, inference=inference)
        text = expanded
        facts, problem = _read_object(text)
        if facts is not None:
            return replace(facts, fields={})
    content_type = get_header(headers, b"content-type") or b""
    if content_type.strip().lower().startswith(b"multipart/form-data"):
        return BodyFacts(model=find_multipart_model(text, content_type))
    if inference:
        raise OllaError(ErrorCode.INVALID_JSON, problem)
    return BodyFacts()


def _encoding_of(headers: RawHeaders) -> bytes:
    """The codings of Content-Encoding joined by commas; "" when the body is as it is."""
    codings = [
        part.strip().lower()
        for name, value in headers
        if name == b"content-encoding"
        for part in value.split(b",")
    ]
    return b",".join(coding for coding in codings if coding not in (b"", b"identity"))


def _facts_of_unreadable(encoding: bytes, *, inference: bool) -> BodyFacts:
    """No facts for what cannot be read; on inference paths a refusal, since nobody would know its model."""
    if not inference:
        return BodyFacts()
    if encoding in READABLE:
        raise OllaError(ErrorCode.INVALID_REQUEST, "The request body does not decompress.")
    named = encoding.replace(b",", b", ").decode("latin-1")[:60]
    message = f"The request body is compressed with {named} and cannot be read; send it plain or with gzip."
    # RFC 9110, 15.5.16: Accept-Encoding tells the client what it may send.
    told = ((b"Accept-Encoding", b"gzip, deflate"),)
    raise OllaError(ErrorCode.INVALID_REQUEST, message, headers=told, status=415)


def _read_object(text: bytes) -> tuple[BodyFacts | None, str]:
    """The facts of a JSON object, or None and what is wrong with it. Raises OllaError(ambiguous_model)."""
    text = text.removeprefix(_BOM)
    if not _BEGINS_OBJECT.match(text):
        empty = not text.strip()
        return None, f"The request body is {'empty; this path needs' if empty else 'not'} a JSON object."
    try:
        fields = _decode_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"The request body is not valid JSON: {error}."
    keys = [key for key in fields if key.casefold() == "model"]
    if len(keys) > 1 or (keys and _may_repeat_model(text, fields) and _repeats_model(text)):
        raise OllaError(ErrorCode.AMBIGUOUS_MODEL, "The request body names its model more than once.")
    model = _decode_as(_decode_text, fields[keys[0]]) if keys else None
    return BodyFacts(
        model=(model or "").strip() or None,
        stream=_decode_as(_decode_flag, fields.get("stream")),
        is_json=True,
        fields=fields,
    ), ""


def _may_repeat_model(text: bytes, fields: dict[str, msgspec.Raw]) -> bool:
    """Whether a second key spelling `model` could be hidden from `fields`, which keeps the last of equal keys.

    Every `"model"` in the text must be the one key or stand inside a value that was kept, and no letter of it
    may be written as an escape; else the slow, exact look decides.
    """
    if _ESCAPED_LETTER.search(text):
        return True
    total = text.lower().count(b'"model"')
    if total == 1:
        return False
    inside = sum(bytes(raw).lower().count(b'"model"') for raw in fields.values())
    return total != inside + 1


def _repeats_model(text: bytes) -> bool:
    """Whether several keys of the outermost object spell `model`; also when that is too costly to know."""
    if len(text) > MOST_EXACT_BYTES:
        return True
    try:
        pairs = json.loads(text, object_pairs_hook=lambda found: found, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return True
    return len([key for key, _ in pairs if key.casefold() == "model"]) > 1


def _decode_as(decode: Callable[[msgspec.Raw], T], raw: msgspec.Raw | None) -> T | None:
    """The value when it is of that type; None for any other, which is the backend's to judge."""
    if raw is None:
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
