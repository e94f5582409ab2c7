"""A load generator of raw bytes: cheap enough that it is never what is measured. Bounded in count and time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

DEADLINE = 120.0
_HEADERS = (
    b"host: 127.0.0.1\r\nuser-agent: bench/1\r\naccept: application/json\r\naccept-encoding: gzip, deflate\r\n"
    b"connection: keep-alive\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\n"
    b"x-stainless-lang: python\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\n"
    b"x-stainless-runtime: CPython\r\n"
    b"x-stainless-async: true\r\nx-stainless-retry-count: 0\r\n"
)


def build_request(path: str, body: bytes, extra: bytes = b"") -> bytes:
    """A request with the fourteen headers an SDK sends."""
    return (
        b"POST " + path.encode() + b" HTTP/1.1\r\n" + _HEADERS + extra
        + b"content-length: %d\r\n\r\n" % len(body) + body
    )  # fmt: skip


@dataclass
class Client(asyncio.Protocol):
    """One connection that sends the same request again and again."""

    request: bytes
    pieces: list[tuple[float, int]] = field(default_factory=list)
    done: asyncio.Future[None] | None = None
    data: bytearray = field(default_factory=bytearray)
    transport: asyncio.Transport | None = None
    length: int = -1
    lost: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self) -> list[tuple[float, int]]:
        """Send it once and wait for the end of the answer; (seconds, bytes) of each arrival since the sending."""
        assert self.transport is not None
        self.pieces, self.length = [], -1
        self.data.clear()
        self.done = asyncio.get_running_loop().create_future()
        self.sent = time.perf_counter()
        self.transport.write(self.request)
        await self.done
        return self.pieces

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter() - self.sent, len(data)))
        self.data += data
        if self.length < 0:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.data[:end]).lower()
            assert head.startswith(b"http/1.1 200"), bytes(self.data[:500])
            start = head.find(b"content-length: ")
            self.length = end + 4 + int(head[start + 16 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        whole = len(self.data) >= self.length if self.length else self.data.endswith(b"0\r\n\r\n")
        if whole and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("closed early"))


async def open_clients(port: int, request: bytes, count: int) -> list[Client]:
    """Connections, all open."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request), "127.0.0.1", port) for _ in range(count)]
    return [client for _, client in made]


async def run_load(port: int, request: bytes, *, total: int, concurrency: int) -> list[float]:
    """`total` requests over `concurrency` connections; seconds each took."""
    clients = await open_clients(port, request, concurrency)
    seconds: list[float] = []

    async def work(client: Client, count: int) -> None:
        for _ in range(count):
            pieces = await client.ask()
            seconds.append(pieces[-1][0])

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(work(client, total // concurrency) for client in clients))
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    return seconds
