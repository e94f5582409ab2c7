"""How log lines look: readable text, or one JSON object each (OLLA_LOG_FORMAT).

Records made one by one pass a formatter of the standard library's kind. Lines made by the thousand (requests) are
collected, rendered together and handed to the handlers in one piece: one after the other they cost a quarter of
what they cost between requests, and a write to a file costs as much for one as for ten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from django.conf import settings

JSON = "json"
TEXT = "text"
FORMATS = (TEXT, JSON)
_EVERY = 0.1  # seconds
_PENDING = 12  # rendering them keeps the event loop from requests for about a fifth of a millisecond

T = TypeVar("T")


def format_time(now: float) -> str:
    """Unix time as every line shows it: UTC, milliseconds (RFC 3339)."""
    second = int(now)
    return _format_second(second) + _THOUSANDTHS[int((now - second) * 1000)]


_THOUSANDTHS = [f".{number:03d}Z" for number in range(1000)]


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class TextFormatter(logging.Formatter):
    """`2026-11-22T04:38:01.123Z WARNING proxy.forwarding: message [request id]`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it."""
        if getattr(record, "is_whole_line", False):
            return str(record.msg)
        text = super().format(record)
        request_id = getattr(record, "request_id", "")
        head = f"{format_time(record.created)} {record.levelname:<7} {record.name}: "
        first, newline, rest = text.partition("\n")
        shown = f" [{request_id}]" if request_id and request_id not in first else ""
        return f"{head}{first}{shown}{newline}{rest}"


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, request_id, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        if getattr(record, "is_whole_line", False):
            return str(record.msg)
        fields: dict[str, Any] = {
            "time": format_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            fields["request_id"] = request_id
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            fields["traceback"] = record.exc_text
        if record.stack_info:
            fields["stack"] = record.stack_info
        return encode_json(fields)


def encode_json(value: Any) -> str:
    """A JSON text without line breaks; what is no Unicode is replaced."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # lone surrogates, from a path or an argument of the operating system
        return msgspec.json.encode(_replace_surrogates(msgspec.to_builtins(value))).decode()


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


@lru_cache(maxsize=1)
def is_json() -> bool:
    """Whether lines are JSON objects."""
    return bool(settings.LOG_FORMAT == JSON)


class Line(NamedTuple):
    """A whole line, `at` in Unix time. It must hold no secret, for it is not cleaned as other records are."""

    level: int
    text: str
    at: float


def write_lines(logger: logging.Logger, lines: Iterable[Line]) -> None:
    """Hand lines to the handlers in their order, those of one level that follow each other as one record."""
    for level, some in groupby(lines, attrgetter("level")):
        if logger.isEnabledFor(level):
            _write(logger, list(some))


def _write(logger: logging.Logger, lines: Sequence[Line]) -> None:
    last = lines[-1]
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(_template(logger.name, last.level).__dict__)
    record.msg = "\n".join([each.text for each in lines])
    record.created = last.at
    record.msecs = last.at % 1 * 1000
    logger.handle(record)


@lru_cache(maxsize=16)
def _template(name: str, level: int) -> logging.LogRecord:
    """Building a LogRecord finds thread, process and level anew, for 5 us; lines of a logger share them."""
    record = logging.LogRecord(name, level, __file__, 0, "", None, None)
    record.is_whole_line = True
    return record


class Batch(Generic[T]):
    """Collects what a logger is to write and writes it ten times a second, or a dozen lines at once.

    `flush` it when the process ends.
    """

    def __init__(self, logger: logging.Logger, render: Callable[[T], Line]) -> None:
        self._logger = logger
        self._render = render
        self._pending: list[T] = []

    def add(self, item: T) -> None:
        """Take note of one thing. On the event loop."""
        if not self._pending:
            asyncio.get_running_loop().call_later(_EVERY, self.flush)
        self._pending.append(item)
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        pending, self._pending = self._pending, []
        write_lines(self._logger, map(self._render, pending))
