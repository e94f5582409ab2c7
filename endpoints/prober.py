"""The probe loop: what is due is asked, what was found is recorded, at most one prober at a time.

One cycle is one visit to the database thread (renew the lease, write what was found, read what is due); the
asking happens between cycles on the event loop. A cycle runs at least every second, at once when an answer
came, and when the next endpoint is due. While the database cannot be used nothing is asked: nobody would learn
the answers, and endpoints that are due stay due.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import django.db

from endpoints import tasks
from endpoints.alerts.facts import look_at_endpoints
from endpoints.alerts.watching import Watcher
from endpoints.conf import conf
from endpoints.database_thread import DatabaseThread
from endpoints.durations import DISCOVERY, FAILED, PROBE, READ, Durations
from endpoints.health import Outcome, ProbeResult, backoff
from endpoints.lease import Lease
from endpoints.loaded import Loaded
from endpoints.memory_watch import MemoryWatch
from endpoints.probing import Discovery, DiscoveryError, discover_models, probe_endpoint
from endpoints.recording import (
    Job,
    Slots,
    Work,
    find_work,
    record_loaded,
    record_models,
    record_no_models,
    record_probe,
)
from endpoints.transport import Transport

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between cycles when nothing happens
SHORTEST_PAUSE = 0.02  # so that answers that come together are written together
MODELS_RETRY = 10.0  # seconds until a failed discovery is tried again, growing with each failure
DISCOVERIES_AT_ONCE = 8
STOP_SECONDS = 1.0  # for the last visit to the database when stopping


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe that ended."""

    job: Job
    result: ProbeResult
    started: float
    ended: float
    loaded: Loaded | None = None  # what it has in memory, when that was looked at and is news


@dataclass(frozen=True, slots=True)
class Discovered:
    """A discovery that ended: with models, or with the reason why not."""

    job: Job
    found: Discovery | str
    started: float
    next_discovery: float


Finding = Probed | Discovered


