"""One JSON line per request, without secrets."""

from __future__ import annotations

import logging
import re
import time
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


def format_time(now: float) -> str:
    """Unix time as RFC 3339 in UTC with milliseconds."""
    global _second, _second_text  # noqa: PLW0603 - the text of the last second seen, as strftime costs 3 us
    second = int(now)
    if second != _second:
        _second = second
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_second_text}.{int((now - second) * 1000):03d}Z"


_second, _second_text = -1, ""


# Every line has the same logger, level, process and thread: building a LogRecord finds them anew, for 5 us.
_template = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "", None, None)


def log_request(record: AccessRecord, now: float) -> None:
    """Write one line; `now` is the Unix time."""
    line = logging.LogRecord.__new__(logging.LogRecord)
    line.__dict__.update(_template.__dict__)
    line.msg = msgspec.json.encode(record).decode()
    line.created = now
    line.msecs = int((now - int(now)) * 1000) + 0.0
    logger.handle(line)


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
