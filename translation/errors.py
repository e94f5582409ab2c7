"""Failures as Anthropic clients read them: status, envelope and headers.

    TranslationError(status, kind, message, path)
      the one exception of this package; `build_error_answer` turns it into status, body and headers.

A backend's own error answer goes through `build_error`: its status is kept where Anthropic has a word for it,
its message is found in whatever shape it came, and a context overflow is reworded so that clients recover
(`overflow`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from .json_text import InvalidJsonError, Json, build_json, parse_json
from .overflow import OverflowFacts, describe_overflow

Headers = tuple[tuple[bytes, bytes], ...]

MAX_ERROR_TEXT = 300
"""Characters of a plain-text error body that are repeated to the client."""
MAX_MESSAGE = 4000
"""Characters of a JSON error message that are repeated; some backends echo the whole prompt."""


class ErrorKind(StrEnum):
    """The `type` words of Anthropic's error objects."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    BILLING = "billing_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    CONFLICT = "conflict_error"
    REQUEST_TOO_LARGE = "request_too_large"
    RATE_LIMIT = "rate_limit_error"
    TIMEOUT = "timeout_error"
    API = "api_error"
    OVERLOADED = "overloaded_error"


_KINDS = {
    401: ErrorKind.AUTHENTICATION,
    402: ErrorKind.BILLING,
    403: ErrorKind.PERMISSION,
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.REQUEST_TOO_LARGE,
    429: ErrorKind.RATE_LIMIT,
    504: ErrorKind.TIMEOUT,
    529: ErrorKind.OVERLOADED,
}
_KNOWN_KINDS = frozenset(str(kind) for kind in ErrorKind)
_STATUSES = {str(kind): status for status, kind in _KINDS.items() if status != 504}
_STATUSES[ErrorKind.INVALID_REQUEST] = 400

# Official SDKs retry every 5xx; these will fail again however often they are sent.
_PERMANENT = frozenset({501, 505, 508})
_KEPT_HEADERS = (b"retry-after", b"retry-after-ms", b"x-should-retry")
_KEPT_PREFIXES = (b"anthropic-ratelimit-", b"x-ratelimit-")


class TranslationError(Exception):
    """A request or an answer that cannot be translated; `path` names the block: `messages[2].content[0]`."""

    def __init__(self, message: str, *, status: int = 400, kind: ErrorKind | None = None, path: str = "") -> None:
        text = f"{path}: {message}" if path else message
        super().__init__(text)
        self.status = status
        self.kind = kind or choose_kind(status)
        self.message = text
        self.path = path


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error ready to be sent; header names are lower-case."""

    status: int
    body: bytes
    headers: Headers
    kind: ErrorKind
    message: str


@dataclass(frozen=True, slots=True)
class BackendError:
    """What a backend's error body says, whatever its shape; empty text and None where it says nothing."""

    message: str = ""
    code: str = ""
    kind: str = ""
    prompt_tokens: int | None = None
    context_length: int | None = None


def choose_kind(status: int) -> ErrorKind:
    """The error type for a status: Anthropic's word where it has one, else by class."""
    found = _KINDS.get(status)
    if found is not None:
        return found
    return ErrorKind.INVALID_REQUEST if 400 <= status < 500 else ErrorKind.API


def choose_status(status: int) -> int:
    """The status the client gets for a backend's: 422 (FastAPI's bad input) is 400, a non-error is 502."""
    if status == 422:
        return 400
    return status if 400 <= status <= 599 else 502


def parse_backend_error(body: bytes, status: int = 0) -> BackendError:
    """Read an error body of any known shape; never raises."""
    try:
        value = parse_json(body)
    except InvalidJsonError:
        return BackendError(message=_readable_text(body))
    return read_error_value(value, status)


def read_error_value(value: Json, status: int = 0) -> BackendError:
    """Read a decoded error: `{"error": {...}}`, `{"error": "text"}`, `{"message"}`, `{"detail"}` or plain text."""
    if isinstance(value, str):
        return BackendError(message=value[:MAX_ERROR_TEXT])
    if not isinstance(value, dict):
        return BackendError()
    inner = value.get("error", value)
    if isinstance(inner, str):
        return BackendError(message=inner[:MAX_MESSAGE])
    detail = inner if isinstance(inner, dict) else value
    return BackendError(
        message=(_find_message(detail) or _find_message(value))[:MAX_MESSAGE],
        code=_code_text(detail.get("code"), status),
        kind=_text(detail.get("type")),
        prompt_tokens=_count(detail.get("n_prompt_tokens")),
        context_length=_count(detail.get("n_ctx")),
    )


