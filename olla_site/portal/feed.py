"""The feed: the fleet's picture once a second, as differences, to every page that listens.

One background task looks while somebody listens and ends when nobody does. It draws, compares and writes JSON once
for all pages, in a thread of its own, so that neither many pages nor many endpoints hold up a request.

    full message    {"shape", "summary": {...}, "rows": {id: {...}}, "history": {series: [...]}}
    difference      {"shape", "summary": {changed}, "rows": {id: {changed}}, "point": {series: value}}
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import django.db
import msgspec

from endpoints import tasks
from endpoints.database_thread import DatabaseThread
from olla_site.portal.activity import activity
from olla_site.portal.picture import Picture, differences, take_picture
from olla_site.portal.tally import STEP

logger = logging.getLogger(__name__)

BEAT = 1.0  # seconds
SLOW = 1.0  # seconds a page may take to be told
FRESH = 0.9  # a picture younger than this is good enough for one who asks
Listener = Callable[[str], Awaitable[None]]
# What a page on the wire needs of a row; the rest is drawn by the server and changes with the shape.
_DRAWN = frozenset({"id", "name", "url", "kind", "version", "tags", "priority"})


class Feed:
    """One for each process."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._database = DatabaseThread("olla-portal")
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._taken = 0.0
        self._step = 0
        self._news = asyncio.Event()

    @property
    def listeners(self) -> int:
        """How many pages listen."""
        return len(self._listeners)

    @property
    def is_running(self) -> bool:
        """Whether the background task is at work."""
        return self._task is not None and not self._task.done()

    async def join(self, listener: Listener) -> str:
        """Add a page; returns the full message it starts with."""
        full = await self._database.run(self.full_message)
        self._listeners.add(listener)
        if not self.is_running:
            self._task = tasks.spawn(self._beat(), "portal feed")
        return full

    def leave(self, listener: Listener) -> None:
        """A page is gone."""
        self._listeners.discard(listener)

    def hurry(self) -> None:
        """Something that matters has changed: look at once. On the event loop."""
        self._news.set()

    def full_message(self) -> str:
        """Everything, for one who begins to listen or polls. Blocking; any thread. Raises django.db.Error.

        Pages that poll share one picture a second.
        """
        with self._lock:
            # While pages listen, the picture is the one the next differences are told against: it must stay.
            old = not self._listeners and time.monotonic() - self._taken > FRESH
            if self._picture is None or old:
                self._picture, self._taken = take_picture(), time.monotonic()
            picture = self._picture
            message = {
                "shape": picture.shape,
                "summary": msgspec.to_builtins(picture.summary),
                "rows": {str(row.id): _sent(msgspec.to_builtins(row)) for row in picture.rows},
                "history": activity.tally.total.history(time.time()),
            }
        return msgspec.json.encode(message).decode()

    async def _beat(self) -> None:
        """Look and tell, until nobody listens."""
        while self._listeners:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), BEAT)
            self._news.clear()
            try:
                text = await self._database.run(self._difference)
            except django.db.Error as error:
                logger.debug("the feed cannot read the database: %s", error)
                continue
            if text:
                for listener in list(self._listeners):
                    await self._tell(listener, text)

    async def _tell(self, listener: Listener, text: str) -> None:
        """Tell one page. One that does not read, or is gone, is told no more."""
        try:
            async with asyncio.timeout(SLOW):
                await listener(text)
        except (TimeoutError, OSError, RuntimeError) as error:
            logger.debug("a page does not listen any more: %r", error)
            self.leave(listener)

    def _difference(self) -> str:
        """What is new since the last look, as JSON; empty when nothing is."""
        with self._lock:
            picture = take_picture()
            before, self._picture, self._taken = self._picture, picture, time.monotonic()
            message: dict[str, Any] = {"shape": picture.shape} if before is None else compare(before, picture)
            step = int(time.time() // STEP)
            if step != self._step:
                self._step = step
                message["point"] = activity.tally.total.point(time.time())
            if not message:
                return ""
        return msgspec.json.encode(message).decode()


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
