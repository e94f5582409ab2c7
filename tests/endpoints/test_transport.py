"""Exchanges over real sockets: what goes out, what comes back, what is reused, which failure is which."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from endpoints.addressing import Origin
from endpoints.outgoing import write_lines
from endpoints.transport import (
    BadAnswer,
    CutHead,
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    Limits,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
    Request,
    Target,
    TotalTimeout,
    Transport,
)
from tests.endpoints.door import GET, HEAD, chunked_post, fetch, open_transport, post
from tests.fakes import (
    CONTINUE,
    Conn,
    Cut,
    Framing,
    Raw,
    Reply,
    ScriptedBackend,
    Silence,
    gzip_reply,
    redirect_reply,
    refused_origin,
    stream_of,
)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport whose leftovers fail the test."""
    async with open_transport() as transport:
        yield transport


# -- what goes out


async def test_it_sends_exactly_the_given_bytes(transport):
    headers = [(b"hOsT", b"a"), (b"X-Two", b"1"), (b"x-two", b"2"), (b"Content-Length", b"2"), (b"A", b"\xff ;")]
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, Request(b"POST", b"/a%2Fb?q=%20", headers, b"{}"))
    assert backend.requests[0].raw == (
        b"POST /a%2Fb?q=%20 HTTP/1.1\r\nhOsT: a\r\nX-Two: 1\r\nx-two: 2\r\nContent-Length: 2\r\nA: \xff ;\r\n"
        b"\r\n{}"
    )


async def test_it_frames_a_streamed_body_as_chunks(transport):
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, chunked_post(b"one", b"", b"three"))
    assert backend.requests[0].raw.endswith(b"\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")


async def test_it_sends_a_streamed_body_of_known_length_as_it_is(transport):
    request = Request(b"POST", b"/", [(b"Content-Length", b"8")], stream_of(b"one", b"three"))
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, request)
    assert backend.requests[0].body == b"onethree"


async def test_it_sends_a_large_body_whole(transport):
    body = bytes(range(256)) * 20_000
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, post(body))
        await fetch(transport, backend, post(body))
    assert [request.body == body for request in backend.requests] == [True, True]
    assert backend.connections == 1


@pytest.mark.parametrize(
    "request_",
    [
        Request(b"GET", b"/ HTTP/1.1\r\nX: y", []),
        Request(b"GET /", b"/", []),
        Request(b"GET", b"/a b", []),
        Request(b"GET", b"/", [(b"X", b"a\r\nY: b")]),
        Request(b"GET", b"/", [(b"X", b"a\nY: b")]),
        Request(b"POST", b"/", [], b"unframed"),
        Request(b"POST", b"/", [(b"Content-Length", b"1_0")], b"0123456789"),
        Request(b"POST", b"/", [(b"Content-Length", b"1"), (b"content-length", b"1")], b"x"),
        Request(b"POST", b"/", [(b"Transfer-Encoding", b"gzip, chunked")], b"x"),
        Request(b"POST", b"/", [(b"Content-Length", b"9")], b"short"),
        Request(b"POST", b"/", [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")], b"x"),
    ],
)
async def test_it_refuses_to_send_what_would_be_read_differently(transport, request_):
    async with ScriptedBackend() as backend:
        with pytest.raises(ValueError, match=r"."):
            await transport.send(Target(backend.origin), request_)
        assert backend.connections == 0


async def test_it_sends_lines_written_before_ahead_of_the_other_headers(transport):
    lines = write_lines([(b"Host", b"x"), (b"Accept", b"a"), (b"accept", b"b")])
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, Request(b"POST", b"/", [(b"Content-Length", b"2")], b"{}", lines))
    assert backend.requests[0].raw == (
        b"POST / HTTP/1.1\r\nHost: x\r\nAccept: a\r\naccept: b\r\nContent-Length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    "header",
    [
        (b"X", b"a\r\nY: b"), (b"X", b"a\nY: b"), (b"X", b"a\rY: b"), (b"X\r\nY", b"b"), (b"X", b"a\n\r"),
        (b"Content-Length", b"1"), (b"transfer-Encoding", b"chunked"),
    ],
)  # fmt: skip
def test_it_writes_no_lines_that_would_be_read_differently(header):
    with pytest.raises(ValueError, match=r"line break|frames a body"):
        write_lines([(b"Host", b"x"), header])


@pytest.mark.parametrize("declared", [b"2", b"99"])
async def test_it_closes_the_connection_when_a_streamed_body_breaks_its_promise(transport, declared):
    request = Request(b"POST", b"/", [(b"Content-Length", declared)], stream_of(b"one", b"three"))
    async with ScriptedBackend() as backend:
        with pytest.raises(ValueError, match="Content-Length"):
            await transport.send(Target(backend.origin), request)
        await backend.wait_closed(1)


# -- what comes back


async def test_it_gives_the_head_as_received(transport):
    headers = [(b"X-A", b"1"), (b"x-a", b"2"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=\xe9")]
    async with ScriptedBackend(Reply(418, headers, b"tea", reason=b"I am a teapot")) as backend:
        answer, body = await fetch(transport, backend)
    assert (answer.status, answer.reason, answer.http_version, body) == (418, b"I am a teapot", "1.1", b"tea")
    assert answer.headers == [*headers, (b"Content-Length", b"3")]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(body=b"counted"), b"counted"),
        (Reply(body=b""), b""),
        (Reply(chunks=[b"a", b"bc"], trailers=[(b"X-Sum", b"1")]), b"abc"),
        (Reply(body=b"to the end", framing=Framing.CLOSE), b"to the end"),
        (Reply(body=b"old", version=b"1.0", framing=Framing.CLOSE), b"old"),
        (Reply(body=b"old", version=b"1.0"), b"old"),
        (Reply(204, framing=Framing.CLOSE), b""),
        (Reply(304, length=10, body=b""), b""),
        (Reply(body=b"after", interim=CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), b"after"),
    ],
)
async def test_it_reads_every_kind_of_body(transport, reply, expected):
    async with ScriptedBackend(reply) as backend:
        _, body = await fetch(transport, backend)
    assert body == expected


