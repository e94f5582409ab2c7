"""Something looked at once a second and told to every page that listens.

One background task looks while somebody listens and ends when nobody does. It looks and writes JSON once for all
pages, in a thread of its own, so that neither many pages nor much to tell hold up a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import django.db

from endpoints import tasks
from endpoints.database_thread import DatabaseThread

logger = logging.getLogger(__name__)

BEAT = 1.0  # seconds
SLOW = 1.0  # seconds a page may take to be told
Listener = Callable[[str], Awaitable[None]]


class Broadcast:
    """One for each process and kind. Subclasses say what there is to tell."""

    name = "portal"

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._database = DatabaseThread(f"olla-{self.name}")
        self._news = asyncio.Event()

    def full_message(self) -> str:
        """What one is told who begins to listen. Blocking; any thread. Raises django.db.Error."""
        raise NotImplementedError

    def difference(self) -> str:
        """What is new since the last look, as JSON; empty when nothing is. Blocking. Raises django.db.Error."""
        raise NotImplementedError

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
            self._task = tasks.spawn(self._beat(), f"{self.name} feed")
        return full

    def leave(self, listener: Listener) -> None:
        """A page is gone."""
        self._listeners.discard(listener)

    def hurry(self) -> None:
        """Something that matters has changed: look at once. On the event loop."""
        self._news.set()

    async def _beat(self) -> None:
        """Look and tell, until nobody listens."""
        while self._listeners:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), BEAT)
            self._news.clear()
            try:
                text = await self._database.run(self.difference)
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
