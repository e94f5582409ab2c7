"""How answers and connections end: aborts, clients that leave, clients that do not read, WebSockets."""

from __future__ import annotations

import base64
import socket
import threading
import time

import pytest

from tests.live import LiveServer
from tests.server.conftest import APP
from tests.server.raw import HOST, RawClient, assert_idle, assert_refused, stats, wait_for

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("path", ["/raise-before", "/silent", "/injects"])
def test_it_answers_500_when_the_application_fails_before_its_answer(server: LiveServer, path: str) -> None:
    with RawClient(server) as client:
        assert_refused(client.get(path), 500, "internal_error")


@pytest.mark.parametrize("path", ["/raise-after", "/raise-after?abort=1"])
def test_it_aborts_an_answer_that_fails_after_its_start(server: LiveServer, path: str) -> None:
    for _ in range(100):
        with RawClient(server) as client:
            begun = time.monotonic()
            answer = client.get(path)
            assert not answer.complete
            assert time.monotonic() - begun < 5
    wait_for(lambda: stats(server)["connections"] == 1)


def test_it_aborts_an_answer_shorter_than_it_declared(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /short HTTP/1.1\r\n" + HOST + b"\r\n")
        with pytest.raises((EOFError, AssertionError)):
            assert client.read_answer().complete


def test_it_aborts_a_body_that_only_the_connection_ends(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /raise-after HTTP/1.0\r\n\r\n")

        def read_all() -> None:
            while client.socket.recv(65536):
                pass

        with pytest.raises(ConnectionResetError):
            read_all()


@pytest.mark.parametrize("by_reset", [False, True])
def test_it_tells_the_application_at_once_that_the_client_left(server: LiveServer, *, by_reset: bool) -> None:
    before = stats(server)["events"]
    client = RawClient(server).send(b"GET /waits HTTP/1.1\r\n" + HOST + b"\r\n")
    wait_for(lambda: stats(server)["events"] == [*before, "waiting"])
    if by_reset:
        client.reset()
    else:
        client.socket.close()
    wait_for(lambda: stats(server)["events"] == [*before, "waiting", "http.disconnect"], seconds=1)


def test_it_wakes_a_suspended_send_when_the_client_leaves(server: LiveServer) -> None:
    before = stats(server)["events"]
    client = RawClient(server, receive_buffer=4096)
    client.send(b"GET /waits-streaming HTTP/1.1\r\n" + HOST + b"\r\n")
    wait_for(lambda: stats(server)["sent"] > 0)
    client.reset()
    wait_for(lambda: stats(server)["events"][len(before) :] == ["http.disconnect", "send returned"])


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\n" + HOST,
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nhal",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"GET /held?pause=0.1 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /stream?n=1000&size=65536 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"bad\r\n\r\n",
    ],
)
@pytest.mark.parametrize("by_reset", [False, True])
def test_it_forgets_a_client_that_leaves_at_any_stage(server: LiveServer, begun: bytes, *, by_reset: bool) -> None:
    before = stats(server)["descriptors"]
    for _ in range(5):
        client = RawClient(server).send(begun)
        if by_reset:
            client.reset()
        else:
            client.socket.close()
    wait_for(lambda: stats(server)["descriptors"] <= before)
    assert_idle(server)


def test_it_closes_idle_connections_in_the_end() -> None:
    with LiveServer(app=APP, env={"OLLA_KEEP_ALIVE_TIMEOUT": "1"}) as server, RawClient(server) as client:
        assert client.get("/").status == 200
        assert client.at_end()


def test_it_gives_up_a_client_that_takes_nothing() -> None:
    with LiveServer(app=APP, env={"OLLA_IDLE_TIMEOUT": "1"}) as server:
        with RawClient(server, receive_buffer=4096) as client:
            client.send(b"GET /stream?n=1000&size=65536 HTTP/1.1\r\n" + HOST + b"\r\n")
            wait_for(lambda: stats(server)["exchanges"] == 2)
            wait_for(lambda: stats(server)["exchanges"] == 1)
        assert_idle(server)


def test_it_keeps_its_memory_flat_for_a_slow_reader(server: LiveServer, *, long_form: bool) -> None:
    before = stats(server)
    with RawClient(server, receive_buffer=4096) as client:
        client.send(b"GET /stream?n=3200&size=65536 HTTP/1.1\r\n" + HOST + b"\r\n")
        end = time.monotonic() + (15 if long_form else 3)
        while time.monotonic() < end:
            assert client.socket.recv(256)
            time.sleep(0.25)
        now = stats(server)
        assert now["rss"] - before["rss"] < 10 * MEGABYTE
        # What the application could send is what the kernel's buffers hold; then it was suspended.
        assert now["sent"] - before["sent"] < 20 * MEGABYTE
        wait_for(lambda: stats(server)["sent"] == stats(server)["sent"])


