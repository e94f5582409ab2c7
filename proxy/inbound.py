"""Inbound: the client's request as a plain record, and how it is read. (pure)

The body is looked at once, for the few top-level fields routing needs, and kept as the bytes that came.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from proxy.errors import ErrorCode, ErrorShape, OllaError

RawHeaders = list[tuple[bytes, bytes]]

# POSTs to these change nothing at a backend but cost time: they may be tried elsewhere, and they must carry a
# body that says which model. Matched on the end of the decoded path, whatever the base path before it.
INFERENCE = re.compile(
    r"/(?:chat/completions|completions?|embeddings?|api/(?:embed|embeddings|generate|chat)|generate|"
    r"messages(?:/count_tokens)?|responses|rerank|score|classify|pooling|encode|moderations|"
    r"(?:de)?tokenize|infill|apply-template|images/(?:generations|edits|variations)|"
    r"audio/(?:speech|transcriptions|translations))/?$"
)
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7][0-9a-fA-F]")
_MULTIPART_MODEL = re.compile(rb'content-disposition:[^\r\n]*;\s*name="?model"?\s*(?:;|\r|$)', re.IGNORECASE)
_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_SAFE_IN_PATH = "/!$&'()*+,;=:@-._~"
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class BodyFacts:
    """What the body says of itself; None where absent or of the wrong type."""

    model: str | None = None
    stream: bool | None = None
    is_json: bool = False
    # Where the model's JSON string stands in the body, quotes included; None when it cannot be rewritten.
    fields: dict[str, msgspec.Raw] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inbound:
    """One request as routing and forwarding see it. `path` and `query` are what a backend would get."""

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

    @property
    def model(self) -> str | None:
        """The model asked for, as the client wrote it."""
        return self.facts.model

    @property
    def is_inference(self) -> bool:
        """Whether the call only computes, so that trying it elsewhere is harmless."""
        return self.method == "POST" and INFERENCE.search(self.decoded_path) is not None


def parse_target(raw: bytes) -> tuple[str, str]:
    """The canonical encoded path and its decoded text, from what follows the route prefix as sent.

    Decoded once and encoded again, so that `%2F` is a slash and every byte has one spelling. Dot segments and
    control characters are refused: no path can leave an endpoint's base. Raises OllaError(invalid_request).
    """
    decoded = unquote_to_bytes(raw) or b"/"
    if any(byte < 0x20 or byte == 0x7F for byte in decoded):
        raise OllaError(ErrorCode.INVALID_REQUEST, "The path contains control characters.")
    if any(part in (b".", b"..") for part in re.split(rb"[/\\]", decoded)):
        raise OllaError(ErrorCode.INVALID_REQUEST, "The path contains . or .. segments; send it resolved.")
    return quote_from_bytes(decoded, _SAFE_IN_PATH), decoded.decode("utf-8", "replace")


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

    `limit` bounds what a compressed body may expand to (bytes, 0 for none). Raises OllaError: invalid_json on
    inference paths whose body is empty or not JSON, ambiguous_model when several keys spell `model`.
    """
    content_type = (get_header(headers, b"content-type") or b"").lower()
    if content_type.startswith(b"multipart/form-data"):
        return BodyFacts(model=find_multipart_model(body, content_type_raw(headers)))
    text = body
    encoding = get_header(headers, b"content-encoding")
    if encoding and body:
        text = _decompress(body, encoding.strip().lower(), limit)
    if text.lstrip()[:1] == b"{":
        return _parse_object(text, body, inference=inference)
    if inference:
        _refuse_non_json(text, encoded=bool(encoding))
    return BodyFacts()


def content_type_raw(headers: RawHeaders) -> bytes:
    """Content-Type as sent: a multipart boundary is case-sensitive."""
    return get_header(headers, b"content-type") or b""


def find_multipart_model(body: bytes, content_type: bytes) -> str | None:
    """The value of the form field `model` of a multipart/form-data body (RFC 7578), or None."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        return None
    delimiter = b"--" + (found.group(1) or found.group(2))
    start = body.find(delimiter)
    while start >= 0:
        head_end = body.find(b"\r\n\r\n", start)
        if head_end < 0:
            return None
        if head_end - start < 4096 and _MULTIPART_MODEL.search(body, start, head_end + 2):
            end = body.find(b"\r\n" + delimiter, head_end)
            value = body[head_end + 4 : end if end >= 0 else None]
            return value.decode("utf-8", "replace").strip() or None if len(value) <= 500 else None
        start = body.find(delimiter, head_end)
    return None


def _decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The expanded body for reading only; empty when the encoding is not one we read."""
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        return b""
    expander = zlib.decompressobj(47)  # gzip or zlib by its own header
    try:
        text = expander.decompress(body, limit + 1 if limit else 0)
    except zlib.error as error:
        raise OllaError(ErrorCode.INVALID_REQUEST, "The request body does not decompress.") from error
    if limit and len(text) > limit:
        raise OllaError(ErrorCode.REQUEST_TOO_LARGE, "The decompressed request body is too large.")
    return text


def _refuse_non_json(text: bytes, *, encoded: bool) -> None:
    if not text.strip():
        if encoded:
            return  # an encoding only the backend knows
        raise OllaError(ErrorCode.INVALID_JSON, "The request body is empty; this path needs a JSON object.")
    raise OllaError(ErrorCode.INVALID_JSON, "The request body is not a JSON object.")


def _parse_object(text: bytes, body: bytes, *, inference: bool) -> BodyFacts:
    try:
        fields = _decode_object(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if not inference:
            return BodyFacts()
        raise OllaError(ErrorCode.INVALID_JSON, f"The request body is not valid JSON: {error}.") from error
    keys = [key for key in fields if key.casefold() == "model"]
    if _may_repeat_model(text, fields, keys):
        keys = [key for key in _top_level_keys(text) if key.casefold() == "model"]
    if len(keys) > 1:
        raise OllaError(ErrorCode.AMBIGUOUS_MODEL, "The request body names its model more than once.")
    return BodyFacts(
        model=(_as_text(fields[keys[0]]) or "").strip() or None if keys else None,
        stream=_as_bool(fields.get("stream")),
        is_json=True,
        fields=fields if text is body else {},
    )


def _may_repeat_model(text: bytes, fields: dict[str, msgspec.Raw], keys: list[str]) -> bool:
    """Whether a key spelling `model` could be hidden from `fields`, which keeps the last of equal keys.

    Every `"model"` in the text must be one of the keys or stand inside a value that was kept, and no key may
    be written with escaped letters; else the slow, exact look decides.
    """
    if _ESCAPED_LETTER.search(text):
        return True
    total = text.lower().count(b'"model"')
    if total == len(keys):
        return False
    inside = sum(bytes(raw).lower().count(b'"model"') for raw in fields.values())
    return total != inside + len(keys)


def _top_level_keys(text: bytes) -> list[str]:
    """Every key of the outermost object, repeated ones included."""
    try:
        pairs = json.loads(text, object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError):
        return []
    return [key for key, _ in pairs]


def _as_text(raw: msgspec.Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError:
        return None


def _as_bool(raw: msgspec.Raw | None) -> bool | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=bool)
    except msgspec.DecodeError:
        return None
