"""Long work on the event loop in slices; a huge message beside other clients' streams."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise

import pytest

from proxy.pacing import SLICE_SECONDS, Pacer
from tests.fakes import Conn, ScriptedBackend
from tests.proxy.anthropic_builders import CHUNKS, HEAD, MESSAGES, ask, chat_stream
from tests.proxy.conftest import Proxy
from translation.anthropic_request import parse_request
from translation.openai_request import TranslationOptions, build_openai_request
from translation.steps import Steps


def busy(steps: int, log: list[str] | None = None, name: str = "") -> Steps[str]:
    """Steps that take a slice each."""
    try:
        for _ in range(steps):
            end = time.monotonic() + SLICE_SECONDS
            while time.monotonic() < end:
                pass
            if log is not None:
                log.append(name)
            yield
    finally:
        if log is not None:
            log.append(f"{name} closed")
    return name


async def test_it_does_what_fits_one_slice_at_once() -> None:
    others: list[int] = []
    asyncio.get_running_loop().call_soon(others.append, 1)

    def short() -> Steps[str]:
        yield
        return "done"

    assert await Pacer().take(short()) == "done"
    assert others == []


async def test_it_lets_others_go_on_between_slices() -> None:
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.get_running_loop().create_task(go_on())
    assert await Pacer().take(busy(10, name="done")) == "done"
    other.cancel()
    assert turns >= 10


async def test_it_does_one_long_work_after_the_other() -> None:
    pacer, log = Pacer(), list[str]()
    await asyncio.gather(pacer.take(busy(4, log, "a")), pacer.take(busy(4, log, "b")))
    # The first slice of each is taken before anybody knows that it is long.
    assert log == ["a", "b", "a", "a", "a", "a closed", "b", "b", "b", "b closed"]


async def test_it_stops_for_whoever_has_left_and_goes_on_for_others() -> None:
    pacer, log = Pacer(), list[str]()
    leaving = asyncio.get_running_loop().create_task(pacer.take(busy(1000, log, "a")))
    staying = asyncio.get_running_loop().create_task(pacer.take(busy(3, log, "b")))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await staying == "b"
    assert log.count("a") < 1000
    assert "a closed" in log


async def test_it_passes_a_failure_on_and_goes_on_for_others() -> None:
    def failing() -> Steps[None]:
        yield from busy(3)
        raise ValueError("no")

    pacer = Pacer()
    with pytest.raises(ValueError, match="no"):
        await pacer.take(failing())
    assert await pacer.take(busy(3, name="b")) == "b"


def huge_message(size: int) -> bytes:
    """A conversation of very many tiny turns."""
    pair = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    turns = [*pair * (size // len(json.dumps(pair))), pair[0]]
    return json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode()


@pytest.mark.usefixtures("frozen_heap")
async def test_a_huge_message_does_not_hold_up_another_clients_stream(proxy: Proxy, long_form: bool) -> None:
    body = huge_message(8_000_000 if long_form else 1_500_000)
    begun = time.thread_time()
    build_openai_request(parse_request(body), TranslationOptions())
    whole = time.thread_time() - begun
    over = asyncio.Event()

    async def trickle(conn: Conn) -> None:
        await conn.request()
        line = b"data: " + json.dumps(CHUNKS[1]).encode() + b"\n\n"
        conn.write(HEAD)
        while not over.is_set():
            conn.write(b"%x\r\n%b\r\n" % (len(line), line))
            await conn.drain()
            await asyncio.sleep(0)
        conn.write(b"%x\r\n%b\r\n0\r\n\r\n" % (14, b"data: [DONE]\n\n"))

    async with ScriptedBackend(trickle) as slow, ScriptedBackend(chat_stream()) as other:
        await proxy.add(slow.url, "slow", ["streamed"])
        await proxy.add(other.url, "other", ["m"])
        stream = proxy.open("POST", MESSAGES, {**ask(stream=True), "model": "streamed"})
        await stream.wait_bytes(1000)
        message = proxy.open("POST", MESSAGES, body)
        arrivals: list[float] = []
        while not message.task.done():
            # CPU time of the loop between two chunks, whatever other threads and the machine were doing.
            arrivals.append(time.thread_time())
            async with asyncio.timeout(30), stream.arrived:
                before = len(stream.chunks)
                await stream.arrived.wait_for(lambda seen=before: len(stream.chunks) > seen)  # type: ignore[misc]
        over.set()
        await stream.done()
        assert (await message.done()).status == 200
    assert max(after - before for before, after in pairwise(arrivals)) < whole / 2
    assert len(other.requests[0].json()["messages"]) == len(json.loads(body)["messages"])


async def test_it_stops_translating_for_a_client_that_left(proxy: Proxy) -> None:
    async with ScriptedBackend(chat_stream()) as backend:
        await proxy.add(backend.url)
        exchange = proxy.open("POST", MESSAGES, huge_message(1_000_000))
        await asyncio.sleep(0)
        exchange.left.set()
        await exchange.done()
        await proxy.settled()
        assert backend.requests == []
