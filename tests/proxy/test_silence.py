"""Clients give up on five silent minutes: nothing a slow backend does lets a stream be silent for that long.

The time is passed in: to the streams as a number, to the event loop by skipping what nobody waits through.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from endpoints.conf import Conf
from proxy.anthropic_relay import EventStream, UntouchedStream
from proxy.early_start import start_early
from proxy.errors import ErrorCode, OllaError
from proxy.relay import RelayResponse
from tests.fakes import ScriptedBackend, sse_reply
from tests.proxy.anthropic_builders import ask, events, native_stream, send
from tests.proxy.builders import make_inbound
from tests.proxy.conftest import Proxy
from tests.translation.grammar import read_frames, read_stream
from tests.translation.replies import FACTS, delta, piece, sse, tools
from translation.anthropic_stream import AnthropicStream

PATIENCE = 300.0
"""Seconds without a byte after which a coding agent gives up."""
LONGEST_GAP = 15.0
HOUR = 3600.0
DEFAULTS = Conf()
INTERVAL = DEFAULTS.translators_anthropic_ping_interval

Arrivals = Iterator[tuple[float, bytes]]


def every(seconds: float, chunk: Callable[[int], bytes]) -> Arrivals:
    """A backend that sends something again and again."""
    return ((number * seconds, chunk(number)) for number in count())


def hear(stream: EventStream, arrivals: Arrivals) -> tuple[list[float], bytes]:
    """When a client hears something within an hour, and what; drives the stream as the relay does."""
    heard, out, now = [0.0], b"", 0.0
    at, chunk = next(arrivals, (HOUR, b""))
    while now < HOUR and not stream.done:
        now = min(at, max(stream.next_ping, now), HOUR)
        if now == at:
            frames = stream.feed(chunk, now)
            at, chunk = next(arrivals, (HOUR, b""))
        else:
            frames = stream.due_ping(now)
        if frames:
            heard.append(now)
            out += frames
    return heard, out


def longest_gap(heard: list[float]) -> float:
    return max(after - before for before, after in zip(heard, [*heard[1:], HOUR], strict=True))


def held_arguments(number: int) -> bytes:
    """A tool call whose arguments take an hour."""
    given = piece(0, "A", "f", '{"text":"') if number == 0 else piece(0, None, None, f"word{number} ")
    return sse(tools(given), done=False)


WORD = sse(delta(content="a"), done=False)
SLOW: dict[str, Callable[[], Arrivals]] = {
    "silent after the first words": lambda: iter([(0.0, WORD)]),
    "nothing but its role": lambda: iter([(0.0, sse(delta(role="assistant"), done=False))]),
    "comments to keep the line": lambda: every(5.0, lambda n: b": wait\n\n" if n else WORD),
    "empty chunks": lambda: every(1.0, lambda n: sse(delta(content=""), done=False) if n else WORD),
    "arguments that are held back": lambda: every(4.0, held_arguments),
    "an event that never ends": lambda: every(7.0, lambda n: b"x" if n else WORD + b"data: "),
    "a word a quarter of an hour": lambda: every(900.0, lambda _: WORD),
    "thoughts to be left out": lambda: every(3.0, lambda _: sse(delta(reasoning="hm"), done=False)),
}


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("omitted", [False, True])
def test_a_translated_stream_is_never_silent(slow, omitted):
    stream = AnthropicStream(replace(FACTS, omit_thinking=omitted), 0.0, ping_interval=INTERVAL)
    heard, out = hear(stream, SLOW[slow]())
    assert longest_gap(heard) <= LONGEST_GAP
    assert read_stream(out, finished=False).pings >= 1
    assert stream.error is None


def test_a_native_stream_is_never_silent():
    first, *rest = events()
    stream = UntouchedStream("r", first, 0.0, INTERVAL)
    heard, out = hear(stream, iter([(1000.0 * number, event) for number, event in enumerate(rest, 1)]))
    assert longest_gap(heard) <= LONGEST_GAP
    assert len(read_frames(out)) > HOUR / LONGEST_GAP


class HastyLoop(asyncio.SelectorEventLoop):
    """An event loop on which waiting takes no time, but is counted."""

    def __init__(self) -> None:
        super().__init__(_Hasty(self))
        self.ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class _Hasty(selectors.SelectSelector):
    """Lets nobody wait: the time that was asked for has passed."""

    def __init__(self, loop: HastyLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout:
            self._loop.ahead += timeout
        return found


def run_hastily(work: Coroutine[Any, Any, Any]) -> Any:
    loop = HastyLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def hear_early(story: Coroutine[Any, Any, RelayResponse]) -> tuple[list[float], bytes]:
    """The same of an answer that begins before any backend has answered."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    answer = await start_early(story, make_inbound(), DEFAULTS.translators_anthropic_start_after)
    heard, out = [0.0], b""
    async for chunk in answer:
        heard.append(loop.time() - begun)
        out += chunk
    await answer.aclose()
    return heard, out


def test_an_answer_that_takes_an_hour_is_never_silent():
    async def fail_late() -> RelayResponse:
        await asyncio.sleep(HOUR)
        raise OllaError(ErrorCode.UPSTREAM_TIMEOUT, "It never came.")

    heard, out = run_hastily(hear_early(fail_late()))
    assert heard[1] == pytest.approx(DEFAULTS.translators_anthropic_start_after, abs=1)
    assert longest_gap(heard[1:]) <= LONGEST_GAP
    assert heard[1] < PATIENCE
    *pings, last = read_frames(out)
    assert {ping["type"] for ping in pings} == {"ping"}
    assert last["error"]["type"] == "timeout_error"


def test_the_defaults_stay_far_below_what_clients_wait():
    assert 0 < DEFAULTS.translators_anthropic_start_after + INTERVAL < PATIENCE / 5
    assert 10 <= INTERVAL <= LONGEST_GAP


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_a_stream_is_asked_for_uncompressed(proxy: Proxy, kind: str) -> None:
    reply = native_stream() if kind == "vllm" else sse_reply([delta(content="a", finish="stop")])
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, backend_type=kind)
        answer = await send(proxy, ask(stream=True), [("accept-encoding", "gzip, br")])
        assert answer.status == 200
        # No ping and no error event can be put into a compressed stream.
        assert [value for name, value in backend.requests[0].headers if name.lower() == b"accept-encoding"] == [
            b"identity"
        ]
