"""The yardstick: an ASGI application that relays with aiohttp and does nothing else. BENCH_UPSTREAM names it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

UPSTREAM = os.environ.get("BENCH_UPSTREAM", "")
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
_sessions: list[aiohttp.ClientSession] = []


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Relay one request."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False))
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name != b"host"]
    url = UPSTREAM + "/v1/" + scope["path"].split("/v1/", 1)[-1]
    async with _sessions[0].request(scope["method"], url, data=body, headers=headers) as answer:
        kept = [(name, value) for name, value in answer.raw_headers if name.lower() != b"transfer-encoding"]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def lifespan(receive: Receive, send: Send) -> None:
    """Close the session with the server."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            while _sessions:
                await _sessions.pop().close()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
