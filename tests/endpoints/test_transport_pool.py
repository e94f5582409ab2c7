"""Which connections are used again, how many there are, and who gets the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from endpoints import pool
from endpoints.transport import (
    Limits,
    NotConnected,
    NotConnectedReason,
    Request,
    Target,
    Transport,
)
from tests.endpoints.door import GET, HEAD, chunked_post, fetch, open_transport, post, settle
from tests.fakes import Conn, Framing, Raw, Reply, ScriptedBackend, Silence


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport whose leftovers fail the test."""
    async with open_transport() as transport:
        yield transport


CLOSE = [(b"Connection", b"close")]
KEEP = [(b"Connection", b"keep-alive")]


@pytest.mark.parametrize(
    ("reply", "request_", "reused"),
    [
        (Reply(body=b"x"), GET, True),
        (Reply(body=b""), GET, True),
        (Reply(chunks=[b"x"]), GET, True),
        (Reply(chunks=[b"x"], trailers=[(b"T", b"1")]), GET, True),
        (Reply(204, framing=Framing.CHUNKED), HEAD, True),
        (Reply(body=b"x"), HEAD, True),
        (Reply(body=b"x"), post(b"{}"), True),
        (Reply(body=b"x"), post(b"x" * 300_000), True),
        (Reply(body=b"x", version=b"1.0", headers=KEEP), GET, True),
        (Reply(body=b"x", version=b"1.0"), GET, False),
        (Reply(body=b"x", headers=CLOSE), GET, False),
        (Reply(body=b"x", headers=[(b"connection", b"x, Close")]), GET, False),
        (Reply(body=b"x", framing=Framing.CLOSE), GET, False),
        (Reply(body=b"x", extra=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), GET, False),
        (Reply(body=b"x", extra=b"\r\n"), GET, False),
        (Reply(chunks=[b"x"], extra=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), GET, False),
        (Reply(chunks=[b"x"], extra=b"garbage"), GET, False),
        (Raw(b"HTTP/1.1 204 No Content\r\n\r\nx"), GET, False),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), HEAD, False),
    ],
)
async def test_it_reuses_a_connection_only_after_a_clean_end(transport, reply, request_, reused):
    async with ScriptedBackend(reply) as backend:
        first, body = await fetch(transport, backend, request_)
        second, again = await fetch(transport, backend, request_)
        assert (first.reused, second.reused) == (False, reused)
        assert body == again
        assert backend.connections == (1 if reused else 2)


async def test_it_does_not_reuse_a_connection_after_a_streamed_body_was_cut_short(transport):
    async def script(conn: Conn) -> None:
        while await conn.request_head():
            conn.write(Reply(body=b"early").head() + b"early")

    async with ScriptedBackend(script) as backend:
        await fetch(transport, backend, chunked_post(b"x", asyncio.Event()))
        answer, _ = await fetch(transport, backend, GET)
        assert not answer.reused


async def test_it_reuses_the_connection_after_a_streamed_upload(transport):
    async with ScriptedBackend() as backend:
        await fetch(transport, backend, chunked_post(b"x", 0.01, b"y"))
        answer, _ = await fetch(transport, backend, GET)
        assert answer.reused


async def test_it_never_hands_out_a_connection_the_backend_closed(transport):
    async with ScriptedBackend(Reply(body=b"x", close=True)) as backend:
        for _ in range(3):
            await fetch(transport, backend)
            await settle(lambda: transport.count_connections() == (0, 0))
        assert backend.connections == 3


async def test_it_closes_an_idle_connection_that_speaks_unasked(transport):
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.write(Reply(body=b"x").head() + b"x")
        await asyncio.sleep(0.01)
        conn.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend:
        await fetch(transport, backend)
        await backend.wait_closed(1)
        assert transport.count_connections() == (0, 0)


