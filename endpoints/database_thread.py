"""DatabaseThread: one thread that does the blocking table work of an event loop.

A daemon thread of our own, not an executor: an executor's threads are joined when the interpreter ends, so a
database that is locked would hold up a stop for as long as its lock timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from django.db import connection

# For `keep`, of what works every second: a look at the tables takes a tenth of what opening a connection takes;
# closing one after each batch of the request log cost a quarter of its writing.
KEPT_OPEN = 10.0

T = TypeVar("T")
Work = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class DatabaseThread:
    """Runs functions one after the other, each with a fresh database connection.

    With `keep` seconds a connection serves for so long, unless work fails on it or its file is replaced: opening
    one, and closing SQLite's last, cost milliseconds. It does close then, which writes SQLite's log back into the
    file: whoever copies the file of a running installation misses no more than these seconds.
    """

    def __init__(self, name: str, *, keep: float = 0.0) -> None:
        self._name = name
        self._keep = keep
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`, run in the thread; its exception is raised here.

        When the caller is cancelled the function still runs to its end and its result is dropped.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((function, loop, future))
        return await future

    def close(self) -> None:
        """Let the thread end after what is queued; does not wait for it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None

    def _work(self) -> None:
        until, file = 0.0, None  # how long the connection may stay open (monotonic), 0 when it is closed; its file
        while True:
            try:
                work = self._queue.get(timeout=max(until - time.monotonic(), 0.0) if until else None)
            except queue.Empty:
                until = 0.0
                connection.close()
                continue
            if until and (work is None or file != _identify_file()):
                until = 0.0
                connection.close()
            if work is None:
                return
            if not until:
                until, file = time.monotonic() + self._keep, _identify_file()
            if not _do(*work) or time.monotonic() >= until:
                until = 0.0
                connection.close()


def _identify_file() -> tuple[int, int] | None:
    """What tells the database's file from another of its name; None where there is no file."""
    try:
        facts = Path(connection.settings_dict["NAME"]).stat() if connection.vendor == "sqlite" else None
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts else None


def _do(function: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> bool:
    """Whether it went well; the outcome goes to the one who asked."""
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - handed to the one who asked
        _deliver(loop, future, None, error)
        return False
    _deliver(loop, future, result, None)
    return True


def _deliver(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: Exception | None
) -> None:
    def finish() -> None:
        if future.done():  # the caller was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and the caller with it
        loop.call_soon_threadsafe(finish)
