"""Compressed request bodies, expanded for reading only. (pure)

Bounded in proportion to what came: a small bomb must not cost the whole size limit in time and memory.
"""

from __future__ import annotations

import zlib

from proxy.errors import ErrorCode, OllaError

# Compressed JSON shrinks to a tenth or so; a bomb to a thousandth.
MOST_EXPANSION = 100
FREE_EXPANSION = 8 * 1024 * 1024
# Coding -> the windows zlib is to try: gzip or zlib by their own header, then deflate without any.
READABLE: dict[bytes, tuple[int, ...]] = {b"gzip": (47,), b"x-gzip": (47,), b"deflate": (47, -15)}


def expand_body(body: bytes, encoding: bytes, limit: int) -> bytes | None:
    """The expanded body; None when the coding is not one we read, or the body is broken.

    `limit` is in bytes, 0 for none but MOST_EXPANSION. Raises OllaError(request_too_large).
    """
    most = max(FREE_EXPANSION, MOST_EXPANSION * len(body))
    most = min(most, limit) if limit else most
    for window in READABLE.get(encoding, ()):
        text = _expand(body, window, most)
        if text is None:
            continue
        if len(text) > most:
            raise OllaError(ErrorCode.REQUEST_TOO_LARGE, "The decompressed request body is too large.")
        return text
    return None


def _expand(body: bytes, window: int, most: int) -> bytes | None:
    """Every member of a compressed body one after another, cut one byte above `most`; None when broken.

    Reading the first member alone would hide from us what a backend reads in the second (RFC 1952, 2.2).
    """
    members: list[bytes] = []
    size, rest = 0, body
    while rest and size <= most:
        expander = zlib.decompressobj(window)
        try:
            members.append(expander.decompress(rest, most - size + 1))
        except zlib.error:
            return None
        size += len(members[-1])
        if not expander.eof and size <= most:
            return None
        rest = expander.unused_data.lstrip(b"\0")  # zeros after a member are padding
    return b"".join(members)
