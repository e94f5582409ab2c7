"""What a request needs of a model beyond plain text, read off its top-level fields. (pure)

The body is never parsed whole for this: images show by the names of the parts that carry them.
"""

from __future__ import annotations

import msgspec

from endpoints.rules import CAPABILITIES
from proxy.inbound import Inbound

TOOLS, VISION, EMBEDDINGS = CAPABILITIES

_TOOL_FIELDS = frozenset({"tools", "functions", "tool_choice", "function_call"})
_IMAGE_MARKS = (b'"image_url"', b'"input_image"', b'"type":"image"', b'"type": "image"')
_EMBEDDING_PATHS = ("/embeddings", "/embedding", "/embed")


def needed_capabilities(inbound: Inbound) -> frozenset[str]:
    """Names of capabilities as model listings spell them."""
    needed = set()
    fields = inbound.facts.fields
    if not _TOOL_FIELDS.isdisjoint(fields) and not all(_is_empty(fields.get(name)) for name in _TOOL_FIELDS):
        needed.add(TOOLS)
    if inbound.decoded_path.rstrip("/").endswith(_EMBEDDING_PATHS):
        needed.add(EMBEDDINGS)
    elif b"image" in inbound.body and _has_images(fields):  # one look spares most bodies the copy below
        needed.add(VISION)
    return frozenset(needed)


def _has_images(fields: dict[str, msgspec.Raw]) -> bool:
    if not _is_empty(fields.get("images")):  # Ollama's generate
        return True
    messages = bytes(fields.get("messages", b""))
    return any(mark in messages for mark in _IMAGE_MARKS)


def _is_empty(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) in (b"null", b"[]")
