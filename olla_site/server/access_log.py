"""One JSON line per request, without secrets."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

import msgspec

logger = logging.getLogger("olla_site.access")

_MAX_PATH = 2048
_NOT_LETTERS = re.compile(rb"[^a-z]")
_SECRET_ENDS = (b"key", b"token", b"secret", b"password", b"auth", b"authorization", b"signature")


class AccessRecord(msgspec.Struct):
    """The fields of a line, in their order; `ms` from the whole head to the last byte handed to the system."""

    time: str
    request_id: str
    client: str
    method: str
    path: str
    status: int
    bytes: int
    ms: float
    aborted: bool = False


def is_logging() -> bool:
    """Whether anybody wants the lines; ask before a record is built."""
    return logger.isEnabledFor(logging.INFO)


def now_text() -> str:
    """The time of a line: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_request(record: AccessRecord) -> None:
    """Write one line."""
    logger.info("%s", msgspec.json.encode(record).decode())


def redact_target(raw_path: bytes, query: bytes) -> str:
    """Path and query for the log; the value of a parameter named like a secret becomes `***`."""
    text = raw_path
    if query:
        text += b"?" + b"&".join(_redact(part) for part in query.split(b"&"))
    return text[:_MAX_PATH].decode("ascii", "replace")


def _redact(part: bytes) -> bytes:
    name, equals, _ = part.partition(b"=")
    # Compared without case, percent-encoding and punctuation: API_KEY, api-key and %61pi_key are one name.
    plain = _NOT_LETTERS.sub(b"", unquote_to_bytes(name).lower())
    return name + b"=***" if equals and plain.endswith(_SECRET_ENDS) else part