async def test_it_expects_no_body_after_head(transport):
    async with ScriptedBackend(Reply(body=b"x" * 10)) as backend:
        first, body = await fetch(transport, backend, HEAD)
        second, _ = await fetch(transport, backend, HEAD)
    assert (first.status, body, second.reused) == (200, b"", True)


async def test_it_passes_compressed_bytes_and_redirects_on(transport):
    async with ScriptedBackend([gzip_reply(b"{}"), redirect_reply("http://127.0.0.1:1/")]) as backend:
        _, body = await fetch(transport, backend)
        moved, _ = await fetch(transport, backend)
    assert body == gzip_reply(b"{}").body
    assert moved.status == 302
    assert len(backend.requests) == 2


async def test_it_hands_out_pieces_as_they_come(transport):
    go = asyncio.Event()
    async with ScriptedBackend(Reply(chunks=[b"first", go, b"second"])) as backend:
        answer = await transport.send(Target(backend.origin), GET)
        assert await anext(answer) == b"first"
        go.set()
        assert await anext(answer) == b"second"
        with pytest.raises(StopAsyncIteration):
            await anext(answer)


# -- failures, each with what the backend saw


async def test_it_names_a_refused_connection(transport):
    with refused_origin() as origin, pytest.raises(NotConnected) as caught:
        await transport.send(Target(origin), GET)
    assert caught.value.reason is NotConnectedReason.REFUSED


@pytest.mark.parametrize("rst", [False, True])
async def test_it_names_a_connection_that_died_before_the_answer(transport, rst):
    async with ScriptedBackend(Cut(b"", rst=rst)) as backend:
        with pytest.raises(NothingReceived) as caught:
            await transport.send(Target(backend.origin), GET)
        assert not caught.value.reused
        assert len(backend.requests) == 1


@pytest.mark.parametrize("rst", [False, True])
async def test_it_tells_when_the_dead_connection_was_a_reused_one(transport, rst):
    async with ScriptedBackend([Reply(body=b"ok"), Cut(b"", rst=rst)]) as backend:
        await fetch(transport, backend)
        with pytest.raises(NothingReceived) as caught:
            await transport.send(Target(backend.origin), GET)
        assert caught.value.reused
        assert (backend.connections, len(backend.requests)) == (1, 2)


async def test_it_names_silence(transport):
    async with ScriptedBackend(Silence()) as backend:
        with pytest.raises(FirstByteTimeout):
            await transport.send(Target(backend.origin), GET, Limits(first_byte=0.05))
        await backend.wait_closed(1)
        assert len(backend.requests) == 1


async def test_it_counts_a_head_that_never_ends_as_no_first_byte(transport):
    async with ScriptedBackend(Raw([b"HTTP/1.1 200", 0.02, b" OK\r\nX: y\r\n"])) as backend:
        with pytest.raises(FirstByteTimeout):
            await transport.send(Target(backend.origin), GET, Limits(first_byte=0.1))
        await backend.wait_closed(1)


@pytest.mark.parametrize(
    "step",
    [
        Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", rst=True),
        Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        Cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
        Reply(body=b"half", length=10),
    ],
)
async def test_it_names_a_cut_body_after_handing_out_what_came(transport, step):
    async with ScriptedBackend(step) as backend:
        answer = await transport.send(Target(backend.origin), GET)
        assert await anext(answer) == b"half"
        with pytest.raises(LostMidBody):
            await anext(answer)
        await backend.wait_closed(1)


async def test_it_names_a_reset_instead_of_the_end_of_a_body(transport):
    go = asyncio.Event()
    async with ScriptedBackend(Cut([b"HTTP/1.0 200 OK\r\n\r\nhalf", go], rst=True)) as backend:
        answer = await transport.send(Target(backend.origin), GET)
        assert await anext(answer) == b"half"
        go.set()
        with pytest.raises(LostMidBody):
            await anext(answer)


