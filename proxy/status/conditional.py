"""Answers of the status routes: weak ETags over what is stable, 304, gzip. (pure but for Django's response)

Not Django's middleware: that would hash bodies, which change every second with their relative times, and would
touch streams. RFC 9110, sections 8.8.3, 12.5.3 and 13.1.2.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
from django.http import HttpResponse

from proxy.fnv import base36
from proxy.inbound import RawHeaders, get_header

# What changes by itself as time passes, or with each probe that finds nothing new.
VOLATILE = frozenset({
    "timestamp", "uptime", "last_check", "next_check", "health_check", "health_check_at", "next_check_at",
    "last_model_sync", "last_model_sync_at", "last_seen", "last_requested", "last_used", "response_time",
    "database_seen", "prober_seen", "revision", "pending", "written",
})  # fmt: skip
LONGEST_HEADER = 1024
LEAST_ZIPPED = 256  # a shorter body gains nothing
_LEVEL = 1  # the loop waits for it; higher levels cost three times as much for a tenth less
_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))


def encode_json(content: Any) -> bytes:
    """Compact JSON that is also harmless inside a page: these characters stand in strings only."""
    text = msgspec.json.encode(content)
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


def plain_answer(content: Any, *, status: int = 200) -> HttpResponse:
    """JSON that nobody should keep, with a newline at its end."""
    answer = HttpResponse(encode_json(content) + b"\n", status=status, content_type="application/json")
    answer["Cache-Control"] = "private, no-store"
    return answer


def conditional_answer(headers: RawHeaders, content: Mapping[str, Any]) -> HttpResponse:
    """JSON with an ETag, zipped where the client takes it; 304 when the client has it."""
    tag = make_tag(content)
    if matches(get_header(headers, b"if-none-match"), tag):
        answer = HttpResponse(status=304)
        del answer["Content-Type"]
    else:
        answer = zipped_answer(headers, encode_json(content), "application/json")
    answer["ETag"] = tag
    answer["Cache-Control"] = "private, no-cache"
    answer["Vary"] = "Accept-Encoding"
    return answer


def zipped_answer(headers: RawHeaders, body: bytes, content_type: str) -> HttpResponse:
    """A body, zipped where that helps and the client takes it."""
    zipped = len(body) >= LEAST_ZIPPED and takes_gzip(get_header(headers, b"accept-encoding"))
    # No time in the header: equal content gives equal bytes.
    answer = HttpResponse(gzip.compress(body, _LEVEL, mtime=0) if zipped else body, content_type=content_type)
    if zipped:
        answer["Content-Encoding"] = "gzip"
    answer["Vary"] = "Accept-Encoding"
    return answer


def make_tag(content: Mapping[str, Any]) -> str:
    """The weak ETag of what does not change by itself. 64 bits, as the tags of the reference."""
    digest = blake2b(msgspec.json.encode(keep_stable(content), order="deterministic"), digest_size=8).digest()
    return f'W/"{base36(int.from_bytes(digest))}"'


def keep_stable(content: Any) -> Any:
    """The content without the volatile fields, at any depth."""
    if isinstance(content, Mapping):
        return {name: keep_stable(value) for name, value in content.items() if name not in VOLATILE}
    if isinstance(content, list):
        return [keep_stable(each) for each in content]
    return content


def matches(sent: bytes | None, tag: str) -> bool:
    """Whether If-None-Match names the tag, compared weakly."""
    if sent is None or len(sent) > LONGEST_HEADER:
        return False
    names = [each.strip().removeprefix("W/") for each in sent.decode("latin-1").split(",")]
    return names == ["*"] or tag.removeprefix("W/") in names


def takes_gzip(sent: bytes | None) -> bool:
    """Whether Accept-Encoding takes gzip: named with a quality above 0, or meant by `*` and not named."""
    if sent is None or len(sent) > LONGEST_HEADER:
        return False
    qualities: dict[str, float] = {}
    for part in sent.decode("latin-1").lower().split(","):
        coding, _, parameter = part.partition(";")
        qualities[coding.strip()] = _quality(parameter)
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _quality(parameter: str) -> float:
    name, _, value = parameter.replace(" ", "").partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
