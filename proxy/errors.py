"""The errors this product answers with, and the JSON they become. (pure)

    OllaError(code, message, headers)
      the one exception of the package; `olla_site.handler` turns it into an answer, as does the server for
      refusals that never reach Django.

Codes, statuses and types are one closed set (docs/api.md has the table).
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from translation.errors import choose_kind


class ErrorCode(StrEnum):
    """Every `code` an answer of ours can carry."""

    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    AMBIGUOUS_MODEL = "ambiguous_model"
    INVALID_HOST = "invalid_host"
    INVALID_KEY = "invalid_key"
    FORBIDDEN_PATH = "forbidden_path"
    FORBIDDEN_BY_RULE = "forbidden_by_rule"
    NOT_FOUND = "not_found"
    UNKNOWN_PROVIDER = "unknown_provider"
    NO_ENDPOINTS = "no_endpoints"
    MODEL_NOT_FOUND = "model_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    REQUEST_TOO_LARGE = "request_too_large"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    NOT_SUPPORTED = "not_supported"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_INVALID = "upstream_invalid"
    MODEL_UNAVAILABLE = "model_unavailable"
    NO_HEALTHY_ENDPOINTS = "no_healthy_endpoints"
    PINNED_UNAVAILABLE = "pinned_unavailable"
    QUEUE_FULL = "queue_full"
    DRAINING = "draining"
    OVERLOADED = "overloaded"
    LOOP_DETECTED = "loop_detected"


STATUSES: dict[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.INVALID_JSON: 400,
    ErrorCode.AMBIGUOUS_MODEL: 400,
    ErrorCode.INVALID_HOST: 400,
    ErrorCode.INVALID_KEY: 401,
    ErrorCode.FORBIDDEN_PATH: 403,
    ErrorCode.FORBIDDEN_BY_RULE: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.UNKNOWN_PROVIDER: 404,
    ErrorCode.NO_ENDPOINTS: 404,
    ErrorCode.MODEL_NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.NOT_SUPPORTED: 501,
    ErrorCode.UPSTREAM_UNREACHABLE: 502,
    ErrorCode.UPSTREAM_TIMEOUT: 502,
    ErrorCode.UPSTREAM_INVALID: 502,
    ErrorCode.MODEL_UNAVAILABLE: 503,
    ErrorCode.NO_HEALTHY_ENDPOINTS: 503,
    ErrorCode.PINNED_UNAVAILABLE: 503,
    ErrorCode.QUEUE_FULL: 503,
    ErrorCode.DRAINING: 503,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.LOOP_DETECTED: 508,
}

# The `type` word of OpenAI's error objects, by status; clients of theirs switch on it.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


# Anthropic's clients know a word for a server that is full, and one for a request that ran out of time.
_ANTHROPIC_STATUSES = {ErrorCode.QUEUE_FULL: 529, ErrorCode.OVERLOADED: 529, ErrorCode.UPSTREAM_TIMEOUT: 504}
# Official SDKs send every 5xx again; these would fail again.
_PERMANENT = frozenset({501, 508})


class ErrorShape(StrEnum):
    """Which client reads the error: OpenAI's object, Ollama's string or Anthropic's envelope."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    ANTHROPIC = "anthropic"


class OllaError(Exception):
    """A refusal or failure with a code of ours.

    `headers` are extra response headers; `endpoint` names the backend it happened at, when it did at one;
    `status` replaces the code's own.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        endpoint: str | None = None,
        status: int = 0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = headers
        self.endpoint = endpoint
        self.status = status or STATUSES[code]


def shown_status(error: OllaError, shape: ErrorShape) -> int:
    """The status an error has in a client's shape."""
    if shape is ErrorShape.ANTHROPIC and error.status == STATUSES[error.code]:
        return _ANTHROPIC_STATUSES.get(error.code, error.status)
    return error.status


def shape_headers(error: OllaError, request_id: str, shape: ErrorShape) -> tuple[tuple[str, str], ...]:
    """The headers that clients of a shape expect with an error."""
    if shape is not ErrorShape.ANTHROPIC:
        return ()
    permanent = (("x-should-retry", "false"),) if error.status in _PERMANENT else ()
    return (("request-id", request_id), *permanent)


def error_type(status: int) -> str:
    """The `type` of an error object: api_error for 5xx, else by status."""
    return "api_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")


def choose_shape(path: str) -> ErrorShape:
    """The error shape for a decoded request path of the API door."""
    parts = path.split("/", 4)
    prefix = parts[2].lower() if len(parts) > 2 and parts[1] == "olla" else ""
    if prefix == "anthropic":
        return ErrorShape.ANTHROPIC
    # /olla/{prefix}/api/... is Ollama's native API, except under the LM Studio and Lemonade prefixes.
    if prefix in {"ollama", "proxy"} and len(parts) > 3 and parts[3] == "api":
        versioned = prefix == "proxy" and parts[4:] and parts[4].startswith(("v0/", "v1/"))
        return ErrorShape.OPENAI if versioned else ErrorShape.OLLAMA
    return ErrorShape.OPENAI


def build_context(endpoint: str | None, request_id: str, now: datetime | None = None) -> dict[str, str | None]:
    """The `olla_context` object: endpoint name or null, request id, RFC 3339 time in UTC."""
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"endpoint": endpoint, "request_id": request_id, "timestamp": stamp}


def build_error_body(error: OllaError, request_id: str, shape: ErrorShape = ErrorShape.OPENAI) -> bytes:
    """The JSON body of an error in the client's shape."""
    context = build_context(error.endpoint, request_id)
    # An address may have been decoded to half characters, which JSON cannot carry.
    message = error.message.encode("utf-8", "replace").decode()
    if shape is ErrorShape.OLLAMA:
        return msgspec.json.encode({"error": message, "code": error.code, "olla_context": context})
    kind = error_type(error.status)
    if shape is ErrorShape.ANTHROPIC:
        detail = {"type": choose_kind(shown_status(error, shape)), "message": message}
        return msgspec.json.encode(
            {"type": "error", "error": detail, "request_id": request_id, "olla_context": context}
        )
    detail = {"message": message, "type": kind, "code": error.code}
    return msgspec.json.encode({"error": detail, "olla_context": context})
