"""The one network door: every byte to and from an endpoint goes through `Transport`.

`send` is the direct call; `handle_async_request` is the same behind httpx's interface. One call is one request on
the wire: no retry, no redirect, no cookie, no proxy from the environment, no added header, no decompression.
Failures: endpoints/failures.py. Everything a caller needs is importable from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from time import monotonic
from typing import Any

import httpx

from endpoints.addressing import TLS, Origin, Target
from endpoints.dialing import Dialer, Resolver, resolve_by_system
from endpoints.failures import (
    BadAnswer,
    CutHead,
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
    TotalTimeout,
)
from endpoints.http1 import Answer
from endpoints.outgoing import Limits, Request, build_head
from endpoints.pool import Pool

__all__ = [
    "TLS", "Answer", "BadAnswer", "CutHead", "DoorError", "FirstByteTimeout", "IdleTimeout", "Limits",
    "LostMidBody", "NotConnected", "NotConnectedReason", "NothingReceived", "Request", "Resolver", "Target",
    "TotalTimeout", "Transport",
]  # fmt: skip

SWEEP_INTERVAL = 0.25  # seconds a limit may be noticed late
CLOSING_ROUNDS = 3
DEFAULT_LIMITS = Limits()


class Transport(httpx.AsyncBaseTransport):
    """Pools of connections, one per origin and TLS options; belongs to the event loop that first sends with it.

    httpx requests may carry the extensions `destination` (a Target; else built from the URL), `limits` (Limits;
    else from httpx's timeout) and httpx's own `target` (the raw request path).
    """

    def __init__(self, *, resolver: Resolver = resolve_by_system, sweep_interval: float = SWEEP_INTERVAL) -> None:
        self._dialer = Dialer(resolver)
        self._pools: dict[str, Pool] = {}
        self._sweep_interval = sweep_interval
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self, target: Target, request: Request, limits: Limits = DEFAULT_LIMITS, *, fresh: bool = False
    ) -> Answer:
        """Send one request and wait for the head of its answer; `fresh` takes no pooled connection.

        Raises DoorError; ValueError when the request's bytes would not mean what they say. The caller owns the
        answer: read it to the end or `aclose()` it.
        """
        wire = build_head(request)
        started = monotonic()
        pool = self._pools.get(target.key)
        if pool is None:
            pool = self._pools[target.key] = Pool(self._dialer)
        if self._sweeper is None:
            self._start_sweeper()
        connection = None if fresh else pool.take_idle(started)
        if connection is None:
            connection = await pool.open(target, limits.connect)
        if self._closed:
            connection.abort()
            raise RuntimeError("The transport is closed.")
        return await connection.exchange(request, wire, limits, started)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """`send` for httpx. Raises httpx's exceptions, each chained from ours."""
        target = request.extensions.get("destination") or _target_of(request.url)
        limits = request.extensions.get("limits") or _limits_of(request.extensions.get("timeout", {}))
        try:
            answer = await self.send(target, await _outgoing(request), limits)
        except DoorError as error:
            raise _httpx_error(error, request) from error
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_AnswerStream(answer, request),
            extensions={
                "http_version": b"HTTP/" + answer.http_version.encode(),
                "reason_phrase": answer.reason,
                "answer": answer,
            },
        )

    async def aclose(self) -> None:
        """Close every connection and refuse further requests."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for pool in self._pools.values():
            pool.close()
        # asyncio closes an aborted socket in its next rounds: one for TCP, a second for TLS above it.
        for _ in range(CLOSING_ROUNDS):
            await asyncio.sleep(0)
        self._pools.clear()

    def count_connections(self) -> tuple[int, int]:
        """(all, idle) connections of all pools; for status pages and tests."""
        pools = self._pools.values()
        return sum(pool.size for pool in pools), sum(pool.idle_count for pool in pools)

    @property
    def is_idle(self) -> bool:
        """Whether there is nobody it has a connection to, or has just had one; for tests."""
        return not self._pools

    def _start_sweeper(self) -> None:
        if self._closed:
            raise RuntimeError("The transport is closed.")
        self._sweeper = asyncio.get_running_loop().call_later(self._sweep_interval, self._sweep)

    def _sweep(self) -> None:
        """Check every limit. One timer for all exchanges, gone when there is nothing to watch."""
        self._sweeper = None
        now = monotonic()
        for key, pool in tuple(self._pools.items()):
            pool.sweep(now)
            if pool.unused:
                del self._pools[key]
                self._dialer.forget(key)
        if self._pools:
            self._start_sweeper()


class _AnswerStream(httpx.AsyncByteStream):
    """An answer's body as httpx wants it."""

    def __init__(self, answer: Answer, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer:
                yield piece
        except DoorError as error:
            raise _httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        await self._answer.aclose()


def _target_of(url: httpx.URL) -> Target:
    port = url.port or (443 if url.scheme == "https" else 80)
    return Target(Origin(url.scheme, url.host, port))


def _limits_of(timeout: Mapping[str, Any]) -> Limits:
    """httpx knows one read timeout; it is our limit both for the head and between pieces."""
    read = timeout.get("read") or 0.0
    return Limits(connect=timeout.get("connect") or 0.0, first_byte=read, idle=read)


async def _outgoing(request: httpx.Request) -> Request:
    path = request.extensions.get("target") or request.url.raw_path
    framed = "content-length" in request.headers or "transfer-encoding" in request.headers
    body: bytes | AsyncIterable[bytes]
    if _is_loaded(request) or not framed:
        body = await request.aread()
    elif isinstance(request.stream, httpx.AsyncByteStream):
        body = request.stream
    else:
        raise TypeError("The request body must be readable asynchronously.")
    return Request(request.method.encode("ascii"), path, request.headers.raw, body)


def _is_loaded(request: httpx.Request) -> bool:
    """Whether httpx holds the whole body; it has no other way to ask."""
    try:
        return request.content is not None
    except httpx.RequestNotRead:
        return False


_HTTPX_ERRORS: tuple[tuple[type[DoorError], type[httpx.TransportError]], ...] = (
    (NotConnected, httpx.ConnectError),
    (NothingReceived, httpx.ReadError),
    (FirstByteTimeout, httpx.ReadTimeout),
    (IdleTimeout, httpx.ReadTimeout),
    (TotalTimeout, httpx.ReadTimeout),
    (BadAnswer, httpx.RemoteProtocolError),
    (LostMidBody, httpx.ReadError),
)


def _httpx_error(error: DoorError, request: httpx.Request) -> httpx.TransportError:
    kind = next(kind for ours, kind in _HTTPX_ERRORS if isinstance(error, ours))
    if isinstance(error, NotConnected):
        kind = {
            NotConnectedReason.TIMEOUT: httpx.ConnectTimeout,
            NotConnectedReason.NO_FREE_CONNECTION: httpx.PoolTimeout,
        }.get(error.reason, kind)
    return kind(str(error), request=request)
