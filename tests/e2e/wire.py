"""Requests over sockets of their own, read strictly: how an answer ended is kept beside what it said."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools

from tests.live import LiveServer

# Everything comes from one address here, at any rate.
UNLIMITED = {
    "OLLA_GLOBAL_REQUESTS_PER_MINUTE": "0",
    "OLLA_PER_IP_REQUESTS_PER_MINUTE": "0",
    "OLLA_BURST_SIZE": "0",
}


@dataclass
class Wire:
    """One request on its way: what has come so far, and whether the framing's own end did."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    finished: bool = False

    async def read_head(self) -> int:
        """Read status line and headers; the status. Raises EOFError when the connection ends first."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return self.status

    async def read_until(self, size: int) -> bytes:
        """Read until there are `size` bytes of the body, or it ends."""
        try:
            while len(self.body) < size and not self.finished:
                await self._read_more()
        except asyncio.IncompleteReadError as error:
            self.body += error.partial
        except ConnectionResetError:
            pass
        return bytes(self.body)

    async def read(self) -> Wire:
        """Read head and body to their end, good or bad."""
        await self.read_head()
        await self.read_until(1 << 60)
        return self

    async def at_end(self) -> bool:
        """Whether the connection ends with nothing more said."""
        try:
            return not await self.reader.read(1)
        except ConnectionResetError:
            return True

    async def _read_more(self) -> None:
        if "content-length" in self.headers:
            left = int(self.headers["content-length"]) - len(self.body)
            self.body += await self.reader.readexactly(left)
            self.finished = True
            return
        assert self.headers.get("transfer-encoding") == "chunked"
        line = await self.reader.readuntil(b"\r\n")
        chunk = await self.reader.readexactly(int(line, 16) + 2)
        assert chunk.endswith(b"\r\n")
        self.body += chunk[:-2]
        self.finished = chunk == b"\r\n"


def _build_post(path: str, fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def asking(server: LiveServer, path: str, fields: dict[str, Any]) -> AsyncIterator[Wire]:
    """A POST of JSON, sent; the connection is dropped at the end of the block."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(_build_post(path, fields))
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


class Trickle:
    """An answer whose client takes as many bytes from its socket as it is told to, and buffers next to none."""

    def __init__(self, sock: socket.socket) -> None:
        self.body = bytearray()
        self.finished = False
        self._sock = sock
        self._parser = httptools.HttpResponseParser(self)

    async def read(self, size: int) -> None:
        """Take up to `size` bytes, of the framing or of the body. Raises EOFError at the connection's end."""
        data = await asyncio.get_running_loop().sock_recv(self._sock, size)
        if not data:
            raise EOFError
        self._parser.feed_data(data)

    def hurry(self) -> None:
        """Take all there is from now on: a small buffer would take thousands of turns of two processes."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def on_body(self, data: bytes) -> None:
        """For the parser."""
        self.body += data

    def on_message_complete(self) -> None:
        """For the parser."""
        self.finished = True


@asynccontextmanager
async def trickling(server: LiveServer, path: str, fields: dict[str, Any]) -> AsyncIterator[Trickle]:
    """A POST of JSON, sent from a socket with a small receive buffer."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (server.host, server.port))
        await loop.sock_sendall(sock, _build_post(path, fields))
        yield Trickle(sock)


async def ask(server: LiveServer, path: str, fields: dict[str, Any]) -> Wire:
    """A POST of JSON and its whole answer."""
    async with asking(server, path, fields) as wire:
        return await wire.read()


def sockets_to(pid: int, ports: set[int]) -> int:
    """How many sockets a process has open to these ports of the loopback address."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(each.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for line in lines if line[9] in inodes and int(line[2].split(":")[1], 16) in ports)


async def nothing_open(server: LiveServer, ports: set[int], within: float = 60) -> None:
    """Wait until the server has no connection to a backend left, pooled ones included."""
    async with asyncio.timeout(within):
        while sockets_to(server.pid, ports):
            await asyncio.sleep(0.1)


def assert_calm(server: LiveServer) -> None:
    """The process is alive and met nothing it had not foreseen."""
    assert server.process is not None
    assert server.process.poll() is None
    log = server.output()
    assert "Traceback" not in log
    assert "never retrieved" not in log
    assert "background task" not in log
