"""The request log as CSV or JSON lines, streamed: one page in memory, one short query for each.

Nothing is held between pages but the key of the last row, so an export blocks nobody and ends where its reader
leaves.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from endpoints.database_thread import DatabaseThread
from proxy.log_pages import Cursor, Rows, fetch
from proxy.log_rows import COLUMNS
from proxy.models import RequestLog

PAGE = 1000
_JSON = frozenset({"attempt_notes", "trace", "metrics"})
# What makes a spreadsheet read text as a formula (OWASP, CSV Injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Format(StrEnum):
    """What an export is written as."""

    CSV = "csv"
    JSON_LINES = "jsonl"


CONTENT_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSON_LINES: "application/x-ndjson"}


async def export(rows: Rows, search: str, form: Format) -> AsyncIterator[bytes]:
    """Every row, newest first, in pieces. Raises django.db.Error, which cuts the download."""
    write = _WRITERS[form]
    database = DatabaseThread("olla-log-export")
    cursor = Cursor()
    try:
        if form is Format.CSV:
            yield write_lines([[*COLUMNS, "ended"]])
        while page := await database.run(_page_of(rows, cursor, search)):
            yield write(page)
            cursor = Cursor(before=page[-1].pk)
    finally:
        database.close()


def _page_of(rows: Rows, cursor: Cursor, search: str) -> Callable[[], list[RequestLog]]:
    return lambda: fetch(rows, cursor, PAGE, search, whole=True)


def write_csv(page: Iterable[RequestLog]) -> bytes:
    """Rows as CSV; text that a spreadsheet would run is quoted."""
    return write_lines(
        [[*map(_cell, (getattr(row, name) for name in COLUMNS)), _stamp(row.ended)] for row in page]
    )


def write_lines(lines: Sequence[Sequence[Any]]) -> bytes:
    """Lines of CSV (RFC 4180)."""
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    if isinstance(value, datetime):
        return _stamp(value)
    return int(value) if isinstance(value, bool) else value


def _stamp(moment: datetime) -> str:
    """A time in UTC with milliseconds (RFC 3339)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_json_lines(page: Iterable[RequestLog]) -> bytes:
    """Rows as one JSON object a line; what is JSON in the log is JSON here.

    Keys of rows are text: most readers keep 53 bits of a number (RFC 8259, 6).
    """
    return b"".join(msgspec.json.encode(_as_object(row)) + b"\n" for row in page)


def _as_object(row: RequestLog) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in COLUMNS:
        value = getattr(row, name)
        if name in _JSON:
            value = msgspec.Raw(value.encode()) if value else None
        elif isinstance(value, datetime):
            value = _stamp(value)
        told[name] = value
    told["id"] = str(row.pk)
    told["ended"] = _stamp(row.ended)
    return told


_WRITERS = {Format.CSV: write_csv, Format.JSON_LINES: write_json_lines}
