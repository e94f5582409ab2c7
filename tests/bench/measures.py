"""What is measured, one function for each figure; every comparison takes turns within one run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.load import build_request, open_clients, run_load
from tests.bench.processes import MODEL, Served, cpu_seconds, processor_ticks, resident_bytes
from tests.bench.upstream import CHUNKS
from tests.live import LiveServer

PRODUCT_PATH = "/olla/openai/v1/chat/completions"
RELAY_PATH = "/v1/chat/completions"
JSON_BODY = b'{"model":"%b","messages":[{"role":"user","content":"%b"}]}' % (MODEL.encode(), b"hello " * 60)
STREAM_BODY = JSON_BODY.replace(b'{"model"', b'{"stream":true,"model"', 1)
MESSAGES_PATH = "/olla/anthropic/v1/messages"
MESSAGES_BODY = STREAM_BODY.replace(b'{"stream"', b'{"max_tokens":100,"stream"', 1)


Measured = LiveServer | Served


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, middle and greatest of several readings."""

    least: float
    middle: float
    greatest: float

    @classmethod
    def of(cls, readings: list[float]) -> Spread:
        """Summarise readings."""
        return cls(min(readings), statistics.median(readings), max(readings))

    def text(self, form: str = ".0f") -> str:
        """`least - middle - greatest`."""
        return " - ".join(format(value, form) for value in (self.least, self.middle, self.greatest))


@dataclass(frozen=True, slots=True)
class Comparison:
    """CPU microseconds a request of the product and of the yardstick, and their ratio turn by turn."""

    product: Spread
    yardstick: Spread
    ratio: Spread


def compare_cpu(
    ours: tuple[Measured, bytes],
    yardstick: tuple[Measured, bytes],
    *,
    total: int,
    concurrency: int,
    turns: int,
) -> Comparison:
    """CPU of `total` requests each, in turns."""
    readings: tuple[list[float], list[float]] = ([], [])
    for server, request in (ours, yardstick):  # warm
        asyncio.run(run_load(server.port, request, total=total // 2, concurrency=concurrency))
    for _ in range(turns):
        for (server, request), kept in zip((ours, yardstick), readings, strict=True):
            before = cpu_seconds(server.pid)
            asyncio.run(run_load(server.port, request, total=total, concurrency=concurrency))
            kept.append((cpu_seconds(server.pid) - before) / total * 1e6)
    ratios = [mine / theirs for mine, theirs in zip(*readings, strict=True)]
    return Comparison(Spread.of(readings[0]), Spread.of(readings[1]), Spread.of(ratios))


def requests_of(body: bytes, extra: bytes = b"") -> tuple[bytes, bytes]:
    """The request to the product and the same one to the yardstick."""
    return build_request(PRODUCT_PATH, body, extra), build_request(RELAY_PATH, body, extra)


def translation_cost(server: LiveServer, *, total: int, turns: int) -> Comparison:
    """CPU of streams that are translated to Anthropic's events, against the same ones relayed."""
    translated, relayed = build_request(MESSAGES_PATH, MESSAGES_BODY), build_request(PRODUCT_PATH, STREAM_BODY)
    return compare_cpu((server, translated), (server, relayed), total=total, concurrency=32, turns=turns)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds of single requests over one connection in turns: all of them sorted, and p99 / p50 of each turn.

    `stolen` is the share of the processors' time that the machine's host gave to others meanwhile: a request is
    then late whatever answers it.
    """

    ours: list[float]
    yardstick: list[float]
    ours_tail: Spread
    yardstick_tail: Spread
    stolen: float


def latency_at_one(
    ours: tuple[Measured, bytes], yardstick: tuple[Measured, bytes], *, total: int, turns: int
) -> Latencies:
    """`total` requests to each, one after another, in turns: what disturbs the machine disturbs both."""
    kept: tuple[list[float], list[float]] = ([], [])
    tails: tuple[list[float], list[float]] = ([], [])
    for server, request in (ours, yardstick):  # warm
        asyncio.run(run_load(server.port, request, total=200, concurrency=1))
    stolen, ticks = processor_ticks()
    for _ in range(turns):
        for (server, request), all_of_it, tail in zip((ours, yardstick), kept, tails, strict=True):
            turn = sorted(asyncio.run(run_load(server.port, request, total=total // turns, concurrency=1)))
            all_of_it.extend(turn)
            tail.append(percentile(turn, 0.99) / percentile(turn, 0.5))
    stolen, ticks = processor_ticks()[0] - stolen, processor_ticks()[1] - ticks
    return Latencies(
        sorted(kept[0]), sorted(kept[1]), Spread.of(tails[0]), Spread.of(tails[1]), stolen / max(1, ticks)
    )


def percentile(ordered: list[float], share: float) -> float:
    """A percentile of sorted readings."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True, slots=True)
class PacedStreams:
    """How evenly arriving streams were passed on: seconds to the first byte, greatest lateness, chunks apart."""

    first: list[float]
    lateness: float
    arrivals: int
    wanted: int


def paced_streams(server: LiveServer, *, streams: int, pace: int, spread: float) -> PacedStreams:
    """`streams` streams of 64 chunks `pace` milliseconds apart, started over `spread` seconds."""
    request = build_request(PRODUCT_PATH, STREAM_BODY, b"x-pace: %d\r\n" % pace)

    async def run() -> list[list[tuple[float, int]]]:
        clients = await open_clients(server.port, request, streams)

        async def one(number: int) -> list[tuple[float, int]]:
            await asyncio.sleep(number / streams * spread)
            return await clients[number].ask()

        async with asyncio.timeout(120):
            return await asyncio.gather(*(one(number) for number in range(streams)))

    arrivals = asyncio.run(run())
    late = 0.0
    for pieces in arrivals:
        start = pieces[0][0]
        late = max(late, *(at - start - number * pace / 1000 for number, (at, _) in enumerate(pieces[:CHUNKS])))
    return PacedStreams(
        sorted(p[0][0] for p in arrivals), late, sum(min(len(p), CHUNKS) for p in arrivals), streams * CHUNKS
    )


def memory_per_stream(server: LiveServer, streams: int) -> float:
    """Bytes each open stream adds to the server."""
    request = build_request(PRODUCT_PATH, STREAM_BODY, b"x-pace: 50\r\n")

    async def run() -> float:
        clients = await open_clients(server.port, request, streams)
        before = resident_bytes(server.pid)
        asked = [asyncio.ensure_future(client.ask()) for client in clients]
        await asyncio.sleep(1.5)
        grown = resident_bytes(server.pid) - before
        await asyncio.gather(*asked)
        return grown / streams

    return asyncio.run(run())


def saturation(port: int, pid: int, request: bytes, total: int) -> tuple[float, float]:
    """(CPU microseconds a request, requests a second) of the upstream alone: it must not be what limits."""
    before, started = cpu_seconds(pid), time.perf_counter()
    asyncio.run(run_load(port, request, total=total, concurrency=32))
    return (cpu_seconds(pid) - before) / total * 1e6, total / (time.perf_counter() - started)


Progress = Callable[[str], None]