def test_it_streams_to_one_client_while_many_others_read_slowly(server: LiveServer) -> None:
    before = stats(server)["rss"]
    slow = [RawClient(server, receive_buffer=4096) for _ in range(50)]
    for client in slow:
        client.send(b"GET /stream?n=3200&size=65536 HTTP/1.1\r\n" + HOST + b"\r\n")
    wait_for(lambda: stats(server)["exchanges"] == 51)
    with RawClient(server) as client:
        begun = time.monotonic()
        answer = client.get("/stream?n=50&pause=0.01")
        assert answer.complete
        assert len(answer.body) == 250
        assert time.monotonic() - begun < 10  # half a second when nothing else runs
    assert stats(server)["rss"] - before < 50 * MEGABYTE
    for client in slow:
        client.reset()
    assert_idle(server)


def test_it_answers_many_short_connections(server: LiveServer, *, long_form: bool) -> None:
    before = stats(server)["descriptors"]
    wrong: list[int] = []

    def work(count: int) -> None:
        for _ in range(count):
            with RawClient(server) as client:
                status = client.get("/status", b"Connection: close\r\n").status
                if status != 200 or not client.at_end():
                    wrong.append(status)

    threads = [threading.Thread(target=work, args=((10_000 if long_form else 2_000) // 8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    wait_for(lambda: stats(server)["descriptors"] <= before)


def test_it_answers_many_requests_on_one_connection(server: LiveServer) -> None:
    with RawClient(server) as client:
        assert all(client.get("/status").body == b"body" for _ in range(2000))


def test_it_holds_many_idle_connections(server: LiveServer) -> None:
    before = stats(server)["descriptors"]
    idle = [RawClient(server) for _ in range(500)]
    wait_for(lambda: stats(server)["connections"] == 501)
    assert all(client.get("/status").status == 200 for client in idle)
    for client in idle:
        client.socket.close()
    wait_for(lambda: stats(server)["descriptors"] <= before)


def test_it_accepts_a_burst_of_connections_at_once(server: LiveServer) -> None:
    clients = []
    for _ in range(256):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((server.host, server.port))
        clients.append(client)
    # With a backlog of 50 some SYNs would be sent again after a second, and again after three.
    wait_for(lambda: stats(server)["connections"] == 257)
    for client in clients:
        client.close()


def upgrade(path: str) -> bytes:
    """A WebSocket handshake."""
    key = base64.b64encode(b"0123456789abcdef")
    return (
        b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )


def test_it_hands_upgrades_to_the_websocket_protocol(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(upgrade("/ws/echo"))
        answer = client.read_head()
        assert answer.status == 101
        mask = b"\1\2\3\4"
        text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(b"hello"))
        client.send(b"\x81" + bytes([0x80 | 5]) + mask + text)
        assert client.take(7) == b"\x81\x05hello"


def test_it_answers_an_upgrade_nobody_takes(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(upgrade("/ws/nowhere"))
        assert_refused(client.read_answer(), 500, "internal_error")
        assert client.at_end()


def test_it_rejects_an_upgrade_whose_application_returns(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(upgrade("/ws/returns"))
        assert_refused(client.read_answer(), 403, "forbidden_path")


def test_it_logs_what_happens_to_websockets(server: LiveServer) -> None:
    with RawClient(server) as client:
        assert client.send(upgrade("/ws/echo?token=hush")).read_head().status == 101
    wait_for(lambda: "WebSocket disconnected: /ws/echo" in server.output())
    assert "hush" not in server.output()


def test_it_answers_an_upgrade_that_is_not_one(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(upgrade("/ws/echo").replace(b"Version: 13", b"Version: 99"))
        assert client.read_answer().status == 400
        client.socket.shutdown(socket.SHUT_WR)
        assert client.at_end()


def test_it_forgets_websockets_that_leave(server: LiveServer) -> None:
    clients = [RawClient(server).send(upgrade("/ws/echo")) for _ in range(20)]
    for client in clients:
        assert client.read_head().status == 101
    for client in clients:
        client.reset()
    assert_idle(server)
