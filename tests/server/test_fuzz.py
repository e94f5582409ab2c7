"""Whatever bytes come: the server answers or closes, forgets the client and goes on."""

from __future__ import annotations

import os
import socket

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live import LiveServer
from tests.server.raw import HOST, RawClient

EXAMPLES = 3000 if os.environ.get("OLLA_TEST_SIZE") == "long" else 200
PIECES = [
    b"GET ", b"POST ", b"/", b"/x?a=b", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", HOST,
    b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"X_Y: z\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"ffff\r\n", b";x=y",
    b"\x00", b"\xff\xfe", b":", b" ", b"hello",
    b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
]  # fmt: skip
writes = st.lists(
    st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.binary(max_size=64)), max_size=6
)


@given(writes)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_survives_any_bytes(server: LiveServer, data: list[bytes]) -> None:
    client = RawClient(server)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for part in data:
            client.send(part)
        client.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # refused and closed before the last byte
    while client.read_more():
        pass
    client.socket.close()
    assert not client.buffer or client.buffer.startswith(b"HTTP/1.1 ")


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_reads_the_same_requests_however_they_are_cut(server: LiveServer, data: st.DataObject) -> None:
    stream = (
        b"POST /1 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
        b"POST /2 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        b"2\r\n\r\n\r\n3;a\r\n\r\n\r\r\n0\r\nT: x\r\n\r\n"
        b"GET /3 HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    with RawClient(server) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            client.send(stream[begin:end])
        answers = [client.read_answer().json() for _ in range(3)]
    assert [(answer["path"], answer["body"]) for answer in answers] == [
        ("/1", "hello"),
        ("/2", "\r\n\r\n\r"),
        ("/3", ""),
    ]
