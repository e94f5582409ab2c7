"""How `serve` ends: in order on the first signal, at once on the second."""

from __future__ import annotations

import signal
import time

import pytest

from tests.live import LiveServer
from tests.server.conftest import APP
from tests.server.raw import HOST, RawClient, assert_refused, stats, wait_for
from tests.server.test_endings import upgrade

STREAM = b"GET /stream?n=%d&pause=0.1 HTTP/1.1\r\n" + HOST + b"\r\n"


def begin_streams(server: LiveServer, count: int, chunks: int) -> list[RawClient]:
    """Clients whose streams have begun."""
    clients = [RawClient(server).send(STREAM % chunks) for _ in range(count)]
    for client in clients:
        assert client.read_head().status == 200
    return clients


def wait_until_refused(server: LiveServer) -> None:
    """Wait until the server takes no connection."""

    def refused() -> bool:
        try:
            RawClient(server).socket.close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            return False
        return False

    wait_for(refused)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_lets_streams_finish_and_turns_others_away(number: int) -> None:
    with LiveServer(app=APP) as server, RawClient(server) as kept_alive, RawClient(server) as held:
        assert kept_alive.get("/").status == 200
        # Streams end by themselves, on a busy machine before anything else can be tried; a body that lacks a byte
        # holds the server.
        held.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhell")
        wait_for(lambda: stats(server)["budget"] == 4)
        clients = begin_streams(server, 20, 20)
        server.signal(number)
        wait_until_refused(server)
        assert_refused(kept_alive.get("/"), 503, "draining")
        for client in clients:
            answer = read_rest(client)
            assert answer == b"x" * 100
        assert held.send(b"o").read_answer().json()["body"] == "hello"
        assert server.wait() == 0
        assert "lifespan shutdown" in server.output()


def read_rest(client: RawClient) -> bytes:
    """The chunks of a stream up to its proper end."""
    body = b""
    while size := int(client.take_line(), 16):
        body += client.take(size)
        assert client.take_line() == b""
    assert client.take_line() == b""
    return body


def test_it_lets_a_body_that_is_coming_in_finish() -> None:
    with LiveServer(app=APP) as server, RawClient(server) as client:
        client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhe")
        wait_for(lambda: stats(server)["budget"] == 2)
        server.signal()
        wait_until_refused(server)
        client.send(b"llo")
        answer = client.read_answer()
        assert answer.json()["body"] == "hello"
        assert answer.headers["connection"] == "close"
        assert server.wait() == 0


def test_it_ends_at_once_on_a_second_signal() -> None:
    with LiveServer(app=APP) as server:
        clients = begin_streams(server, 20, 600)
        server.signal()
        wait_until_refused(server)
        begun = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - begun < 20  # the streams would take a minute
        assert not any(client.at_end() for client in clients)


def test_it_cuts_what_is_left_after_the_shutdown_timeout() -> None:
    with LiveServer(app=APP, env={"OLLA_SHUTDOWN_TIMEOUT": "0.5"}) as server:
        client = begin_streams(server, 1, 600)[0]
        waiting = RawClient(server).send(b"GET /held?pause=60 HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_for(lambda: stats(server)["exchanges"] == 3)
        server.signal()
        assert_refused(waiting.read_answer(), 503, "draining")
        with pytest.raises((EOFError, AssertionError)):
            read_rest(client)
        assert server.wait() == 0


def test_it_does_not_wait_for_threads_that_hang() -> None:
    with LiveServer(app=APP, env={"OLLA_SHUTDOWN_TIMEOUT": "0.2"}) as server:
        client = RawClient(server).send(b"GET /blocks HTTP/1.1\r\n" + HOST + b"\r\n")
        wait_for(lambda: stats(server)["exchanges"] == 2)
        server.signal()
        assert_refused(client.read_answer(), 503, "draining")
        assert server.wait(20) == 0


def test_it_closes_websockets_when_it_ends() -> None:
    with LiveServer(app=APP) as server, RawClient(server) as client:
        assert client.send(upgrade("/ws/echo")).read_head().status == 101
        server.signal()
        assert client.take(4) == b"\x88\x02\x03\xe9"  # close frame, 1001 going away
        assert server.wait() == 0


def test_it_ends_at_once_when_nothing_is_in_flight() -> None:
    with LiveServer(app=APP) as server, RawClient(server) as client:
        assert client.get("/").status == 200
        begun = time.monotonic()
        server.signal()
        assert client.at_end()
        assert server.wait() == 0
        assert time.monotonic() - begun < 10
