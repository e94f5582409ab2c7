"""Four backends that fail at random under forty clients: nobody feels it who had no byte yet.

One backend at a time is the anchor: it stays good until another has proved itself, so that there is always
somebody who can answer. `OLLA_CHAOS_SEED` repeats a run's choices (not its timing).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.e2e.seed import seed_database
from tests.e2e.wire import UNLIMITED, Wire, asking, assert_calm, nothing_open
from tests.fakes import Conn, Received, Reply, ScriptedBackend, json_reply
from tests.live import LiveServer, steady_port

MODEL = "m"
CLIENTS = 40
BACKENDS = 4
PARTS = 10
GAP = 0.02
LEAST_TROUBLE = 8  # times a backend turns bad


class Mood(StrEnum):
    """What a backend does now."""

    GOOD = "good"
    DOWN = "down"  # no listener; connections were reset
    RESETTING = "resetting"  # every connection is reset
    STALLING = "stalling"  # nothing moves until it is good again
    BUSY = "busy"  # 503
    CUTTING = "cutting"  # every answer breaks off in its middle


TROUBLE = [Mood.DOWN, Mood.RESETTING, Mood.STALLING, Mood.BUSY, Mood.CUTTING]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of answer: where it is asked for, its media type, whether it declares its length."""

    name: str
    path: str
    media: bytes
    whole: bool = False

    def parts(self, ticket: int) -> list[bytes]:
        """The answer to one ticket, numbered throughout: what is lost, doubled or another's shows."""
        numbered = [f"{ticket}.{number}.{'x' * 100}" for number in range(PARTS)]
        if self.name == "sse":
            return [f"data: {json.dumps({'text': text})}\n\n".encode() for text in numbered] + [
                b"data: [DONE]\n\n"
            ]
        if self.name == "ndjson":
            return [json.dumps({"text": text, "done": False}).encode() + b"\n" for text in numbered] + [
                b'{"done": true}\n'
            ]
        return [b'{"texts": [', *[json.dumps(text).encode() + b"," for text in numbered], b"null]}"]

    def body(self, ticket: int) -> bytes:
        """All of it."""
        return b"".join(self.parts(ticket))


KINDS = [
    Kind("sse", "/v1/chat/completions", b"text/event-stream"),
    Kind("ndjson", "/api/chat", b"application/x-ndjson"),
    Kind("json", "/v1/completions", b"application/json", whole=True),
    Kind("blob", "/v1/audio/speech", b"audio/wav"),
]
BY_PATH = {kind.path: kind for kind in KINDS}
PROBES = {
    "/": Reply(body=b"Ollama is running"),
    "/api/tags": json_reply({"models": [{"name": MODEL, "model": MODEL}]}),
    "/api/version": json_reply({"version": "0.5.0"}),
}


