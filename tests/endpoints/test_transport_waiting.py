"""Waiting for a piece of an answer with a limit of the caller's own, and nothing lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from endpoints.transport import IdleTimeout, Limits, LostMidBody, Target, Transport
from tests.endpoints.door import GET, open_transport
from tests.fakes import Cut, Raw, Reply, ScriptedBackend

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport whose leftovers fail the test."""
    async with open_transport() as transport:
        yield transport


async def test_it_says_whether_a_piece_has_come_and_loses_none(transport):
    gate = asyncio.Event()
    async with ScriptedBackend(Reply(chunks=[b"one", gate, b"two"])) as backend:
        answer = await transport.send(Target(backend.origin), GET)
        assert await answer.arrives(5, monotonic())
        assert await anext(answer) == b"one"
        assert not await answer.arrives(0.05, monotonic())
        assert not await answer.arrives(0.05, monotonic())
        gate.set()
        assert await answer.arrives(5, monotonic())
        assert await answer.read() == b"two"
        assert await answer.arrives(5, monotonic())  # the end has come


async def test_it_heeds_the_idle_limit_across_several_waits(transport):
    async with ScriptedBackend(Raw(HEAD)) as backend:
        answer = await transport.send(Target(backend.origin), GET, Limits(idle=30))
        since = monotonic()
        for _ in range(2):
            assert not await answer.arrives(0.05, since)
        assert await answer.arrives(5, since - 31)
        with pytest.raises(IdleTimeout):
            await anext(answer)


async def test_it_counts_a_failure_as_news(transport):
    async with ScriptedBackend(Cut(HEAD)) as backend:
        answer = await transport.send(Target(backend.origin), GET)
        assert await answer.arrives(5, monotonic())
        with pytest.raises(LostMidBody):
            await anext(answer)
