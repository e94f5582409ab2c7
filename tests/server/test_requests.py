"""Requests and answers as HTTP/1.1 wants them."""

from __future__ import annotations

import socket

import pytest

from tests.live import LiveServer
from tests.server.raw import HOST, RawClient

POST = b"POST /x HTTP/1.1\r\n" + HOST


def test_it_gives_the_application_the_path_as_sent_and_decoded(server: LiveServer) -> None:
    with RawClient(server) as client:
        seen = client.get("/a%2Fb%20c//d/../e?q=%20&r").json()
        assert seen["raw_path"] == "/a%2Fb%20c//d/../e"
        assert seen["path"] == "/a/b c//d/../e"
        assert seen["query"] == "q=%20&r"


def test_it_gives_headers_in_order_with_lower_case_names_and_trimmed_values(server: LiveServer) -> None:
    with RawClient(server) as client:
        seen = client.get("/", b"X-B:  two words \t\r\nX-A:\r\nX-B: again\r\n").json()
        assert seen["headers"] == [["host", "localhost"], ["x-b", "two words"], ["x-a", ""], ["x-b", "again"]]


def test_it_drops_header_names_with_underscores(server: LiveServer) -> None:
    with RawClient(server) as client:
        seen = client.get("/", b"X_Forwarded_For: 1.2.3.4\r\nRemote_User: admin\r\n").json()
        assert seen["headers"] == [["host", "localhost"]]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(b"abc-1", True), (b"a b", False), (b"x" * 128, True), (b"x" * 129, False), (b"\xff", False)],
)
def test_it_takes_a_fit_request_id_of_the_client(server: LiveServer, sent: bytes, *, kept: bool) -> None:
    with RawClient(server) as client:
        request_id = client.get("/", b"X-Request-ID: " + sent + b"\r\n").json()["request_id"]
        assert (request_id == sent.decode("latin-1")) is kept
        assert kept or len(request_id) == 32


def test_it_passes_the_lifespans_state_on(server: LiveServer) -> None:
    with RawClient(server) as client:
        assert client.get("/").json()["state"] == {"started": "yes"}


def test_it_takes_the_absolute_form_for_its_own_host(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET http://localhost/a?b HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.read_answer().json()["raw_path"] == "/a"


def test_it_skips_empty_lines_before_a_request(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"\r\n")
        client.send(b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.read_answer().status == 200


def test_it_reads_a_body_that_arrives_byte_by_byte(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST + b"Content-Length: 5\r\n\r\nhello":
            client.send(bytes([byte]))
        assert client.read_answer().json()["body"] == "hello"


CHUNKED_BODY = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.mark.parametrize("cut", range(1, len(CHUNKED_BODY) + len(AFTER), 3))
def test_it_finds_the_end_of_a_chunked_body_wherever_it_is_cut(server: LiveServer, cut: int) -> None:
    stream = CHUNKED_BODY + AFTER
    with RawClient(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(stream[:cut])
        client.send(stream[cut:])
        seen = client.read_answer().json()
        assert seen["body"] == "hello world"
        assert "trailer" not in dict(seen["headers"])
        assert client.read_answer().json()["path"] == "/after"


def test_it_says_100_continue_once_it_wants_the_body(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.read_head().status == 100
        client.send(b"hello")
        assert client.read_answer().json()["body"] == "hello"


def test_it_answers_pipelined_requests_in_order(server: LiveServer) -> None:
    count = 500
    requests = [b"GET /%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(count)]
    with RawClient(server) as client:
        client.send(b"".join(requests))
        assert [client.read_answer().json()["path"] for _ in range(count)] == [f"/{n}" for n in range(count)]


def test_it_answers_pipelined_posts_in_order(server: LiveServer) -> None:
    sized = POST + b"Content-Length: 5\r\n\r\nfirst"
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n"
    with RawClient(server) as client:
        client.send((sized + chunked) * 3)
        assert [client.read_answer().json()["body"] for _ in range(6)] == ["first", "second"] * 3


def test_it_closes_after_a_request_that_asks_for_it(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nGET /ignored HTTP/1.1\r\n\r\n")
        assert client.read_answer().headers["connection"] == "close"
        client.socket.shutdown(socket.SHUT_WR)
        assert client.at_end()


def test_it_speaks_http_1_0(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /stream?n=3 HTTP/1.0\r\n\r\n")
        answer = client.read_answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert answer.body == b"x" * 15


def test_it_keeps_an_http_1_0_connection_that_asks_for_it(server: LiveServer) -> None:
    with RawClient(server) as client:
        for _ in range(2):
            client.send(b"GET /status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = client.read_answer()
            assert answer.headers["connection"] == "keep-alive"
            assert answer.body == b"body"


def test_it_dates_answers_and_names_no_server(server: LiveServer) -> None:
    with RawClient(server) as client:
        headers = client.get("/status").headers
        assert headers["date"].endswith("GMT")
        assert "server" not in headers


def test_it_sends_header_bytes_as_given(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /status HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"\r\nX-Mixed-Case: Kept\r\n" in client.socket.recv(65536)


def test_it_gives_a_length_to_a_body_sent_whole(server: LiveServer) -> None:
    with RawClient(server) as client:
        assert client.get("/status").headers["content-length"] == "4"


def test_it_sends_head_and_first_chunk_in_one_write(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /stream?n=1&pause=0.3 HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.socket.recv(65536).endswith(b"\r\n\r\n5\r\nxxxxx\r\n")


def test_it_sends_no_body_for_head(server: LiveServer) -> None:
    with RawClient(server) as client:
        for _ in range(2):
            client.send(b"HEAD /status HTTP/1.1\r\n" + HOST + b"\r\n")
            assert client.read_answer(bodiless=True).status == 200
        assert client.get("/status").body == b"body"


@pytest.mark.parametrize("status", [204, 304])
def test_it_sends_no_body_with_statuses_that_have_none(server: LiveServer, status: int) -> None:
    with RawClient(server) as client:
        answer = client.get(f"/status?code={status}")
        assert answer.status == status
        assert "transfer-encoding" not in answer.headers
        assert status == 304 or "content-length" not in answer.headers
        assert client.get("/status").body == b"body"


def test_it_ignores_an_upgrade_it_does_not_speak_and_keeps_the_body(server: LiveServer) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with RawClient(server) as client:
        client.send(POST + offer + b"Content-Length: 5\r\n\r\nhello" + AFTER)
        assert client.read_answer().json()["body"] == "hello"
        assert client.read_answer().json()["path"] == "/after"
        client.send(POST + offer + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert client.read_answer().json()["body"] == "hello"


def test_it_leaves_no_request_to_the_garbage_collector(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.get("/garbage")
        for _ in range(40):
            client.send(POST + b"Content-Length: 5\r\n\r\nhello").read_answer()
            client.get("/stream?n=2")
        # A collection stops every stream for as long as it takes: what is left here must not grow with requests.
        assert client.get("/garbage").json() < 40
