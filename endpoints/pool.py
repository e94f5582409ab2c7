"""The connections to one destination: reuse, the limit, and the queue for it."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from time import monotonic

from endpoints.addressing import Target
from endpoints.dialing import Dialer
from endpoints.failures import NotConnected, NotConnectedReason
from endpoints.http1 import Connection

# Many servers close idle connections after 5 s; leaving first avoids most requests that meet a closing one.
IDLE_LIFETIME = 4.0


class Pool:
    """Connections to one origin with one set of TLS options.

    `size` counts every connection from before it is dialled until its socket is closed. A waiter in the queue is
    given either a free connection or, as None, the place of one that is gone.
    """

    __slots__ = ("_busy", "_closed", "_dialer", "_idle", "_waiters", "size")

    def __init__(self, dialer: Dialer) -> None:
        self.size = 0
        self._closed = False
        self._dialer = dialer
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost by dropping this pool."""
        return not self.size and not self._waiters

    @property
    def idle_count(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    def take_idle(self, now: float) -> Connection | None:
        """The connection used last (its peer is the least likely to be closing it), if one is fresh enough."""
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if now - connection.idle_since < IDLE_LIFETIME:
                self._busy.add(connection)
                return connection
            connection.abort()
        return None

    async def open(self, target: Target, seconds: float) -> Connection:
        """A new connection, or one that becomes free while waiting for the limit. Raises NotConnected."""
        deadline = monotonic() + seconds if seconds else inf
        while target.max_connections and self.size >= target.max_connections:
            connection = await self._queue(deadline)
            if connection is None:
                return await self._dial(target, deadline)
            if not connection.closed:
                return connection
        self.size += 1
        return await self._dial(target, deadline)

    def on_free(self, connection: Connection) -> None:
        """Hand the connection to the first in the queue, or keep it."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._busy.discard(connection)
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def on_lost(self, connection: Connection) -> None:
        """Forget a closed connection and pass its place on."""
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._leave()

    def sweep(self, now: float) -> None:
        """End exchanges whose limits have passed, close connections idle for too long."""
        for connection in tuple(self._busy):
            connection.sweep(now)
        for connection in self._idle:
            if now - connection.idle_since >= IDLE_LIFETIME:
                connection.abort()

    def close(self) -> None:
        """Close every connection, now, and open no more."""
        self._closed = True
        for connection in (*self._busy, *self._idle):
            connection.shut()

    async def _dial(self, target: Target, deadline: float) -> Connection:
        """Fill the place already counted in `size`, or give it back."""
        connection: Connection | None = None
        try:
            if self._closed:
                raise NotConnected(NotConnectedReason.LOCAL, "The transport is closed.")
            connection = await self._dialer.dial(target, deadline)
        finally:
            if connection is None:
                self._leave()
        connection.owner = self
        self._busy.add(connection)
        if connection.closed:
            self.on_lost(connection)
        return connection

    async def _queue(self, deadline: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(None if deadline == inf else max(deadline - monotonic(), 0)):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            self._decline(waiter)
            if isinstance(error, TimeoutError):
                raise NotConnected(
                    NotConnectedReason.NO_FREE_CONNECTION, "All connections to the endpoint are busy."
                ) from error
            raise

    def _decline(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Leave the queue; what was handed over in the same moment goes to the next."""
        if waiter.cancelled() or not waiter.done():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return
        connection = waiter.result()
        if connection is None:
            self._leave()
        elif not connection.closed:
            self.on_free(connection)

    def _leave(self) -> None:
        """One place is free: for the first in the queue, or nobody."""
        waiter = self._next_waiter()
        if waiter is None:
            self.size -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None
