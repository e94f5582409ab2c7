"""What the server leans on inside Twisted, Daphne and httptools; these fail when an upgrade changes it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

PROBE = """
import asyncio, inspect, socket
from daphne import server as daphne_server
from twisted.internet import abstract, interfaces, reactor, tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from olla_site.server.http_protocol import HTTPProtocol

assert isinstance(reactor._asyncioEventloop, asyncio.SelectorEventLoop)
assert callable(reactor._disconnectSelectable)
assert not IHalfCloseableProtocol.implementedBy(HTTPProtocol)

left, right = socket.socketpair()
class Protocol:
    def connectionLost(self, reason): self.lost = reason
    def dataReceived(self, data): self.data = data
class Producer:
    calls = ""
    def pauseProducing(self): self.calls += "p"
    def resumeProducing(self): self.calls += "r"
    def stopProducing(self): self.calls += "s"
protocol, producer = Protocol(), Producer()
right.setblocking(True)
transport = tcp.Server(left, protocol, ("127.0.0.1", 1), None, 1, reactor)
assert transport.socket is left and transport.connected
assert (transport.dataBuffer, transport.offset, transport._tempDataLen) == (b"", 0, 0)
transport.registerProducer(producer, True)
transport.write(b"x" * 65536)
assert producer.calls == "" and transport._tempDataLen == 65536
transport.write(b"y")
assert producer.calls == "p", "a push producer is paused over 64 KiB"
while transport._tempDataLen or transport.dataBuffer:
    right.recv(1 << 20) if transport.dataBuffer else None
    transport.doWrite()
assert producer.calls == "pr", "and resumed when all has left"
transport.unregisterProducer()
transport.loseWriteConnection()
transport.doWrite()
right.setblocking(False)
try:
    while right.recv(1 << 20): pass
    ended = True
except BlockingIOError:
    ended = False
assert ended, "loseWriteConnection closes the sending half"
right.close()
lost = transport.doRead()
assert lost is not None, "end of file is a lost connection"
transport.readConnectionLost(__import__("twisted.python.failure", fromlist=["Failure"]).Failure(lost))
assert protocol.lost and not hasattr(transport, "socket")

listen = inspect.signature(daphne_server.Server.__init__).parameters
for name in ("endpoints", "signal_handlers", "websocket_handshake_timeout", "application_close_timeout"):
    assert name in listen, name
methods = "create_application protocol_connected protocol_disconnected timeout_checker handle_reply"
for name in methods.split():
    assert callable(getattr(daphne_server.Server, name)), name
"""


def test_it_finds_twisted_and_daphne_as_it_expects() -> None:
    # In a process of its own: importing Daphne installs a reactor.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import django; django.setup()\n" + PROBE],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_it_finds_daphnes_websocket_protocol_as_it_expects() -> None:
    source = subprocess.run(
        [
            sys.executable,
            "-c",
            "import inspect, daphne.server, daphne.ws_protocol as p; print(inspect.getsource(p))",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "self._raw_query_string" in source
    assert "self.factory.server_class" in source
    assert "def handle_exception" in source


class Recorder:
    """Collects what httptools calls."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.parser = HttpRequestParser(self)

    def on_headers_complete(self) -> None:
        self.events.append(self.parser.should_keep_alive())

    def on_body(self, data: bytes) -> None:
        self.events.append(data)

    def on_message_complete(self) -> None:
        self.events.append("done")


def test_it_finds_llhttp_strict() -> None:
    # The rules build_head relies on without repeating them; test_refusals.py shows the same from outside.
    assert "set_dangerous_leniencies" in dir(HttpRequestParser)
    for head in (
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\nA: b\n\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        with pytest.raises(HttpParserError):
            HttpRequestParser(object()).feed_data(head)


def test_it_finds_keep_alive_said_when_the_head_ends() -> None:
    recorder = Recorder()
    recorder.parser.feed_data(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert recorder.events == [True, "done"]


def test_it_finds_upgrades_reported_with_their_place() -> None:
    head = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n"
    with pytest.raises(HttpParserUpgrade):
        Recorder().parser.feed_data(head + b"abc")


def test_it_finds_parse_errors_carry_a_callbacks_own_error() -> None:
    class Refusing:
        def on_body(self, data: bytes) -> None:
            raise LookupError("mine")

    parser = HttpRequestParser(Refusing())
    with pytest.raises(HttpParserError) as caught:
        parser.feed_data(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
    assert isinstance(caught.value.__context__, LookupError)
    assert inspect.isclass(HttpParserUpgrade)