async def test_it_uses_the_connection_used_last(transport):
    async with ScriptedBackend(Reply(body=b"x")) as backend:
        answers = [await transport.send(Target(backend.origin), GET) for _ in range(3)]
        for answer in answers:
            await answer.read()
        await asyncio.gather(*[fetch(transport, backend) for _ in range(3)])
        for _ in range(5):
            await fetch(transport, backend)
        last = {request.connection for request in backend.requests[-5:]}
        assert len(last) == 1


async def test_it_drops_connections_idle_for_too_long(transport, monkeypatch):
    monkeypatch.setattr(pool, "IDLE_LIFETIME", 0.1)
    async with ScriptedBackend(Reply(body=b"x")) as backend:
        await fetch(transport, backend)
        assert transport.count_connections() == (1, 1)
        await backend.wait_closed(1)
        assert transport.count_connections() == (0, 0)


async def test_it_keeps_endpoints_with_other_tls_options_apart():
    from endpoints.addressing import Origin
    from endpoints.transport import TLS

    https = Origin("https", "Example.org", 443)
    assert Target(https).key != Target(https, TLS(verify=False)).key
    assert Target(https).key != Target(https, TLS(ca_file="/ca.pem")).key
    assert Target(https).key == Target(Origin("https", "example.org", 443), max_connections=5).key


async def test_it_serves_many_at_once(transport):
    async with ScriptedBackend(Reply(chunks=[b"a", 0.01, b"b"])) as backend:
        results = await asyncio.gather(*[fetch(transport, backend) for _ in range(100)])
        assert {body for _, body in results} == {b"ab"}
        assert len(backend.requests) == 100


async def test_it_queues_in_order_at_the_limit(transport):
    order: list[int] = []

    async def one(number: int) -> None:
        answer = await transport.send(target, Request(b"GET", b"/%d" % number, []))
        order.append(number)
        await answer.read()

    async with ScriptedBackend(Reply(chunks=[b"a", 0.01, b"b"])) as backend:
        target = Target(backend.origin, max_connections=2)
        await asyncio.gather(*[one(number) for number in range(10)])
        assert [request.target for request in backend.requests] == [b"/%d" % number for number in range(10)]
        assert backend.connections == 2
    assert sorted(order) == list(range(10))


async def test_it_gives_the_place_of_a_closed_connection_to_the_next(transport):
    async with ScriptedBackend(Reply(body=b"x", headers=CLOSE, before=0.01)) as backend:
        target = Target(backend.origin, max_connections=1)
        answers = await asyncio.gather(*[transport.send(target, GET) for _ in range(5)])
        assert {answer.status for answer in answers} == {200}
        assert backend.connections == 5


async def test_it_forgets_a_cancelled_waiter(transport):
    go = asyncio.Event()
    async with ScriptedBackend([Reply(chunks=[b"a", go]), Reply(body=b"x")]) as backend:
        target = Target(backend.origin, max_connections=1)
        first = await transport.send(target, GET)
        waiting = [asyncio.ensure_future(transport.send(target, GET)) for _ in range(3)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        go.set()
        await first.read()
        # The free connection is handed over in this very round: cancelled with it in its hands.
        waiting[1].cancel()
        answer = await waiting[2]
        assert await answer.read() == b"x"
        results = await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert transport.count_connections() == (1, 1)


async def test_it_says_so_when_every_connection_stays_busy(transport):
    async with ScriptedBackend(Silence()) as backend:
        target = Target(backend.origin, max_connections=1)
        busy = asyncio.ensure_future(transport.send(target, GET))
        await backend.wait_requests(1)
        with pytest.raises(NotConnected) as caught:
            await transport.send(target, GET, Limits(connect=0.05))
        assert caught.value.reason is NotConnectedReason.NO_FREE_CONNECTION
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        assert len(backend.requests) == 1


async def test_it_gives_a_place_back_when_connecting_fails(transport):
    from tests.fakes import refused_origin

    with refused_origin() as origin:
        target = Target(origin, max_connections=1)
        for _ in range(3):
            with pytest.raises(NotConnected) as caught:
                await transport.send(target, GET, Limits(connect=1))
            assert caught.value.reason is NotConnectedReason.REFUSED
