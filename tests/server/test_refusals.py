"""What never reaches the application: each refusal is our JSON error with a request id."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.live import LiveServer
from tests.server.raw import HOST, RawClient, assert_refused, stats, wait_for

POST = b"POST /x HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

BAD_HEADS = {
    "no_http": b"hello\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "bare_lf": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "bare_lf_in_head": b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "bare_cr": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\rC: d\r\n\r\n",
    "nul_in_value": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n",
    "control_in_value": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x01c\r\n\r\n",
    "del_in_value": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x7fc\r\n\r\n",
    "nul_in_name": b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00: b\r\n\r\n",
    "space_before_colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    "no_colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nabc\r\n\r\n",
    "two_hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no_host": b"GET / HTTP/1.1\r\n\r\n",
    "no_host_in_1_0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "length_and_chunked": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_and_length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two_lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length_list": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed_length": POST + b"Content-Length: +3\r\n\r\nabc",
    "hex_length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "empty_length": POST + b"Content-Length:\r\n\r\n",
    "huge_length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "unknown_coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two_codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked_not_last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "repeated_coding": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_1_0": b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "connect": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "other_authority": b"GET http://elsewhere/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw_utf8_path": "GET /é HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "nul_in_path": b"GET /a\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "two_spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "small_method": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "http_0_9": b"GET /\r\n\r\n",
    "http_2": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bad_chunk_size": CHUNKED + b"zz\r\n",
    "signed_chunk_size": CHUNKED + b"-3\r\n",
    "hex_chunk_size": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "huge_chunk_size": CHUNKED + b"ffffffffffffffffff\r\n",
    "bare_lf_after_size": CHUNKED + b"3\nabc\n0\n\n",
    "chunk_too_long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "control_in_extension": CHUNKED + b"3;\x01\r\nabc\r\n0\r\n\r\n",
    "bad_trailer": CHUNKED + b"3\r\nabc\r\n0\r\nA B: c\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_it_answers_400_to_what_could_be_misread(server: LiveServer, name: str) -> None:
    with RawClient(server) as client:
        client.send(BAD_HEADS[name])
        assert_refused(client.read_answer(), 400, "invalid_request")
        with contextlib.suppress(OSError):  # a moment later the server has reset the connection
            client.socket.shutdown(socket.SHUT_WR)
        assert client.at_end()


@pytest.mark.parametrize("name", ["two_hosts", "chunked_and_length", "bare_lf", "bad_chunk_size"])
def test_it_answers_400_however_the_bytes_arrive(server: LiveServer, name: str) -> None:
    with RawClient(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for byte in BAD_HEADS[name]:
                client.send(bytes([byte]))
        except OSError:
            pass  # refused before the last byte
        assert_refused(client.read_answer(), 400, "invalid_request")


def test_it_keeps_the_clients_request_id_in_a_refusal(server: LiveServer) -> None:
    with RawClient(server) as client:
        answer = client.get("/", b"X-Request-ID: mine-1\r\nContent-Length: 3000000\r\n")
        assert_refused(answer, 413, "request_too_large")
        assert answer.headers["x-olla-request-id"] == "mine-1"


def test_it_shapes_a_refusal_for_the_path(server: LiveServer) -> None:
    with RawClient(server) as client:
        answer = client.get("/olla/anthropic/v1/messages", b"Content-Length: 3000000\r\n")
        assert answer.json()["type"] == "error"


def test_it_refuses_a_declared_body_over_the_limit_without_reading_it(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(POST + b"Content-Length: 2097153\r\n\r\n")
        assert_refused(client.read_answer(), 413, "request_too_large")


def test_it_takes_a_body_of_exactly_the_limit(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(POST + b"Content-Length: 2097152\r\n\r\n" + b"x" * 2097152)
        assert client.read_answer().json()["body"] == "2097152 bytes"


def test_it_sends_no_100_continue_before_a_413(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
        assert_refused(client.read_answer(), 413, "request_too_large")


def test_it_refuses_a_chunked_body_once_it_is_over_the_limit(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(CHUNKED)
        for _ in range(40):  # half a megabyte over: dropped, so that the answer can be read
            client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert_refused(client.read_answer(), 413, "request_too_large")


def test_it_closes_on_a_client_that_goes_on_sending(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(CHUNKED)

        def send_forever() -> None:
            while True:
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        with pytest.raises(OSError, match=r"reset|pipe"):
            send_forever()


def test_it_refuses_framing_without_content(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(CHUNKED + b"1;" + b"a" * 100_000)
        assert_refused(client.read_answer(), 400, "invalid_request")


@pytest.mark.parametrize("ending", [b"\r\n\r\n", b""])
def test_it_refuses_large_heads(server: LiveServer, ending: bytes) -> None:
    with RawClient(server) as client:
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 17_000 + ending)
        assert_refused(client.read_answer(), 431, "headers_too_large")


def test_it_refuses_a_large_target(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET /" + b"x" * 17_000)
        assert_refused(client.read_answer(), 431, "headers_too_large")


def test_it_refuses_600_headers(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 600 + b"\r\n")
        assert_refused(client.read_answer(), 431, "headers_too_large")


def test_it_times_out_slow_heads(server: LiveServer) -> None:
    with RawClient(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHos")
        assert_refused(client.read_answer(), 408, "request_timeout")


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_it_times_out_stalled_bodies(server: LiveServer, framing: bytes) -> None:
    with RawClient(server) as client:
        client.send(POST + framing + b"\r\n\r\n")
        assert_refused(client.read_answer(), 408, "request_timeout")


def test_it_refuses_uploads_beyond_the_budget_while_small_requests_go_on(server: LiveServer) -> None:
    whole = POST.replace(b"/x", b"/held-until-told") + b"Content-Length: 1900000\r\n\r\n" + b"x" * 1_900_000
    with RawClient(server) as first, RawClient(server) as second, RawClient(server) as third:
        first.send(whole)
        second.send(whole)
        wait_for(lambda: stats(server)["budget"] == 3_800_000)
        third.send(POST + b"Content-Length: 1900000\r\n\r\n")
        answer = third.read_answer()
        assert_refused(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        with RawClient(server) as small:
            small.send(POST + b"Content-Length: 5\r\n\r\nhello")
            assert small.read_answer().json()["body"] == "hello"
            small.send(b"GET /let-go HTTP/1.1\r\n" + HOST + b"\r\n")
            assert small.read_answer().body == b"done"
        assert first.read_answer().body == second.read_answer().body == b"done"


def test_it_refuses_a_chunked_upload_that_outgrows_the_budget(server: LiveServer) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    clients = [RawClient(server).send(CHUNKED.replace(b"/x", b"/held")) for _ in range(3)]
    for _ in range(25):
        for client in clients:
            client.send(chunk)
    answers = []
    for client in clients:
        with contextlib.suppress(OSError):  # the one that was refused may be closed by now
            client.send(b"0\r\n\r\n")
        answers.append(client.read_answer())
        client.socket.close()
    assert sorted(answer.status for answer in answers) == [200, 200, 503]
    assert_refused(next(answer for answer in answers if answer.status == 503), 503, "overloaded")
