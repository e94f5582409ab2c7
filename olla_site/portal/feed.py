"""The feed: the fleet's picture once a second, as differences, to every page that listens.

full message    {"shape", "summary": {...}, "rows": {id: {...}}, "history": {series: [...]}}
difference      {"shape", "summary": {changed}, "rows": {id: {changed}}, "point": {series: value}}
"""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec

from endpoints import loading
from endpoints.snapshot import Snapshot
from olla_site.portal.activity import activity
from olla_site.portal.broadcast import Broadcast
from olla_site.portal.picture import Picture, differences, take_picture
from olla_site.portal.tally import STEP

FRESH = 0.9  # a picture younger than this is good enough for one who asks
# What a page on the wire needs of a row; the rest is drawn by the server and changes with the shape.
_DRAWN = frozenset({"id", "name", "url", "kind", "version", "tags", "priority"})


class Feed(Broadcast):
    """One for each process."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._snapshot: Snapshot | None = None  # what it was drawn from, or one before
        self._taken = 0.0
        self._step = 0

    def full_message(self) -> str:
        """Everything, for one who begins to listen or polls. Blocking; any thread. Raises django.db.Error.

        Pages that poll share one picture a second.
        """
        with self._lock:
            picture = self._picture
            # While pages listen, the picture is the one the next differences are told against: it must stay.
            if picture is None or (not self._listeners and self._is_old()):
                picture = self._take()
            message = {
                "shape": picture.shape,
                "summary": msgspec.to_builtins(picture.summary),
                "rows": {str(row.id): _sent(msgspec.to_builtins(row)) for row in picture.rows},
                "history": activity.tally.total.history(time.time()),
            }
        return msgspec.json.encode(message).decode()

    def difference(self) -> str:
        """What is new since the last look, as JSON; empty when nothing is."""
        with self._lock:
            before, picture = self._picture, self._take()
            message: dict[str, Any] = {"shape": picture.shape} if before is None else compare(before, picture)
            step = int(time.time() // STEP)
            if step != self._step:
                self._step = step
                message["point"] = activity.tally.total.point(time.time())
            if not message:
                return ""
        return msgspec.json.encode(message).decode()

    def _is_old(self) -> bool:
        """Whether a page that was drawn this moment may know more."""
        return loading.current() is not self._snapshot or time.monotonic() - self._taken > FRESH

    def _take(self) -> Picture:
        self._snapshot = loading.current()
        self._picture, self._taken = take_picture(), time.monotonic()
        return self._picture


def compare(before: Picture, after: Picture) -> dict[str, Any]:
    """What changed between two pictures; empty when nothing did."""
    message: dict[str, Any] = {}
    if before.shape != after.shape:
        message["shape"] = after.shape
    if before.summary != after.summary:
        message["summary"] = differences(before.summary, after.summary)
    known = {row.id: row for row in before.rows}
    rows = {}
    for row in after.rows:
        old = known.get(row.id)
        if old is not None and old != row:
            changed = _sent(differences(old, row))
            if changed:
                rows[str(row.id)] = changed
    if rows:
        message["rows"] = rows
    return message


def _sent(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _DRAWN}


feed = Feed()
