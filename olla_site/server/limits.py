"""What the server refuses by itself, and the memory request bodies may take. (pure)"""

from __future__ import annotations

from proxy.errors import ErrorCode, OllaError

MAX_HEADERS = 500
# Bodies up to this size may use the last part of the budget, so that a few large uploads do not stop
# ordinary requests.
SMALL_BODY = 64 * 1024
_RESERVED_PART = 16
# What chunk sizes, extensions and trailers may add: a client that sends one byte a chunk needs five.
_FREE_OVERHEAD = 64 * 1024
_OVERHEAD_PER_BYTE = 16


def bad_request(message: str) -> OllaError:
    """400: the request is not valid HTTP/1.1, or could be read in two ways."""
    return OllaError(ErrorCode.INVALID_REQUEST, message)


def headers_too_large(limit: int) -> OllaError:
    """431: request line and headers are over the limit."""
    return OllaError(ErrorCode.HEADERS_TOO_LARGE, f"Request line and headers are over {limit} bytes.")


def too_many_headers() -> OllaError:
    """431: more header lines than any client has reason to send."""
    return OllaError(ErrorCode.HEADERS_TOO_LARGE, f"There are over {MAX_HEADERS} request headers.")


def body_too_large(limit: int) -> OllaError:
    """413: the body is, or says it is, over the limit."""
    return OllaError(ErrorCode.REQUEST_TOO_LARGE, f"The request body is over {limit} bytes.")


def too_slow(what: str) -> OllaError:
    """408: the deadline for `what` has passed."""
    return OllaError(ErrorCode.REQUEST_TIMEOUT, f"The {what} did not arrive in time.")


def overloaded() -> OllaError:
    """503: the memory for request bodies is used up; worth another try soon."""
    return OllaError(
        ErrorCode.OVERLOADED,
        "Too many request bodies are in memory at the moment. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def draining() -> OllaError:
    """503: this server is shutting down; another, or the next, will answer."""
    return OllaError(
        ErrorCode.DRAINING, "The server is shutting down. Try again.", headers=((b"retry-after", b"1"),)
    )


def internal_error() -> OllaError:
    """500: the application failed before its answer started."""
    return OllaError(ErrorCode.INTERNAL_ERROR, "The server failed to answer this request.")


def may_chunk(received: int, body: int) -> bool:
    """Whether `received` bytes on the wire are a reasonable way to send a chunked body of `body` bytes."""
    return received - body <= _FREE_OVERHEAD + _OVERHEAD_PER_BYTE * body


class BodyBudget:
    """Counts the bytes of request bodies this process holds; `used` never exceeds `total`."""

    __slots__ = ("_for_large", "total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._for_large = total - total // _RESERVED_PART

    def may_hold(self, size: int, more: int) -> bool:
        """Whether a body that would then have `size` bytes may grow by `more`."""
        limit = self.total if size <= SMALL_BODY else self._for_large
        return self.used + more <= limit
