"""The orderly end: stop accepting, let requests finish, answer new ones 503, then cancel what is left."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from endpoints.tasks import spawn

if TYPE_CHECKING:
    from olla_site.server.server import OllaServer

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.02
# For what is cancelled, and for answers still in buffers.
_GRACE = 2.0
_LIFESPAN_SECONDS = 10.0
_GOING_AWAY = 1001


class Drain:
    """Ends one server; the first signal begins, a second one ends it at once."""

    def __init__(self, server: OllaServer) -> None:
        self.server = server
        self._task: asyncio.Task[None] | None = None
        # Something did not end by itself; threads it left may never do.
        self.forced = False

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT (main thread only)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.server.loop.add_signal_handler(number, self.begin)

    def begin(self) -> None:
        """End the server in order; when that has begun already, now."""
        if self._task is None:
            self._task = spawn(self.run(), "drain")
        else:
            self._task.cancel()
            self.end_now()

    async def run(self) -> None:
        """The orderly end; whatever happens on the way, the server stops."""
        try:
            await self._run()
        finally:
            self.server.stop()

    async def _run(self) -> None:
        server = self.server
        server.draining = True
        logger.info("shutting down: %d requests in flight", len(server.exchanges))
        await self._stop_listening()
        for protocol in list(server.connections):
            if protocol.state == protocol.STATE_OPEN:
                protocol.sendCloseFrame(code=_GOING_AWAY)
        await self._wait(self._is_idle, server.shutdown_timeout)
        self.forced = bool(server.exchanges)
        for exchange in list(server.exchanges):
            if exchange.task is not None:
                exchange.task.cancel()
        await self._wait(lambda: not server.exchanges, _GRACE)
        for connection in list(server.http_connections):
            connection.close()
        await self._wait(lambda: not server.http_connections, _GRACE)
        await server.lifespan.shutdown(_LIFESPAN_SECONDS)

    def end_now(self) -> None:
        """Cut every connection and stop; what runs is cancelled by the server's own end."""
        self.forced = True
        for connection in list(self.server.http_connections):
            connection.abort()
        self.server.stop()

    async def _stop_listening(self) -> None:
        for port in self.server.ports:
            stopping = port.stopListening()
            if stopping is not None:
                await stopping.asFuture(self.server.loop)

    def _is_idle(self) -> bool:
        """No request in flight: none with the application, none half received or half sent."""
        server = self.server
        return not server.exchanges and not any(each.is_busy for each in server.http_connections)

    async def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until `done`, for at most `seconds`."""
        loop = self.server.loop
        end = loop.time() + seconds
        while not done() and loop.time() < end:  # noqa: ASYNC110 - once in a life, many things to watch
            await asyncio.sleep(_LOOK_EVERY)
