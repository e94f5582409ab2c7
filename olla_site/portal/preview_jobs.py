"""Previews at work: one thread that routes logged requests in slices, and a small table of who waits for what.

One at a time, so that previews cost at most a part of one core; between slices the thread sleeps, which lets the
event loop (whose requests share the interpreter) through. The table lives and ends with the process.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from olla_site.portal.alias_changes import AliasChange
from olla_site.portal.rule_changes import Change
from proxy.rerouting import Comparison, Logged

logger = logging.getLogger(__name__)

MOST_JOBS = 32
KEPT_SECONDS = 900.0
SLICE_SECONDS = 0.004
PAUSE_SECONDS = 0.002  # long enough for whoever waits for the interpreter


class State(StrEnum):
    """How far a preview has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = frozenset({State.DONE, State.CANCELLED, State.FAILED})


@dataclass(slots=True, eq=False)
class Job:
    """One preview. Only the worker writes `state`, `done` and the comparison; anybody may ask it to stop."""

    owner: int  # of an account
    change: Change | AliasChange
    size: int  # how many requests were asked for
    words: tuple[str, str]  # the rule or alias before and after; empty for no rule
    title: str
    logged: Sequence[Logged]
    comparison: Comparison
    warnings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # rules with conditions on what the log lacks
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    made: float = field(default_factory=time.monotonic)
    state: State = State.WAITING
    done: int = 0
    total: int = field(init=False)
    oldest: int = field(init=False)  # key of the oldest request; 0 for none
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.total = len(self.logged)
        self.oldest = self.logged[-1].key if self.logged else 0

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED

    def let_go(self) -> None:
        """Keep what was found and drop what it was found by: requests, and pictures of the fleet."""
        self.logged = ()
        self.comparison.let_go()


class PreviewDesk:
    """Takes jobs, works them off in order, forgets them after a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, job: Job) -> Job:
        """Queue a job; its owner's earlier one is stopped, and the oldest of all make room."""
        with self._lock:
            self._forget_old(time.monotonic())
            for each in self._jobs.values():
                if each.owner == job.owner:
                    each.stop.set()
            while len(self._jobs) >= MOST_JOBS:
                self._jobs.pop(next(iter(self._jobs))).stop.set()
            self._jobs[job.key] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="olla-preview", daemon=True)
                self._thread.start()
        self._queue.put(job)
        return job

    def find(self, key: str, owner: int) -> Job | None:
        """Somebody's job; nobody else's."""
        with self._lock:
            self._forget_old(time.monotonic())
            job = self._jobs.get(key)
        return job if job is not None and job.owner == owner else None

    def _forget_old(self, now: float) -> None:
        for key in [key for key, job in self._jobs.items() if now - job.made > KEPT_SECONDS]:
            self._jobs.pop(key).stop.set()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            try:
                job.state = State.CANCELLED if job.stop.is_set() else State.RUNNING
                if not job.is_over:
                    job.state = run(job)
            except Exception:  # one preview's fault must not end the thread that works for all
                job.state = State.FAILED
                logger.exception("a preview of rules failed")
            finally:
                job.let_go()
                job.ended.set()


def run(job: Job) -> State:
    """Judge the requests of a job in slices, until it is done or told to stop."""
    until = time.monotonic() + SLICE_SECONDS
    for logged in job.logged:
        if job.stop.is_set():
            return State.CANCELLED
        job.comparison.take(logged)
        job.done += 1
        if time.monotonic() >= until:
            time.sleep(PAUSE_SECONDS)
            until = time.monotonic() + SLICE_SECONDS
    return State.DONE


desk = PreviewDesk()
