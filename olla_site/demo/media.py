"""A small picture, a short tone, vectors, and the parts of a multipart body. (pure)"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import struct
import wave
import zlib
from dataclasses import dataclass

SIDE = 16
RATE = 8000
DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body."""

    name: str
    filename: str
    content: bytes


def build_png(prompt: str) -> bytes:
    """A valid 16 by 16 PNG whose colours depend on the prompt (PNG specification, section 5)."""
    seed = hashlib.sha256(prompt.encode()).digest()
    rows = bytearray()
    for y in range(SIDE):
        rows.append(0)  # no filter
        for x in range(SIDE):
            rows += bytes(((seed[0] + 9 * x) % 256, (seed[1] + 9 * y) % 256, seed[2 + (x ^ y) % 8]))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tEXt", b"Comment\x00demo backend"), (b"IDAT", zlib.compress(bytes(rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in (*chunks, (b"IEND", b"")))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def build_wav(text: str) -> bytes:
    """A tone as a WAV file: 20 ms for each character up to two seconds, its pitch from the text."""
    pitch = 220 + hashlib.sha256(text.encode()).digest()[0]
    samples = RATE * 20 * max(1, min(len(text), 100)) // 1000
    frames = b"".join(
        struct.pack("<h", int(8000 * math.sin(2 * math.pi * pitch * n / RATE))) for n in range(samples)
    )
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(frames)
    return out.getvalue()


def build_vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A vector of length one that depends on nothing but the text."""
    raw = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    values = [number / 32768 for number in struct.unpack(f"<{dimensions}h", raw)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    # As 32-bit floats, so that the plain and the base64 form carry the same numbers.
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(v / length for v in values))))


def encode_vector(vector: list[float]) -> str:
    """The base64 of little-endian 32-bit floats, what the OpenAI clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart/form-data body (RFC 7578). Raises ValueError when there is no boundary."""
    match = re.search(r'boundary="?([^";]+)"?', content_type, re.IGNORECASE)
    if match is None or not content_type.lower().startswith("multipart/form-data"):
        raise ValueError("expected multipart/form-data with a boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + match[1].encode("latin-1"))
    # The first piece is the preamble, the last one the closing dashes.
    return [_parse_part(piece) for piece in pieces[1:-1]]


def _parse_part(piece: bytes) -> Part:
    head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    text = head.decode("utf-8", "replace")
    name = re.search(r'[; ]name="([^"]*)"', text)
    filename = re.search(r'[; ]filename="([^"]*)"', text)
    return Part(name[1] if name else "", filename[1] if filename else "", content)