async def test_it_names_a_body_that_stalls(transport):
    async with ScriptedBackend(Reply(chunks=[b"a", asyncio.Event()])) as backend:
        answer = await transport.send(Target(backend.origin), GET, Limits(idle=0.05))
        assert await anext(answer) == b"a"
        with pytest.raises(IdleTimeout):
            await anext(answer)
        await backend.wait_closed(1)


async def test_it_does_not_count_our_own_slowness_as_the_backends(transport):
    async with ScriptedBackend(Reply(chunks=[b"a", b"b"])) as backend:
        answer = await transport.send(Target(backend.origin), GET, Limits(idle=0.1))
        await asyncio.sleep(0.5)
        assert await answer.read() == b"ab"


async def test_it_ends_an_exchange_that_takes_too_long_in_all(transport):
    async with ScriptedBackend(Reply(chunks=[b"a", 0.05] * 100)) as backend:
        answer = await transport.send(Target(backend.origin), GET, Limits(total=0.3))
        with pytest.raises(TotalTimeout):
            await answer.read()
        await backend.wait_closed(1)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000,
    ],
)
async def test_it_refuses_answers_that_are_not_clear_http(transport, raw):
    async with ScriptedBackend(Raw(raw)) as backend:
        with pytest.raises(BadAnswer):
            await transport.send(Target(backend.origin), GET)
        await backend.wait_closed(1)


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n", b"-1\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\nhello\n",
        b"5\r\nhelloX\r\n",  b"\r\n", b"fffffffffffffffff\r\n", b"5;" + b"a" * 70_000,
        b"0\r\n" + b"T: a\r\n" * 20_000,
    ],
)  # fmt: skip
async def test_it_refuses_bad_chunk_framing(transport, chunks):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with ScriptedBackend(Raw(head + chunks)) as backend:
        with pytest.raises(BadAnswer):
            await fetch(transport, backend)
        await backend.wait_closed(1)


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("kind", sorted(ANSWERS))
async def test_it_never_mistakes_a_cut_answer_for_a_whole_one(transport, kind):
    whole = ANSWERS[kind]
    head_end = whole.rindex(b"OK\r\n") + whole[whole.rindex(b"OK\r\n") :].index(b"\r\n\r\n") + 4

    async def outcome(cut: int) -> type[DoorError] | bytes:
        async with ScriptedBackend(Cut(whole[:cut])) as backend:
            try:
                return (await fetch(transport, backend))[1]
            except DoorError as error:
                return type(error)

    for cut in range(len(whole) + 1):
        expected: type[DoorError] | bytes = LostMidBody
        if cut == 0:
            expected = NothingReceived
        elif cut < head_end:
            expected = CutHead
        elif cut == len(whole):
            expected = b"hello"
        assert await outcome(cut) == expected, cut


@pytest.mark.parametrize("kind", sorted(ANSWERS))
async def test_it_reads_an_answer_split_at_every_byte(transport, kind):
    whole = ANSWERS[kind]
    for cut in range(1, len(whole)):
        async with ScriptedBackend(Raw([whole[:cut], 0.001, whole[cut:]])) as backend:
            assert (await fetch(transport, backend))[1] == b"hello", cut


# -- an answer before the request is sent


async def test_it_relays_an_answer_that_comes_before_the_body_is_sent(transport):
    async def script(conn: Conn) -> None:
        await conn.request_head()
        conn.write(Reply(413, body=b"too large").head() + b"too large")

    forever = asyncio.Event()
    async with ScriptedBackend(script) as backend:
        answer, body = await fetch(transport, backend, chunked_post(b"x" * 1000, forever, b"never"))
        await backend.wait_closed(1)
    assert (answer.status, body) == (413, b"too large")


async def test_it_finds_the_answer_when_its_own_write_failed_first(transport, caplog):
    # In a thread, because the reset must arrive while this loop is busy writing.
    def refuse(listener: socket.socket) -> None:
        for _ in range(20):
            conn, _ = listener.accept()
            with conn:
                conn.recv(4096)
                conn.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target(Origin("http", "127.0.0.1", listener.getsockname()[1]))
        refusing = asyncio.get_running_loop().run_in_executor(None, refuse, listener)
        for number in range(20):
            request = post(b"x" * 5_000_000) if number % 2 else chunked_post(*[b"x" * 60_000] * 80)
            assert await (await transport.send(target, request)).read() == b"too large"
        await refusing
    assert caplog.records == []


async def test_it_reads_the_answer_of_a_backend_that_refuses_a_large_body_and_closes(transport):
    async def script(conn: Conn) -> None:
        await conn.request_head()
        conn.stop_reading()
        conn.write(Reply(413, body=b"too large", headers=[(b"Connection", b"close")]).head() + b"too large")
        conn.close()

    async with ScriptedBackend(script) as backend:
        answer, body = await fetch(transport, backend, post(b"x" * 20_000_000))
    assert (answer.status, body) == (413, b"too large")
