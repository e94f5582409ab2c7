"""Width and height of a base64 picture, from its first bytes; PNG, GIF, JPEG and WebP."""

from __future__ import annotations

import base64
import binascii

MAX_HEADER = 64 * 1024
"""Bytes that are decoded at most; a JPEG can carry a thumbnail before its size."""

Size = tuple[int, int]


def read_image_size(data: str) -> Size | None:
    """Width and height in pixels, or None when they cannot be read; never raises."""
    text = data[: MAX_HEADER // 3 * 4]
    try:
        head = base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _read(head, 16, 4, "big")
    if head.startswith(b"GIF8"):
        return _read(head, 6, 2, "little")
    if head.startswith(b"\xff\xd8"):
        return _read_jpeg(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _read_webp(head)
    return None


def _read(head: bytes, start: int, width: int, order: str) -> Size | None:
    """Two neighbouring numbers of `width` bytes."""
    if len(head) < start + 2 * width:
        return None
    first, second = head[start : start + width], head[start + width : start + 2 * width]
    if order == "big":
        return int.from_bytes(first, "big"), int.from_bytes(second, "big")
    return int.from_bytes(first, "little"), int.from_bytes(second, "little")


def _read_jpeg(head: bytes) -> Size | None:
    """Walk the segments to the frame header (SOF0-SOF15 without the tables that share its range)."""
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            size = _read(head, at + 5, 2, "big")
            return (size[1], size[0]) if size else None
        at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4], "big"))
    return None


def _read_webp(head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8 ":
        size = _read(head, 26, 2, "little")
        return (size[0] & 0x3FFF, size[1] & 0x3FFF) if size else None
    if kind == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None
