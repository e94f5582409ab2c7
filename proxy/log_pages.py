"""Reading the request log page by page: newest first, from a key on, never counting.

    fetch(rows, Cursor(before=key), size, search)

Each page is two steps: the keys are found by walking an index from the cursor, then only as many
rows are read as are shown. A search is several such walks, each bounded: one for each model whose name begins so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

from proxy.models import RequestLog

Rows = QuerySet[RequestLog]
_LAST_CHARACTER = "\U0010ffff"
_UNSHOWN = ("attempt_notes", "trace", "metrics")
MOST_MODELS = 50
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: rows older than the key `before`, or newer than `after`, or the newest of all."""

    before: int | None = None
    after: int | None = None

    def cut(self, rows: Rows, size: int) -> Rows:
        """The rows of one page, those next to the cursor first."""
        if self.after is not None:
            return rows.filter(id__gt=self.after).order_by("id")[:size]
        if self.before is not None:
            rows = rows.filter(id__lt=self.before)
        return rows.order_by("-id")[:size]


def parse_cursor(values: Any) -> Cursor:
    """The cursor of a page's parameters; anything that is no key begins at the newest."""
    return Cursor(_parse_key(values.get("before")), _parse_key(values.get("after")))


def _parse_key(text: str | None) -> int | None:
    if not text or not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        return None
    return min(int(text), 2**63 - 1)


def fetch(rows: Rows, cursor: Cursor, size: int, search: str = "", *, whole: bool = False) -> list[RequestLog]:
    """At most `size` rows at the cursor, newest first; with every column where `whole`."""
    page = RequestLog.objects.filter(id__in=_find_keys(_find_walks(rows, search), cursor, size))
    if not whole:
        page = page.defer(*_UNSHOWN)
    return sorted(page, key=lambda row: -row.pk)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Rows to find along an index, where one must be named; else along whichever the database chooses."""

    rows: Rows
    index: str = ""

    def write(self, cursor: Cursor, size: int) -> tuple[str, tuple[Any, ...]]:
        """The query for the keys next to the cursor. Raises EmptyResultSet."""
        sql, values = cursor.cut(self.rows, size).values("id").query.sql_with_params()
        if self.index and connection.vendor == "sqlite":
            # SQLite takes an index of a filter for as good as that of what is searched for, and would then look
            # at every row of an endpoint to find one request. Databases that count their values choose well.
            sql = sql.replace(f"FROM {_table()}", f"FROM {_table()} INDEXED BY {self.index}", 1)
        return sql, values


def _table() -> str:
    return connection.ops.quote_name(RequestLog._meta.db_table)


def _find_keys(walks: list[_Walk], cursor: Cursor, size: int) -> list[int]:
    """The keys of a page: of what each walk finds next to the cursor, the nearest.

    A compound of walks: as alternatives of one condition, SQLite would try them all on every row.
    """
    parts: list[str] = []
    values: list[Any] = []
    for each in walks:
        try:
            sql, parameters = each.write(cursor, size)
        except EmptyResultSet:
            continue
        parts.append(f"SELECT * FROM ({sql}) AS walk")  # noqa: S608 - built by Django
        values += parameters
    if not parts:
        return []
    with connection.cursor() as asking:
        asking.execute(" UNION ".join(parts), values)
        return sorted((key for (key,) in asking.fetchall()), reverse=cursor.after is None)[:size]


def _find_walks(rows: Rows, search: str) -> list[_Walk]:
    """The rows that a search may mean: a request id, a client, or the beginning of a model's name.

    By comparison, not LIKE: `%` and `_` mean themselves, and an index serves it.
    """
    search = search.strip()[:200]
    if not search:
        return [_Walk(rows)]
    exact = [
        _Walk(rows.filter(request_id=search), "request_log_request_id"),
        _Walk(rows.filter(client=search), "request_log_client"),
    ]
    names = known_models(MOST_MODELS + 1, search)
    if len(names) <= MOST_MODELS:
        # Each name's newest rows lie together in the index; those of a range of names would all have to be sorted.
        return [*exact, *(_Walk(rows.filter(model=name), "request_log_model") for name in names)]
    return [*exact, _Walk(rows.filter(model__gte=search, model__lt=search + _LAST_CHARACTER))]


def read_column(text: str) -> Any:
    """What a JSON column of a row holds; None where it is empty."""
    return msgspec.json.decode(text) if text else None


def known_models(most: int = MOST_MODELS, prefix: str = "") -> list[str]:
    """Names of models in the log that begin so, in order; one step along the index for each."""
    column, table = "model", _table()
    # One lower bound: of two, SQLite would walk from the first to the second.
    first = ">=" if prefix else ">"
    query = (
        f"WITH RECURSIVE names(name) AS (SELECT MIN({column}) FROM {table} "  # noqa: S608
        f"WHERE {column} {first} %s AND {column} < %s UNION ALL "
        f"SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > names.name AND {column} < %s) FROM names "
        "WHERE names.name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL LIMIT %s"
    )
    end = prefix + _LAST_CHARACTER
    with connection.cursor() as cursor:
        cursor.execute(query, [prefix, end, end, most])
        return [name for (name,) in cursor.fetchall()]
