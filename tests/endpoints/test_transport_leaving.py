"""Leaving early at every stage, and staying flat when the consumer is slow."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from endpoints.addressing import Origin
from endpoints.transport import TLS, Limits, NothingReceived, Request, Target
from tests.endpoints.door import GET, chunked_post, open_transport, post
from tests.fakes import Conn, Raw, Reply, ScriptedBackend, Silence, come_true, refused_origin, stream_of


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel and see it end so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_can_be_cancelled_while_resolving():
    asked = asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with open_transport(resolver=resolver) as transport:
        task = asyncio.ensure_future(transport.send(Target(Origin("http", "slow.test", 80)), GET))
        await asked.wait()
        await cancel(task)
        assert transport.count_connections() == (0, 0)


async def test_it_can_be_cancelled_while_connecting():
    async with ScriptedBackend() as backend, open_transport() as transport:
        for rounds in range(6):
            task = asyncio.ensure_future(transport.send(Target(backend.origin), GET))
            for _ in range(rounds):
                await asyncio.sleep(0)
            if not task.done():
                await cancel(task)
            await asyncio.sleep(0.01)
            await backend.wait_all_closed()
            assert transport.count_connections() == (0, 0)


async def test_it_can_be_cancelled_during_the_handshake(tmp_path):
    async def script(conn: Conn) -> None:
        await conn.gone.wait()

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        task = asyncio.ensure_future(
            transport.send(Target(Origin("https", "127.0.0.1", backend.port), TLS(verify=False)), GET)
        )
        await backend.wait_connections(1)
        await backend.wait_for(lambda: backend.connections == 1, 1, "a connection")
        await asyncio.sleep(0.05)
        await cancel(task)
        await backend.wait_closed(1)


async def test_it_can_be_cancelled_while_writing():
    async def script(conn: Conn) -> None:
        conn.stop_reading()
        await conn.gone.wait()

    async with ScriptedBackend(script, read_limit=4096) as backend, open_transport() as transport:
        task = asyncio.ensure_future(transport.send(Target(backend.origin), post(b"x" * 20_000_000)))
        await backend.wait_connections(1)
        await asyncio.sleep(0.05)
        await cancel(task)
        assert transport.count_connections()[1] == 0
        backend.conns[0].resume_reading()
        await backend.wait_closed(1)
        assert backend.conns[0].total_received < 20_000_000


async def test_it_can_be_cancelled_while_the_body_is_being_made():
    async with ScriptedBackend() as backend, open_transport() as transport:
        task = asyncio.ensure_future(transport.send(Target(backend.origin), chunked_post(b"x", asyncio.Event())))
        await backend.wait_connections(1)
        await backend.wait_for(lambda: True, 1, "")
        await cancel(task)
        await backend.wait_closed(1)


async def test_it_closes_the_connection_when_the_body_fails():
    async def failing() -> AsyncIterator[bytes]:
        yield b"part"
        raise LookupError("gone")

    request = Request(b"POST", b"/", [(b"Transfer-Encoding", b"chunked")], failing())
    async with ScriptedBackend() as backend, open_transport() as transport:
        with pytest.raises(LookupError):
            await transport.send(Target(backend.origin), request)
        await backend.wait_closed(1)


async def test_it_can_be_cancelled_while_waiting_for_the_head():
    async with ScriptedBackend(Silence()) as backend, open_transport() as transport:
        task = asyncio.ensure_future(transport.send(Target(backend.origin), GET))
        await backend.wait_requests(1)
        await cancel(task)
        await backend.wait_closed(1, within=0.5)


async def test_it_can_be_cancelled_while_reading():
    async with ScriptedBackend(Reply(chunks=[b"a", asyncio.Event()])) as backend, open_transport() as transport:
        answer = await transport.send(Target(backend.origin), GET)
        assert await anext(answer) == b"a"
        task = asyncio.ensure_future(answer.read())
        await asyncio.sleep(0)
        await cancel(task)
        await backend.wait_closed(1, within=0.5)


async def test_it_frees_the_backend_at_once_when_an_answer_is_closed():
    async with ScriptedBackend(Reply(chunks=[b"a", 0.01] * 1000)) as backend, open_transport() as transport:
        answer = await transport.send(Target(backend.origin), GET)
        await anext(answer)
        await answer.aclose()
        await answer.aclose()
        await backend.wait_closed(1, within=0.5)
        with pytest.raises(Exception, match="closed"):
            await anext(answer)


async def test_it_ends_what_is_open_when_the_transport_closes():
    async with ScriptedBackend(Silence()) as backend, open_transport() as transport:
        target = Target(backend.origin, max_connections=1)
        tasks = [asyncio.ensure_future(transport.send(target, GET)) for _ in range(3)]
        await backend.wait_requests(1)
        await transport.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], NothingReceived)
        assert all(isinstance(result, Exception) for result in results)
        with pytest.raises(RuntimeError):
            await transport.send(target, GET)
        assert backend.connections == 1


async def test_it_keeps_memory_flat_and_the_backend_waiting_for_a_slow_consumer(long_form):
    size = (100 if long_form else 20) * 2**20
    piece = bytes(100_000)
    sent = 0

    async def script(conn: Conn) -> None:
        nonlocal sent
        await conn.request()
        conn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < size and not conn.gone.is_set():
            conn.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += len(piece)
            await conn.drain()
        conn.write(b"0\r\n\r\n")

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        answer = await transport.send(Target(backend.origin), GET)
        before = -1
        while before != sent:  # until the backend is stuck
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 15 * 2**20  # what the kernel's buffers hold, and no more
        tracemalloc.start()
        received = 0
        async for chunk in answer:
            received += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert received == sent >= size
        assert peak < 4 * 2**20


async def test_it_counts_a_stalled_upload_from_its_last_progress(monkeypatch):
    clock = 1000.0
    for module in ("transport", "pool", "dialing", "http1"):
        monkeypatch.setattr(f"endpoints.{module}.monotonic", lambda: clock)

    def deadline() -> float:
        busy = (each for pool in transport._pools.values() for each in pool._busy)
        return next((each.answer.deadline for each in busy if each.answer is not None), float("inf"))

    async def script(conn: Conn) -> None:
        nonlocal clock
        conn.stop_reading()
        await come_true(lambda: clock < deadline() < float("inf"))
        for _ in range(5):
            clock += 60
            while deadline() < clock + 100:  # until it is noticed that some of it has gone
                conn.resume_reading()
                await asyncio.sleep(0.001)
                conn.stop_reading()
                await asyncio.sleep(0.02)
        conn.resume_reading()
        request = await conn.request()
        assert request is not None
        await conn.play(Reply(body=b"%d" % len(request.body)), request)

    async with ScriptedBackend(script) as backend, open_transport() as transport:
        upload = transport.send(Target(backend.origin), post(b"x" * 60_000_000), Limits(first_byte=100))
        async with asyncio.timeout(60):
            answer = await upload
        assert await answer.read() == b"60000000"


# -- behind httpx


async def test_it_serves_httpx_clients():
    async with ScriptedBackend(Reply(201, [(b"X-A", b"1"), (b"x-a", b"2")], b"made", reason=b"Made")) as backend:
        async with open_transport() as transport, httpx.AsyncClient(transport=transport) as client:
            response = await client.post(f"{backend.url}/v1?a=b", json={"q": 1})
            assert (response.status_code, response.reason_phrase, response.text) == (201, "Made", "made")
            assert response.http_version == "HTTP/1.1"
            assert response.headers.raw[:2] == [(b"X-A", b"1"), (b"x-a", b"2")]
        assert backend.requests[0].target == b"/v1?a=b"
        assert backend.requests[0].json() == {"q": 1}


async def test_it_streams_for_httpx():
    async with ScriptedBackend(Reply(chunks=[b"a", 0.01, b"b"])) as backend:
        async with open_transport() as transport, httpx.AsyncClient(transport=transport) as client:
            async with client.stream("POST", backend.url, content=stream_of(b"x", b"y")) as response:
                assert [chunk async for chunk in response.aiter_raw()] == [b"a", b"b"]
            async with client.stream("GET", backend.url) as response:
                pass
        assert backend.requests[0].body == b"xy"


async def test_it_sends_the_raw_target_for_httpx():
    async with ScriptedBackend() as backend, open_transport() as transport:
        request = httpx.Request(
            "GET", backend.url, headers=[(b"A", b"1")], stream=httpx.ByteStream(b""),
            extensions={"target": b"/a%2fb/../c", "destination": Target(backend.origin), "limits": Limits()},
        )  # fmt: skip
        response = await transport.handle_async_request(request)
        await response.aclose()
        assert backend.requests[0].target == b"/a%2fb/../c"


@pytest.mark.parametrize(
    ("step", "error", "patience"),
    [
        (Silence(), httpx.ReadTimeout, 0.1),
        (Raw(b"garbage\r\n\r\n"), httpx.RemoteProtocolError, 30),
        (Reply(chunks=[b"a", asyncio.Event()]), httpx.ReadTimeout, 0.1),
        (Reply(body=b"half", length=9), httpx.ReadError, 30),
        (Reply(body=b"", length=9), httpx.ReadError, 30),
    ],
)
async def test_it_raises_httpx_errors_to_httpx(step, error, patience):
    async with (
        ScriptedBackend(step) as backend,
        open_transport() as transport,
        httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(30, read=patience)) as client,
    ):
        with pytest.raises(error) as caught:
            await client.get(backend.url)
        assert type(caught.value) is error
        assert caught.value.__cause__ is not None


async def test_it_raises_connect_error_to_httpx():
    with refused_origin() as origin:
        async with open_transport() as transport, httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{origin.port}/")
