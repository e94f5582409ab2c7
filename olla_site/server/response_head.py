"""The bytes of an answer's head, and how its body is framed. (pure)"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

import msgspec

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
# Ours to write: RFC 9112 makes framing and persistence the business of the connection, not of the application.
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"date"})
_BODILESS = frozenset({204, 304})


class ResponseHead(msgspec.Struct):
    """The encoded head and what it promised about the body.

    `length` is how many body bytes must follow, None when only the framing tells; `empty` means that none are
    written whatever the application sends (HEAD, 204, 304).
    """

    data: bytes
    length: int | None
    chunked: bool
    empty: bool
    keep_alive: bool


class Asked(msgspec.Struct):
    """What the request says about its answer."""

    method: str
    http_version: str
    keep_alive: bool


def build_response_head(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    asked: Asked,
    *,
    whole: int | None,
    date: bytes,
) -> ResponseHead:
    """The head for `status` and the application's `headers`, whose bytes go out as given.

    `whole` is the length of the body when it is known in full, else None; `date` is a whole Date line. Raises
    ValueError when the application's answer cannot be sent as HTTP/1.1.
    """
    lines, length, keep_alive, dated = _own_lines(status, headers, asked.keep_alive)
    empty = asked.method == "HEAD" or status in _BODILESS
    if status == HTTPStatus.NO_CONTENT:
        length = None
    elif length is None and not empty:
        length = whole
    chunked = length is None and not empty and asked.http_version == "1.1"
    if length is not None:
        lines.append(b"content-length: %d\r\n" % length)
    elif chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif not empty:
        keep_alive = False  # HTTP/1.0 knows no other end than the connection's
    if not dated:
        lines.append(date)
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    elif asked.http_version == "1.0":
        lines.append(b"connection: keep-alive\r\n")
    data = b"".join(lines)
    # One line feed and one carriage return a line, or a header value smuggled one in.
    if data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines) or b"\0" in data:
        raise ValueError("A response header contains a line break or a NUL byte.")
    return ResponseHead(data + b"\r\n", length, chunked, empty, keep_alive)


def _own_lines(
    status: int, headers: Iterable[tuple[bytes, bytes]], keep_alive: bool
) -> tuple[list[bytes], int | None, bool, bool]:
    """The application's lines after the status line; the length it declared, keep-alive, whether it dates."""
    if not 200 <= status <= 999:
        raise ValueError(f"An application cannot answer with status {status}.")
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    length: int | None = None
    dated = False
    for name, value in headers:
        framing = _name_framing(name)
        if framing is not None:
            if framing == b"content-length":
                length = _parse_length(value, length)
            elif framing == b"connection":
                keep_alive = keep_alive and b"close" not in value.lower()
            if framing != b"date":
                continue
            dated = True
        lines.append(name + b": " + value + b"\r\n")
    return lines, length, keep_alive, dated


@lru_cache(maxsize=128)
def _name_framing(name: bytes) -> bytes | None:
    """The name in lower case if it is one that is ours to write. Remembered: answers have the same few names."""
    lowered = name.lower()
    return lowered if lowered in _FRAMING else None


def _parse_length(value: bytes, before: int | None) -> int:
    length = int(value) if value.isdigit() else -1
    if length < 0 or before not in {None, length}:
        raise ValueError("The response's Content-Length is not one number.")
    return length
