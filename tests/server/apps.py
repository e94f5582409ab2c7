"""The ASGI application the server's tests run: each path behaves in one way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from olla_site.server import AbortResponse

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

# What happened to requests that wait for their client to leave, and to the lifespan.
events: list[str] = []
sent = {"bytes": 0}


async def respond(send: Send, body: bytes, status: int = 200, headers: Any = ()) -> None:
    """A whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, chunks: int, pause: float, chunk: bytes) -> None:
    """`chunks` chunks, `pause` seconds apart."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(chunks):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        sent["bytes"] += len(chunk)
        if pause:
            await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b""})


def find_server() -> Any:
    """The OllaServer of this process."""
    from olla_site.server.server import OllaServer

    return next(each for each in gc.get_objects() if type(each) is OllaServer)


_server: list[Any] = []


def stats() -> dict[str, Any]:
    """The server's bookkeeping, this very request included."""
    if not _server:
        gc.unfreeze()  # frozen objects are not listed
        _server.append(find_server())
    server = _server[0]
    status = Path("/proc/self/status").read_text()
    return {
        "connections": len(server.http_connections),
        "websockets": len(server.connections),
        "exchanges": len(server.exchanges),
        "orphans": len(server._orphans),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "budget": server.budget.used,
        "rss": int(status.split("VmRSS:")[1].split()[0]) * 1024,
        "cpu": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        "sent": sent["bytes"],
        "events": events,
    }


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Dispatch by path; `?n=` and friends are read by `_number`."""
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    if scope["type"] == "websocket":
        await _websocket(scope, receive, send)
        return
    handler = _HANDLERS.get(scope["path"], _echo)
    await handler(scope, receive, send)


async def _lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    scope["state"]["started"] = "yes"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def _websocket(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["path"] == "/ws/returns":
        return
    if scope["path"] != "/ws/echo":
        raise ValueError(f"No route for {scope['path']}")
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message.get("text", "")})


def _number(scope: dict[str, Any], name: str, default: float) -> float:
    for part in scope["query_string"].decode().split("&"):
        key, _, value = part.partition("=")
        if key == name:
            return float(value)
    return default


async def _echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    body = (await receive())["body"]
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1") if len(body) < 10_000 else f"{len(body)} bytes",
        "request_id": scope["olla.request_id"],
        "state": scope["state"],
    }
    await respond(send, json.dumps(seen).encode(), headers=[(b"Content-Type", b"application/json")])


async def _stats(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await respond(send, json.dumps(stats()).encode())


async def _garbage(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await respond(send, json.dumps(gc.collect()).encode())


async def _stream(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    size = int(_number(scope, "size", 5))
    await stream(send, int(_number(scope, "n", 10)), _number(scope, "pause", 0), b"x" * size)


async def _raise_before(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise ValueError("before the answer")


async def _raise_after(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise AbortResponse if _number(scope, "abort", 0) else ValueError("after the start")


async def _short(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"four"})


async def _silent(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    return


async def _injects(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await respond(send, b"", headers=[(b"x", b"a\r\nSet-Cookie: b")])


async def _waits(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    events.append("waiting")
    message = await receive()
    events.append(message["type"])
    await respond(send, b"nobody reads this")


async def _waits_streaming(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()

    async def listen() -> None:
        events.append((await receive())["type"])

    listening = asyncio.create_task(listen())
    await stream(send, 2000, 0, b"x" * 65536)
    events.append("send returned")
    with contextlib.suppress(asyncio.CancelledError):
        await listening


async def _held(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Keeps its request's body in the budget for a while."""
    await receive()
    await asyncio.sleep(_number(scope, "pause", 1))
    await respond(send, b"done")


_told = asyncio.Event()


async def _held_until_told(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Keeps its request's body in the budget until `/let-go` is asked for."""
    await receive()
    await _told.wait()
    await respond(send, b"done")


async def _let_go(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    _told.set()
    await respond(send, b"done")


async def _status(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await respond(send, b"body", status=int(_number(scope, "code", 200)), headers=[(b"X-Mixed-Case", b"Kept")])


async def _blocks(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await asyncio.to_thread(time.sleep, 3600)


_HANDLERS = {
    "/blocks": _blocks,
    "/garbage": _garbage,
    "/stats": _stats,
    "/stream": _stream,
    "/raise-before": _raise_before,
    "/raise-after": _raise_after,
    "/short": _short,
    "/silent": _silent,
    "/injects": _injects,
    "/waits": _waits,
    "/waits-streaming": _waits_streaming,
    "/held": _held,
    "/held-until-told": _held_until_told,
    "/let-go": _let_go,
    "/status": _status,
}
