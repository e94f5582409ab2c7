"""A request as it goes out, and its head as bytes. (pure)"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

PIECE_SIZE = 64 * 1024  # request bodies up to this leave in one write with the head

Headers = Sequence[tuple[bytes, bytes]]


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
    then the pieces of `body` are framed as chunks here.
    """

    method: bytes
    path: bytes
    headers: Headers
    body: bytes | AsyncIterable[bytes] = b""


class OutgoingHead(msgspec.Struct, frozen=True):
    """A request's head as bytes, and the framing its headers promise."""

    head: bytes
    length: int | None
    chunked: bool


def build_head(request: Request) -> OutgoingHead:
    """The head of a request. Raises ValueError for anything that would change the meaning of what follows it."""
    length: int | None = None
    chunked = False
    lines = [request.method + b" " + request.path + b" HTTP/1.1"]
    for name, value in request.headers:
        lines.append(name + b": " + value)
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            if length is not None or not value.isdigit():
                raise ValueError("Content-Length is repeated or not a number.")
            length = int(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise ValueError("The only transfer coding is chunked, once.")
            chunked = True
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or lines[0].count(b" ") != 2:
        raise ValueError("A line break or space in the method, path or a header.")
    check_framing(request.body, length, chunked)
    return OutgoingHead(head, length, chunked)


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