@dataclass(slots=True)
class Inbox:
    """What was found since the last cycle, and the endpoints being asked now."""

    findings: list[Finding] = field(default_factory=list)
    probing: set[int] = field(default_factory=set)
    discovering: set[int] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, finding: Finding) -> None:
        """Keep one finding for the next cycle."""
        asked = self.probing if isinstance(finding, Probed) else self.discovering
        asked.discard(finding.job.endpoint_id)
        self.findings.append(finding)
        self.arrived.set()

    def take(self) -> list[Finding]:
        """What was found, to be written now."""
        findings, self.findings = self.findings, []
        self.arrived.clear()
        return findings

    async def wait(self, seconds: float) -> None:
        """Until something arrives (and what arrives with it), at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.arrived.wait()
                await asyncio.sleep(SHORTEST_PAUSE)
        except TimeoutError:
            return


def record(findings: list[Finding]) -> None:
    """Write findings, each in its own transaction. Raises django.db.Error."""
    for finding in findings:
        if isinstance(finding, Probed):
            record_probe(finding.job, finding.result, finding.started, finding.ended)
            if finding.loaded is not None:
                record_loaded(finding.job, finding.loaded)
        elif isinstance(finding.found, Discovery):
            record_models(finding.job, finding.found, finding.started, finding.next_discovery)
        else:
            record_no_models(finding.job, finding.found, finding.started, finding.next_discovery)


class Prober:
    """Asks endpoints through a door of its own and records what it finds, until it is told to stop."""

    def __init__(self, holder: str = "") -> None:
        self._door = Transport()
        self._database = DatabaseThread("olla-prober")
        self._durations = Durations()
        self._lease = Lease(holder, self._durations.write)
        self._inbox = Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        self._models_failures: dict[int, int] = {}
        self._memory = MemoryWatch()
        self._trouble = ""
        self._active: bool | None = None

    @property
    def is_active(self) -> bool:
        """Whether this prober holds the lease."""
        return bool(self._active)

    async def run(self, stop: asyncio.Event) -> None:
        """Probe until `stop` is set, then give the lease back."""
        loop = tasks.spawn(self._keep_probing(), "probe loop")
        stopping = tasks.spawn(stop.wait(), "prober stop")
        alerts = Watcher(look_at_endpoints, in_thread=True, is_active=lambda: self.is_active)
        telling = tasks.spawn(alerts.run(), "alerts")
        try:
            # Not one after the other: a cycle may be waiting for a locked database.
            await asyncio.wait((loop, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.cancel()
            stopping.cancel()
            telling.cancel()
            await self.close()
        if loop.done() and not loop.cancelled():
            loop.result()  # it ends by an error only

    async def close(self) -> None:
        """Stop asking, release the lease and close the connections; waits a second for the database at most."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._database.run(lambda: self._lease.release(time.time()))
        except (django.db.Error, TimeoutError):
            logger.info("the database does not answer: the lease runs out by itself")
        self._database.close()
        await self._door.aclose()

    async def _keep_probing(self) -> None:
        while True:
            next_due = await self._cycle()
            wait = TICK if next_due is None else min(TICK, next_due - time.time())
            await self._inbox.wait(max(wait, SHORTEST_PAUSE))

    async def _cycle(self) -> float | None:
        """One visit to the database, then start what is due; when the next is due."""
        findings = self._inbox.take()
        slots = Slots(
            probes=conf().probe_concurrency - len(self._inbox.probing),
            discoveries=DISCOVERIES_AT_ONCE - len(self._inbox.discovering),
            probing=frozenset(self._inbox.probing),
            discovering=frozenset(self._inbox.discovering),
        )
        try:
            work = await self._database.run(lambda: self._visit(findings, slots))
        except django.db.Error as error:
            self._note_database(error)
            return None
        self._note_database(None)
        self._note_lease(work)
        if work is None:
            return None
        for job in work.probes:
            self._inbox.probing.add(job.endpoint_id)
            self._spawn(self._probe(job), f"probe {job.target.name}")
        for job in work.discoveries:
            self._inbox.discovering.add(job.endpoint_id)
            self._spawn(self._discover(job), f"discovery {job.target.name}")
        return work.next_due

    def _visit(self, findings: list[Finding], slots: Slots) -> Work | None:
        """In the database thread: write, then read; None without the lease."""
        if not self._lease.hold(time.time()):
            return None
        record(findings)
        return find_work(time.time(), slots, os.environ)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = tasks.spawn(coroutine, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, job: Job) -> None:
        started = time.time()
        began = time.monotonic()
        result = await safe_probe(job, self._door, started)
        self._durations.add(PROBE, result.outcome.value, time.monotonic() - began)
        loaded = None
        if result.outcome is Outcome.ANSWERED and not result.detected_type:
            loaded = await self._memory.look(job.endpoint_id, job.target, self._door, time.monotonic())
        self._inbox.add(Probed(job, result, started, time.time(), loaded))

    async def _discover(self, job: Job) -> None:
        started = time.time()
        began = time.monotonic()
        found = await safe_discovery(job, self._door)
        outcome = READ if isinstance(found, Discovery) else FAILED
        self._durations.add(DISCOVERY, outcome, time.monotonic() - began)
        failures = 0 if isinstance(found, Discovery) else self._models_failures.get(job.endpoint_id, 0) + 1
        self._models_failures[job.endpoint_id] = failures
        next_discovery = time.time() + plan_discovery(failures)
        self._inbox.add(Discovered(job, found, started, next_discovery))

    def _note_database(self, error: Exception | None) -> None:
        """Say once that the database cannot be used, and once that it can again."""
        if error is not None and not self._trouble:
            logger.warning("the database cannot be used, probing waits for it: %s", error)
        elif error is None and self._trouble:
            logger.warning("the database can be used again")
        self._trouble = str(error) if error is not None else ""

    def _note_lease(self, work: Work | None) -> None:
        active = work is not None
        if active is not self._active:
            self._active = active
            logger.info("this prober is active" if active else "another prober is active, this one waits")


async def safe_probe(job: Job, door: Transport, now: float) -> ProbeResult:
    """The result of probing, also when probing itself is at fault: one endpoint never stops the others."""
    try:
        return await probe_endpoint(job.target, door, now, detect=job.detect)
    except Exception as error:
        logger.exception("probing endpoint %s failed", job.target.name)
        return ProbeResult(Outcome.FAULT, error=f"The probe itself failed: {type(error).__name__}.")


async def safe_discovery(job: Job, door: Transport) -> Discovery | str:
    """The models of an endpoint, or the reason why they could not be read."""
    try:
        return await discover_models(job.target, door, timeout=conf().discovery_timeout)
    except DiscoveryError as error:
        return str(error)
    except Exception as error:
        logger.exception("reading the models of endpoint %s failed", job.target.name)
        return f"The discovery itself failed: {type(error).__name__}."


def plan_discovery(failures: int) -> float:
    """Seconds until the next discovery: the interval, spread so that endpoints do not come in step, or sooner
    after failures in a row.
    """
    interval = conf().discovery_interval
    if failures:
        return min(backoff(failures, MODELS_RETRY), interval)
    return interval * random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
