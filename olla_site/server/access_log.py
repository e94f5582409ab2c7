"""One line for each request, without secrets; OLLA_ACCESS_LOG says for which.

Forwarded requests have a line of their own that tells more (`olla_site.request_lines`), so that by default only
the others are written here.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from endpoints.conf import conf
from endpoints.redaction import redact
from olla_site.log_lines import Batch, Line, encode_json, format_time, is_json
from olla_site.server.request_head import RequestHead

logger = logging.getLogger("olla_site.access")

OFF, ALL = "off", "all"
_MAX_PATH = 2048
_NOT_LETTERS = re.compile(rb"[^a-z]")
_SECRET_ENDS = (b"key", b"token", b"secret", b"password", b"auth", b"authorization", b"signature")


class Finished(NamedTuple):
    """What is known of a request when its answer has ended; `now` is Unix time, `seconds` how long it took."""

    now: float
    request_id: str
    client: tuple[str, int] | None
    head: RequestHead | None
    status: int
    size: int
    seconds: float
    aborted: bool


class AccessLine(msgspec.Struct):
    """The fields of a line, in their order; `ms` from the whole head to the last byte handed to the system."""

    time: str
    request_id: str
    client: str
    method: str
    path: str
    status: int
    bytes: int
    ms: float
    aborted: bool


class AccessLog:
    """Collects the lines of one server; `flush` when it ends."""

    def __init__(self) -> None:
        self._batch: Batch[Finished] = Batch(logger, _render)

    @staticmethod
    def is_on(*, recorded: bool = False) -> bool:
        """Whether anybody wants a line; `recorded` says that the request has one as a forwarded request."""
        wanted = conf().access_log
        return wanted != OFF and (wanted == ALL or not recorded) and logger.isEnabledFor(logging.INFO)

    def add(self, finished: Finished) -> None:
        """Take note of one request."""
        self._batch.add(finished)

    def flush(self) -> None:
        """Write what is pending."""
        self._batch.flush()


def _render(finished: Finished) -> Line:
    line = build_line(finished)
    return Line(logging.INFO, encode_json(line) if is_json() else render_text(line), finished.now)


def render_text(line: AccessLine) -> str:
    """A line for people."""
    aborted = " aborted" if line.aborted else ""
    return (
        f"{line.time} INFO    {logger.name}: {line.method} {line.path} {line.status} {line.bytes}B {line.ms:g}ms"
        f"{aborted} client={line.client} request_id={line.request_id}"
    )


def log_websocket(action: str, path: str, client: str | None) -> None:
    """Write one line for what happened to a WebSocket: connecting, connected, rejected or disconnected."""
    logger.info("WebSocket %s: %s client=%s", action, path, client or "")


def build_line(finished: Finished) -> AccessLine:
    """The line of one request."""
    head = finished.head
    return AccessLine(
        time=format_time(finished.now),
        request_id=redact(finished.request_id),
        client=finished.client[0] if finished.client else "",
        method=head.method if head else "-",
        path=redact(redact_target(head.raw_path, head.query)) if head else "-",
        status=finished.status,
        bytes=finished.size,
        ms=round(finished.seconds * 1000, 3),
        aborted=finished.aborted,
    )


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
