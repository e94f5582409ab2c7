"""A client made of a plain socket: it sends exact bytes and reads answers strictly."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from tests.live import LiveServer

# Sockets of the running test; a fixture closes what is left.
opened: list[socket.socket] = []
HOST = b"Host: localhost\r\n"


@dataclass
class Answer:
    """One parsed answer; `complete` is false when the connection ended before the body did."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Address(Protocol):
    """Where a server listens."""

    host: str
    port: int


class RawClient:
    """One connection; `send` bytes, then `read_answer`."""

    def __init__(self, server: Address, timeout: float = 30.0, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        opened.append(self.socket)
        self.socket.connect((server.host, server.port))
        self.buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> RawClient:
        """Send all of it."""
        self.socket.sendall(data)
        return self

    def get(self, path: str, headers: bytes = b"") -> Answer:
        """A GET on this connection."""
        return self.send(b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path.encode(), HOST, headers)).read_answer()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_more(self) -> bool:
        """Read once; False at the end of the connection, however it came."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer when the connection ends first."""
        while len(self.buffer) < size and self.read_more():
            pass
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def take_line(self) -> bytes:
        """The next line without its end; asserts that it has one."""
        while b"\r\n" not in self.buffer:
            if not self.read_more():
                raise EOFError(f"connection ended within a line: {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def read_head(self) -> Answer:
        """Status and headers of the next answer."""
        version, status, _ = self.take_line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self.take_line():
            name, _, value = line.partition(b": ")
            assert name.decode().lower() not in headers
            headers[name.decode().lower()] = value.decode()
        return Answer(int(status), headers, b"")

    def read_answer(self, *, bodiless: bool = False) -> Answer:
        """The next whole answer; `bodiless` for HEAD."""
        answer = self.read_head()
        if bodiless or answer.status in {204, 304}:
            return answer
        if "content-length" in answer.headers:
            assert "transfer-encoding" not in answer.headers
            length = int(answer.headers["content-length"])
            answer.body = self.take(length)
            answer.complete = len(answer.body) == length
        elif answer.headers.get("transfer-encoding") == "chunked":
            self._read_chunks(answer)
        else:
            while self.read_more():
                pass
            answer.body, self.buffer = self.buffer, b""
        return answer

    def _read_chunks(self, answer: Answer) -> None:
        answer.complete = False
        try:
            while size := int(self.take_line(), 16):
                answer.body += self.take(size)
                assert self.take_line() == b""
            assert self.take_line() == b""
            answer.complete = True
        except EOFError:
            pass

    def at_end(self) -> bool:
        """Whether the connection ends now, with nothing more said."""
        while self.read_more():
            pass
        return not self.buffer


def stats(server: LiveServer) -> dict[str, Any]:
    """The server's bookkeeping, asked on a connection of its own."""
    with RawClient(server) as client:
        found: dict[str, Any] = client.get("/stats", b"Connection: close\r\n").json()
        return found


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until the condition holds; fails after `seconds`.

    They are counted in looks, not by the clock: on a busy machine a look takes longer, as does what it waits for.
    """
    for _ in range(round(seconds / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    assert condition(), "the condition never came true"


def assert_idle(server: LiveServer) -> None:
    """Nothing tracked but the asking connection itself, and no body in memory."""

    def idle() -> bool:
        now = stats(server)
        # The asking request's own task, and the one that holds the lifespan.
        return (now["connections"], now["exchanges"], now["websockets"], now["budget"]) == (1, 1, 0, 0) and now[
            "tasks"
        ] <= 3

    wait_for(idle)


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """Our JSON error with that code, a request id, and the end of the connection announced."""
    assert answer.status == status
    body = answer.json()
    assert body["error"]["code"] == code
    request_id = answer.headers["x-olla-request-id"]
    assert request_id
    assert body["olla_context"]["request_id"] == request_id
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