def build_error(
    status: int,
    body: bytes,
    *,
    request_id: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    facts: OverflowFacts | None = None,
) -> ErrorAnswer:
    """Turn a backend's error answer into the client's; keeps retry-after and rate-limit headers."""
    error = explain_backend_error(status, parse_backend_error(body, status), facts)
    return build_error_answer(error, request_id=request_id, headers=headers)


def explain_backend_error(
    status: int, found: BackendError, facts: OverflowFacts | None = None
) -> TranslationError:
    """The TranslationError that tells the client what a backend said."""
    overflow = describe_overflow(status, found.message, (found.code, found.kind), _with_numbers(found, facts))
    if overflow:
        return TranslationError(overflow, status=400, kind=ErrorKind.INVALID_REQUEST)
    shown = choose_status(status)
    kind = ErrorKind(found.kind) if found.kind in _KNOWN_KINDS else choose_kind(shown)
    message = found.message or f"The backend answered with status {status}."
    if found.code and found.code not in message:
        message = f"{message} (code: {found.code})"
    return TranslationError(message, status=shown, kind=kind)


def explain_error_in_success(value: Json, facts: OverflowFacts | None = None) -> TranslationError:
    """The TranslationError for an `error` object that came with status 200 or inside a stream."""
    found = read_error_value(value)
    status = int(found.code) if found.code.isdecimal() and len(found.code) == 3 else 0
    if not 400 <= status <= 599:
        status = _STATUSES.get(found.kind, 500)
    code = "" if found.code == str(status) else found.code
    found = replace(found, code=code, message=found.message or "The backend reported an error.")
    return explain_backend_error(status, found, facts)


def build_error_answer(
    error: TranslationError, *, request_id: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> ErrorAnswer:
    """Status, envelope and headers for an error; of `headers` only what a client's retry logic reads is kept."""
    kept = [(name.lower(), value) for name, value in headers if _is_kept(name.lower())]
    if error.status in _PERMANENT and not any(name == b"x-should-retry" for name, _ in kept):
        kept.append((b"x-should-retry", b"false"))
    head = ((b"content-type", b"application/json"), (b"request-id", request_id.encode("latin-1", "replace")))
    body = build_envelope(error, request_id)
    return ErrorAnswer(error.status, body, (*head, *kept), error.kind, error.message)


def build_envelope(error: TranslationError, request_id: str = "") -> bytes:
    """Anthropic's error object as JSON; `request_id` is left out when empty."""
    envelope: dict[str, Json] = {"type": "error", "error": {"type": error.kind, "message": error.message}}
    if request_id:
        envelope["request_id"] = request_id
    return build_json(envelope)


def refuses_stream_options(status: int, body: bytes) -> bool:
    """Whether a backend refused a request because it does not know `stream_options`; send it again without."""
    return status in {400, 422} and b"stream_options" in body


def _is_kept(name: bytes) -> bool:
    return name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIXES)


def _with_numbers(found: BackendError, facts: OverflowFacts | None) -> OverflowFacts:
    known = facts or OverflowFacts()
    return OverflowFacts(
        input_tokens=found.prompt_tokens or known.input_tokens,
        max_tokens=known.max_tokens,
        context_length=found.context_length or known.context_length,
        counted=known.counted or found.prompt_tokens is not None,
    )


def _find_message(value: dict[str, Json]) -> str:
    for key in ("message", "detail", "msg", "error"):
        text = _detail_text(value.get(key))
        if text:
            return text
    return ""


def _detail_text(value: Json) -> str:
    """A message or FastAPI's `detail`: text, or a list of `{loc, msg}` objects."""
    if isinstance(value, list):
        return "; ".join(text for text in map(_detail_item, value[:5]) if text)
    return _text(value)


def _detail_item(item: Json) -> str:
    if not isinstance(item, dict):
        return _text(item)
    where = item.get("loc")
    place = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return f"{place}: {_text(item.get('msg'))}" if place else _text(item.get("msg"))


def _code_text(code: Json, status: int) -> str:
    """The error code as text, unless it only repeats the status."""
    if isinstance(code, int) and not isinstance(code, bool):
        return "" if code == status else str(code)
    return _text(code)


def _count(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _readable_text(body: bytes) -> str:
    """Plain text that fits a message; nothing for HTML pages and binary data."""
    text = body[: MAX_ERROR_TEXT * 4].decode("utf-8", "replace").strip()
    if text.startswith("<") or "\x00" in text:
        return ""
    return text[:MAX_ERROR_TEXT]
