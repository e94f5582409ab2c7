"""The application's startup and shutdown (asgi.readthedocs.io, Lifespan)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from endpoints.tasks import spawn

logger = logging.getLogger(__name__)

Application = Callable[..., Awaitable[None]]


class LifespanError(Exception):
    """The application said that it cannot start."""


class Lifespan:
    """Speaks lifespan with one application; `state` is what it left for its requests."""

    def __init__(self, application: Application) -> None:
        self.state: dict[str, Any] = {}
        self._application = application
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Wait until the application is ready. Raises LifespanError when it refuses to start.

        An application that does not know lifespan (it raises, or returns) is started without.
        """
        self._task = spawn(self._run(), "lifespan")
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise LifespanError(answer.get("message", ""))

    async def shutdown(self, timeout: float) -> None:
        """Let the application finish what it started, for at most `timeout` seconds."""
        if self._task is None or self._task.done():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._ask("lifespan.shutdown")
                await asyncio.wait({self._task})
        except TimeoutError:
            logger.warning("the application took more than %s s to shut down", timeout)
            self._task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._inbox.get, self._outbox.put)
        except Exception:
            logger.debug("the application does not speak lifespan", exc_info=True)

    async def _ask(self, kind: str) -> dict[str, Any] | None:
        """Send one event and wait for its answer; None when the application ended instead."""
        assert self._task is not None  # noqa: S101 - startup comes first
        self._inbox.put_nowait({"type": kind})
        answer = asyncio.ensure_future(self._outbox.get())  # noqa: TID251 - awaited right here
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            return None
        return answer.result()
