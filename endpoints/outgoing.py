"""A request as it goes out, and its head as bytes. (pure)"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

PIECE_SIZE = 64 * 1024  # request bodies up to this leave in one write with the head

Headers = Sequence[tuple[bytes, bytes]]
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds one exchange may take in each phase; 0 is no limit."""

    connect: float = 10.0  # waiting for a free connection, DNS, TCP and TLS
    first_byte: float = 300.0  # from the request being written to the whole answer head
    idle: float = 600.0  # waiting for the next piece of the body
    total: float = 0.0


class Request(msgspec.Struct, frozen=True):
    """One request as it goes out: these bytes, this order, nothing added.

    `path` is the request target. The headers carry the framing: Content-Length, or Transfer-Encoding: chunked and
    then the pieces of `body` are framed as chunks here. `lines` are headers before them that `write_lines` wrote.
    """

    method: bytes
    path: bytes
    headers: Headers
    body: bytes | AsyncIterable[bytes] = b""
    lines: bytes = b""


class OutgoingHead(msgspec.Struct, frozen=True):
    """A request's head as bytes, and the framing its headers promise."""

    head: bytes
    length: int | None
    chunked: bool


def build_head(request: Request) -> OutgoingHead:
    """The head of a request. Raises ValueError for anything that would change the meaning of what follows it."""
    first = request.method + b" " + request.path + b" HTTP/1.1\r\n"
    if first.count(b" ") != 2:
        raise ValueError("A space in the method or the path.")
    require_lines(first, 1)
    length: int | None = None
    chunked = False
    lines: list[bytes] = []
    for name, value in request.headers:
        lines.append(name + b": " + value + b"\r\n")
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            if length is not None or not value.isdigit():
                raise ValueError("Content-Length is repeated or not a number.")
            length = int(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise ValueError("The only transfer coding is chunked, once.")
            chunked = True
    rest = b"".join(lines)
    require_lines(rest, len(lines))
    check_framing(request.body, length, chunked)
    return OutgoingHead(first + request.lines + rest + b"\r\n", length, chunked)


def write_lines(headers: Headers) -> bytes:
    """Headers as they go out, for `Request.lines`: checked once for all the requests that carry them.

    Raises ValueError for a line break, and for a header that says how a body is framed.
    """
    if any(name.lower() in _FRAMING for name, _ in headers):
        raise ValueError("What frames a body belongs to the headers of its request.")
    lines = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
    require_lines(lines, len(headers))
    return lines


def require_lines(data: bytes, count: int) -> None:
    """Refuse bytes that are not so many lines. Raises ValueError."""
    if data.count(b"\n") != count or data.count(b"\r") != count:
        raise ValueError("A line break in the method, the path or a header.")


def check_framing(body: bytes | AsyncIterable[bytes], length: int | None, chunked: bool) -> None:
    """Refuse a body whose end the endpoint would see elsewhere than we do."""
    if chunked and length is not None:
        raise ValueError("Both Content-Length and Transfer-Encoding are given.")
    if isinstance(body, bytes):
        if not chunked and len(body) != (length or 0):
            raise ValueError("The body's size is not its Content-Length.")
    elif not chunked and length is None:
        raise ValueError("A streamed body needs Content-Length or Transfer-Encoding: chunked.")


async def sliced(body: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that the socket's pace limits how much of it is copied."""
    for start in range(0, len(body), PIECE_SIZE):
        yield body[start : start + PIECE_SIZE]
