"""Reading a backend's answer whole, within bounds, for those who must understand it."""

from __future__ import annotations

from endpoints.transport import Answer
from proxy.errors import OllaError
from proxy.expansion import expand_body


async def read_bounded(answer: Answer, most: int) -> bytes:
    """An answer's body, cut at `most` bytes: what is cut off is not received either. Raises DoorError."""
    pieces: list[bytes] = []
    size = 0
    async for piece in answer:
        pieces.append(piece)
        size += len(piece)
        if size > most:
            answer.abandon()
            break
    return b"".join(pieces)[:most]


def content_coding(answer: Answer) -> bytes:
    """The codings of the body joined by commas; empty when it is as it is."""
    codings = [value.strip().lower() for name, value in answer.headers if name.lower() == b"content-encoding"]
    return b",".join(coding for coding in codings if coding not in (b"", b"identity"))


def readable_body(answer: Answer, body: bytes, most: int) -> bytes:
    """The body as text, also of a backend that compresses although asked not to; empty when it cannot be read."""
    coding = content_coding(answer)
    if not coding:
        return body
    try:
        return expand_body(body, coding, most) or b""
    except OllaError:
        return b""