class Flapper:
    """A backend with moods."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name = name
        self.mood = Mood.GOOD
        self.good_since = time.monotonic()
        self.spells: list[tuple[float, float]] = []  # of trouble, from and to
        self._trouble_since = 0.0
        self.served = 0  # requests that came and were answered since it is good
        self._dice = dice
        self._changed = asyncio.Event()
        self.backend = ScriptedBackend(self._serve, port=steady_port())

    async def start(self) -> None:
        """Listen."""
        await self.backend.__aenter__()

    async def turn(self, mood: Mood) -> None:
        """Change the mood; connections feel it at once."""
        before, self.mood = self.mood, mood
        self._changed.set()
        self._changed = asyncio.Event()
        if mood is Mood.GOOD:
            if before is Mood.DOWN:
                self.backend = ScriptedBackend(self._serve, port=self.backend.port)
                await self.start()
            self.good_since, self.served = time.monotonic(), 0
            if before is not Mood.GOOD:
                self.spells.append((self._trouble_since, time.monotonic()))
        else:
            self._trouble_since = time.monotonic()
        if mood is Mood.DOWN:
            await self.backend.stop()
        elif mood is Mood.RESETTING:
            for conn in self.backend.conns:
                if not conn.gone.is_set():
                    conn.reset()

    def failed_between(self, start: float, end: float) -> bool:
        """Whether it was in trouble at some time between two."""
        return any(begun < end and over > start for begun, over in self.spells)

    @property
    def has_proved_itself(self) -> bool:
        """Whether requests reach it again: no gate is left closed to it."""
        return self.mood is Mood.GOOD and self.served >= 2 and time.monotonic() - self.good_since > 2.5

    async def _serve(self, conn: Conn) -> None:
        while not conn.gone.is_set():
            request = await conn.request()
            if request is None:
                return
            if self.mood is Mood.RESETTING:
                conn.reset()
                return
            await self._answer(conn, request)

    async def _answer(self, conn: Conn, request: Received) -> None:
        good_since = self.good_since if self.mood is Mood.GOOD else -1.0
        await self._pace()
        if self.mood is Mood.BUSY:
            await conn.play(json_reply({"error": "busy"}, 503), request)
        elif request.path in PROBES:
            await conn.play(PROBES[request.path], request)
        elif request.path not in BY_PATH:
            await conn.play(json_reply({"error": "not here"}, 404), request)
        else:
            await self._stream(conn, BY_PATH[request.path], request.json()["ticket"])
            if not conn.gone.is_set() and good_since == self.good_since:
                self.served += 1

    async def _stream(self, conn: Conn, kind: Kind, ticket: int) -> None:
        parts = kind.parts(ticket)
        framing = b"Content-Length: %d" % len(kind.body(ticket)) if kind.whole else b"Transfer-Encoding: chunked"
        conn.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n" % (kind.media, framing))
        cut_at = self._dice.randrange(len(parts))
        for number, part in enumerate(parts):
            if self.mood is Mood.CUTTING and number >= cut_at:
                half = part[: len(part) // 2]
                conn.write(half if kind.whole else b"%x\r\n%b" % (len(part), half))
                await asyncio.sleep(0)
                if self._dice.random() < 0.5:
                    conn.reset()
                else:
                    conn.close()
                return
            conn.write(part if kind.whole else b"%x\r\n%b\r\n" % (len(part), part))
            await asyncio.sleep(GAP)
            await self._pace()
        conn.write(b"" if kind.whole else b"0\r\n\r\n")

    async def _pace(self) -> None:
        """Wait while nothing moves."""
        while self.mood is Mood.STALLING:
            await self._changed.wait()


@dataclass
class Result:
    """One request, as its client saw it."""

    kind: Kind
    ticket: int
    began: float
    ended: float = 0.0
    wire: Wire | None = None
    error: str = ""
    left: bool = False  # the client hung up on purpose

    @property
    def body(self) -> bytes:
        return bytes(self.wire.body) if self.wire else b""

    @property
    def endpoint(self) -> str:
        return self.wire.headers.get("x-olla-endpoint", "") if self.wire else ""

    def judge(self) -> str:
        """`whole`, `told`, `left`, or what is wrong with it."""
        expected, wire = self.kind.body(self.ticket), self.wire
        if wire is None or wire.status != 200 or self.error:
            return f"failed without a byte: {wire.status if wire else 0} {self.error} {self.body[:300]!r}"
        if self.left and expected.startswith(self.body):
            return "left"
        if wire.finished and self.body == expected:
            return "whole"
        if self.kind.whole or not self.body:
            return f"failed, though nothing had to be passed on: {self.body[:300]!r}"
        return (
            "told"
            if self._is_told(expected, finished=wire.finished or self.left)
            else f"dishonest: {wire.finished} {self.body!r}"
        )

    def _is_told(self, expected: bytes, *, finished: bool) -> bool:
        """Whether it ends as its protocol tells a failure, after a true beginning."""
        if self.kind.name == "blob":
            return not finished and expected.startswith(self.body)
        mark = b"data: " if self.kind.name == "sse" else b"\n"
        sent, _, last = self.body.rstrip(b"\n").rpartition(mark)
        return finished and expected.startswith(sent.rstrip(b"\n")) and "error" in json.loads(last)


@dataclass
class Chaos:
    """A run: its backends, its clients, what they saw."""

    server: LiveServer
    flappers: list[Flapper]
    dice: random.Random
    until: float
    anchor: Flapper = field(init=False)
    results: list[Result] = field(default_factory=list)
    moods: Counter[str] = field(default_factory=Counter)
    handovers: int = 0

    def __post_init__(self) -> None:
        self.anchor = self.flappers[0]

    async def run(self) -> None:
        """Everything at once, until the time is up; in the end every backend is good again."""
        flapping = [asyncio.ensure_future(self._flap(each)) for each in self.flappers]
        anchoring = asyncio.ensure_future(self._hand_over())
        clients = [asyncio.ensure_future(self._client(number)) for number in range(CLIENTS)]
        await asyncio.gather(*clients)
        for task in (anchoring, *flapping):
            task.cancel()
        await asyncio.gather(anchoring, *flapping, return_exceptions=True)
        for each in self.flappers:
            await each.turn(Mood.GOOD)

    async def _flap(self, flapper: Flapper) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.5, 5))
            if flapper is self.anchor:
                continue
            mood = self.dice.choice(TROUBLE)
            self.moods[mood] += 1
            await flapper.turn(mood)
            await asyncio.sleep(self.dice.uniform(0.2, 1))
            await flapper.turn(Mood.GOOD)

    async def _hand_over(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            old = self.anchor
            proved = [each for each in self.flappers if each is not old and each.has_proved_itself]
            if proved and self.dice.random() < 0.2:
                self.anchor = self.dice.choice(proved)
                self.handovers += 1

    async def _client(self, number: int) -> None:
        ticket = number * 1_000_000
        while self._goes_on():
            ticket += 1
            result = Result(self.dice.choice(KINDS), ticket, time.monotonic())
            self.results.append(result)
            fields = {"model": MODEL, "stream": True, "ticket": ticket}
            try:
                async with asking(self.server, f"/olla/ollama{result.kind.path}", fields) as wire:
                    result.wire = wire
                    await asyncio.wait_for(self._read(wire, result), 60)
            except (OSError, EOFError, TimeoutError) as error:
                result.error = repr(error)
            result.ended = time.monotonic()

    def _goes_on(self) -> bool:
        """Until the time is up, and a little longer where the dice gave too little trouble by then."""
        late = time.monotonic() - self.until
        return late < 0 or (late < 60 and self.moods.total() < LEAST_TROUBLE)

    async def _read(self, wire: Wire, result: Result) -> None:
        """Read to the end, or hang up before it (it may have seen the error event but not the framing's end)."""
        if self.dice.random() < 0.1:
            result.left = True
            await wire.read_head()
            await wire.read_until(self.dice.randrange(800))
        else:
            await wire.read()


async def test_nobody_feels_a_failing_backend_who_had_no_byte_yet(tmp_path: Path, long_form: bool) -> None:
    seed = int(os.environ.get("OLLA_CHAOS_SEED") or random.SystemRandom().getrandbits(32))
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        flappers = [Flapper(f"gpu-{number}", dice) for number in range(BACKENDS)]
        for each in flappers:
            await each.start()
            stack.push_async_callback(lambda flapper: flapper.backend.stop(), each)
        prepare(tmp_path, flappers)
        env = {**UNLIMITED, "OLLA_BREAKER_OPEN_TIME": "1", "OLLA_BREAKER_THRESHOLD": "3"}
        server = stack.enter_context(LiveServer(data_dir=tmp_path, args=(), env=env))
        chaos = Chaos(server, flappers, dice, time.monotonic() + (120 if long_form else 15))
        await chaos.run()
        assert_felt_by_nobody(chaos, f"OLLA_CHAOS_SEED={seed}")
        await assert_no_place_is_taken(server, tmp_path)
        await nothing_open(server, {each.backend.port for each in flappers})
        assert_calm(server)


def prepare(data_dir: Path, flappers: list[Flapper]) -> None:
    """A database whose endpoints are probed each second."""
    rows: list[dict[str, Any]] = [
        {"name": each.name, "url": each.backend.url, "kind": "ollama", "models": [MODEL]} for each in flappers
    ]
    seed_database(data_dir, rows)
    change(data_dir, "UPDATE endpoints_endpoint SET check_interval = 1, check_timeout = 5")
    change(data_dir, "UPDATE endpoints_endpointhealth SET next_check = '2020-01-01'")


def change(data_dir: Path, sql: str) -> None:
    """One statement on the server's database, for all to see."""
    with closing(sqlite3.connect(data_dir / "olla.sqlite3", timeout=10)) as database, database:
        database.execute(sql)
        database.execute("UPDATE endpoints_revision SET number = number + 1")


def assert_felt_by_nobody(chaos: Chaos, seed: str) -> None:
    """Every request is whole, or broke off honestly at a backend that failed after it had begun."""
    verdicts = Counter[str]()
    for result in chaos.results:
        verdict = result.judge()
        assert verdict in {"whole", "told", "left"}, (seed, result.kind.name, result.endpoint, verdict)
        verdicts[verdict] += 1
        if verdict == "told":
            blamed = next(each for each in chaos.flappers if each.name == result.endpoint)
            assert blamed.failed_between(result.began, result.ended), (seed, result)
    shown = (seed, verdicts, chaos.moods, chaos.handovers)
    assert verdicts["told"], shown
    assert verdicts["whole"] > 5 * verdicts["told"], shown
    assert chaos.moods.total() >= LEAST_TROUBLE, shown


async def assert_no_place_is_taken(server: LiveServer, data_dir: Path) -> None:
    """With room for one request at each endpoint, there is room for one at each: none is counted in flight."""
    change(data_dir, "UPDATE endpoints_endpoint SET max_concurrent = 1")
    async with asyncio.timeout(60):
        # Until the limit is in force somebody too many waits for nobody, until all are well too many wait.
        while await places(server) != BACKENDS:
            await asyncio.sleep(0.2)


async def places(server: LiveServer) -> int:
    """At how many endpoints one of BACKENDS + 1 requests starts at once; 0 unless exactly one has to wait."""

    async def one() -> Wire:
        async with asking(server, "/olla/ollama/api/chat", {"model": MODEL, "ticket": 1}) as wire:
            return await wire.read()

    wires = await asyncio.gather(*(one() for _ in range(BACKENDS + 1)))
    at_once = [wire for wire in wires if wire.status == 200 and "x-olla-queue-wait" not in wire.headers]
    return len({wire.headers["x-olla-endpoint"] for wire in at_once}) if len(at_once) == BACKENDS else 0
