"""Reading the request log page by page: newest first, from a key on, never counting.

    fetch(rows, Cursor(before=key), size, search)

Each page is two steps in one statement: the keys are found by walking an index from the cursor, then only as many
rows are read as are shown. A search is up to three such walks, each bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

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
    found = [cursor.cut(each, size).values("id") for each in _narrow(rows, search)]
    chosen = Q()
    for keys in found:
        chosen |= Q(id__in=keys)
    page = RequestLog.objects.filter(chosen)
    if not whole:
        page = page.defer(*_UNSHOWN)
    return sorted(Cursor(after=cursor.after).cut(page, size), key=lambda row: -row.pk)


def _narrow(rows: Rows, search: str) -> list[Rows]:
    """The rows that a search may mean: a request id, a client, or the beginning of a model's name.

    By comparison, not LIKE: `%` and `_` mean themselves, and an index serves it.
    """
    search = search.strip()[:200]
    if not search:
        return [rows]
    return [
        rows.filter(request_id=search),
        rows.filter(client=search),
        rows.filter(model__gte=search, model__lt=search + _LAST_CHARACTER),
    ]


def known_models(most: int = MOST_MODELS) -> list[str]:
    """Names of models in the log, in order; one step along the index for each."""
    column, table = "model", connection.ops.quote_name(RequestLog._meta.db_table)
    query = (
        f"WITH RECURSIVE names(name) AS (SELECT MIN({column}) FROM {table} WHERE {column} > '' UNION ALL "  # noqa: S608
        f"SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > names.name) FROM names "
        "WHERE names.name IS NOT NULL) SELECT name FROM names WHERE name IS NOT NULL LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [most])
        return [name for (name,) in cursor.fetchall()]
