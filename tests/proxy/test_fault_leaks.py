"""No fault costs memory: however often it is met, everything that was made for it goes again."""

from __future__ import annotations

import asyncio
import gc
import heapq
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from endpoints.transport import Transport
from proxy.finished import flush
from proxy.live import live
from proxy.upstream import close_door, door, open_door
from tests.fakes import Raw, ScriptedBackend, Silence, Step, come_true, refused_origin
from tests.proxy.conftest import Proxy
from tests.proxy.test_faults import FAULTS, JSON, KINDS, SSE, Fault, Kind, add, ask, resolving

AT_ONCE = 15
# In all, for tables that take their next size, and for each request: one that leaks costs hundreds of blocks.
MOST_OBJECTS, MOST_BLOCKS, MOST_BLOCKS_EACH = 10, 150, 1

Meet = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def quiet(settings: Any, frozen_heap: None) -> Iterator[None]:
    """Without pytest's own collection of log records, with a heap in which only what is new is looked at."""
    settings.OLLA_BREAKER_THRESHOLD = 0
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
async def one_thread() -> None:
    """Names are looked up in one thread: how many a pool has by a certain round is a matter of luck."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


@pytest.fixture
def rounds(long_form: bool) -> int:
    """How often AT_ONCE requests meet a fault at the same time."""
    return 10 if long_form else 1


def count_memory() -> tuple[int, int]:
    """The objects that may refer to others, and the blocks of memory, that Python has in use."""
    loop: Any = asyncio.get_running_loop()
    # The loop keeps up to a hundred timers that were cancelled: they are no leak, and more than is looked for.
    loop._scheduled = [each for each in loop._scheduled if not each.cancelled()]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()


async def assert_no_growth(
    meet: Meet, rounds: int, backend: ScriptedBackend | None = None, at_once: int = AT_ONCE
) -> None:
    """The memory in use after one round is that of after many more, and no request or connection is left."""
    in_use = []
    for count in (1, rounds):
        for _ in range(count):
            await asyncio.gather(*(meet() for _ in range(at_once)))
            live.resting.clear()
            live.demoted.clear()
        await _settle(backend)
        in_use.append(count_memory())
    objects, blocks = (after - before for before, after in zip(*in_use, strict=True))
    assert objects <= MOST_OBJECTS
    assert blocks <= MOST_BLOCKS + MOST_BLOCKS_EACH * rounds * at_once


async def _settle(backend: ScriptedBackend | None) -> None:
    """Nothing is in flight, no record waits and every connection of the door is idle; these are closed, for their
    number varies."""
    async with asyncio.timeout(10):
        while live.in_flight or len(set(door().transport.count_connections())) > 1:
            await asyncio.sleep(0.01)
    flush()  # records wait for up to a tenth of a second to be told of
    if backend is None:
        await come_true(lambda: door().transport.is_idle)  # it forgets at its next look whom it could not reach
    else:
        await close_door()
        await backend.wait_all_closed(within=10)
        backend.forget()


def one_of_the_kinds() -> list[Any]:
    """Each fault with one kind of answer, each kind in its turn; in the long form they all come to all."""
    return [
        pytest.param(fault, KINDS[number % len(KINDS)], id=f"{fault.slug()}-{KINDS[number % len(KINDS)].name}")
        for number, fault in enumerate(FAULTS)
    ]


@pytest.mark.parametrize(("fault", "kind"), one_of_the_kinds())
async def test_a_fault_costs_no_memory(
    proxy: Proxy, fault: Fault, kind: Kind, rounds: int, long_form: bool
) -> None:
    for each in KINDS if long_form else [kind]:
        live.reset()
        async with ScriptedBackend(fault.play(each)) as backend:
            await add(proxy, each, backend.url, limit=fault.limit)
            at_once = 1 if fault.name == "ten thousand chunks" else AT_ONCE  # each is as much work as a thousand
            await assert_no_growth(lambda: ask(proxy, each).done(within=60), rounds, backend, at_once)  # noqa: B023
        await proxy.clear()


def _no_such_name(host: str) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")


@pytest.mark.parametrize("answers", [_no_such_name, lambda _: ["169.254.169.254"]], ids=["no-name", "metadata"])
async def test_a_name_of_no_use_costs_no_memory(proxy: Proxy, answers: Any, rounds: int) -> None:
    live.reset()
    resolving(answers)
    await add(proxy, JSON, "http://gpu.example:8000")
    await assert_no_growth(lambda: _ask_and_settle(proxy), rounds)


async def test_a_refused_connection_costs_no_memory(proxy: Proxy, rounds: int) -> None:
    live.reset()
    with refused_origin() as origin:
        await add(proxy, JSON, f"http://{origin.authority}")
        await assert_no_growth(lambda: _ask_and_settle(proxy), rounds)


async def _ask_and_settle(proxy: Proxy) -> None:
    await ask(proxy, JSON).done()
    await proxy.settled(within=10)  # the report to the prober


LEFT_AT: dict[str, Step] = {
    "before-the-head": Silence(),
    "inside-the-head": Raw(SSE.raw()[:30]),
    "before-the-body": Raw(SSE.raw()),
    "inside-the-body": Raw(SSE.raw(SSE.parts[0])),
}


@asynccontextmanager
async def leaving(proxy: Proxy, step: Step) -> AsyncIterator[tuple[Meet, ScriptedBackend]]:
    """A client that asks and leaves when its backend has come so far."""
    async with ScriptedBackend(step) as backend:
        await add(proxy, SSE, backend.url)

        async def ask_and_leave() -> None:
            before = len(backend.requests)
            exchange = ask(proxy, SSE)
            await backend.wait_requests(before + 1)
            exchange.leave()
            await exchange.done()

        yield ask_and_leave, backend


@pytest.mark.parametrize("stage", LEFT_AT)
async def test_a_client_that_leaves_costs_no_memory(proxy: Proxy, stage: str, rounds: int) -> None:
    live.reset()
    async with leaving(proxy, LEFT_AT[stage]) as (meet, backend):
        await assert_no_growth(meet, rounds, backend)


async def test_a_client_that_leaves_while_a_name_is_looked_up_costs_no_memory(proxy: Proxy, rounds: int) -> None:
    live.reset()
    asked = asyncio.Semaphore(0)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        asked.release()
        await asyncio.Event().wait()
        return []

    open_door(Transport(resolver=resolve))
    await add(proxy, JSON, "http://gpu.example:8000", connect_timeout=30)

    async def ask_and_leave() -> None:
        exchange = ask(proxy, JSON)
        await asked.acquire()
        exchange.leave()
        await exchange.done()

    await assert_no_growth(ask_and_leave, rounds)
