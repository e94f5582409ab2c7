"""Probes and readings of models asked for at many endpoints: how far they are, and taking them back.

The prober does them; who asked watches its rows. The table of what was asked lives and ends with this process.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from endpoints.health import ROUTABLE
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from endpoints.operations import Ask, ask_prober, find_done, join_names, prober_state, read_plans, withdraw

MOST_WORKS = 64
KEPT_SECONDS = 900.0
PATIENCE = 60.0  # seconds for the first result and after each; then who asked is told that nothing comes


@dataclass(slots=True, eq=False)
class Work:
    """What somebody asked for."""

    owner: int  # of an account
    ask: Ask
    names: dict[int, str]  # of the endpoints, by id
    plans: dict[int, datetime]  # when each was due without it
    asked: datetime
    notes: tuple[str, ...]  # what was left out, and why
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    made: float = field(default_factory=time.monotonic)
    done: set[int] = field(default_factory=set)
    progressed: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    silent: bool = False  # nobody does it
    told: tuple[str, ...] | None = None  # what came of it, once it is over
    # Requests of a page come in several threads: each sees a work that goes on, or one over and with its words.
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        """How many endpoints are asked."""
        return len(self.names)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is waited for."""
        return self.told is not None


class WorkDesk:
    """Takes works, tells how far they are, forgets them after a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}

    def start(self, owner: int, ask: Ask, chosen: Sequence[Endpoint], notes: tuple[str, ...]) -> Work:
        """Ask the prober for all of them at once."""
        names = {each.pk: each.name for each in chosen}
        plans = read_plans(names, ask)
        work = Work(owner, ask, names, plans, ask_prober(names, (ask,)), notes)
        with self._lock:
            self._forget_old()
            while len(self._works) >= MOST_WORKS:
                self._works.pop(next(iter(self._works)))
            self._works[work.key] = work
        return work

    def find(self, key: str, owner: int) -> Work | None:
        """Somebody's work; nobody else's."""
        with self._lock:
            self._forget_old()
            work = self._works.get(key)
        return work if work is not None and work.owner == owner else None

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._works = {key: work for key, work in self._works.items() if now - work.made < KEPT_SECONDS}


def look(work: Work, now: float) -> None:
    """See how far a work is. A few queries, however many endpoints are asked."""
    with work.lock:
        _look(work, now)


def _look(work: Work, now: float) -> None:
    if work.is_over:
        return
    gone = work.names.keys() - set(Endpoint.objects.filter(pk__in=work.names).values_list("pk", flat=True))
    done = find_done(work.names, work.asked, work.ask) | gone
    if done != work.done:
        work.done, work.progressed = done, now
    all_done = len(done) == work.total
    work.silent = not all_done and (now - work.progressed > PATIENCE or not prober_state().alive)
    if all_done or work.silent:
        work.told = tell(work)


def cancel(work: Work, now: float) -> None:
    """Take back what is not done yet; what is done stays."""
    with work.lock:
        _look(work, now)
        if work.is_over:
            return
        told = tell(work)
        withdraw({pk: plan for pk, plan in work.plans.items() if pk not in work.done}, work.asked, work.ask)
        work.cancelled = True
        work.told = told  # last: from here on it is over


def tell(work: Work) -> tuple[str, ...]:
    """What came of it, in a few sentences."""
    rows = list(
        EndpointHealth.objects.filter(pk__in=work.done).select_related("endpoint").order_by("endpoint__name")
    )
    if work.ask is Ask.PROBE:
        bad = [row.endpoint.name for row in rows if row.status not in ROUTABLE]
        good = f"{_many(len(rows) - len(bad))} well"
        parts = [good] + ([f"{len(bad)} not: {join_names(bad)}"] if bad else [])
    else:
        bad = [row.endpoint.name for row in rows if row.models_error]
        well = [row.pk for row in rows if not row.models_error]
        count = DiscoveredModel.objects.filter(endpoint__in=well).values("name").distinct().count()
        good = f"{_many(len(rows) - len(bad))} told {count} model{'' if count == 1 else 's'} in all"
        parts = [good] + ([f"{len(bad)} could not be read: {join_names(bad)}"] if bad else [])
    return (f"{'; '.join(parts)}.",) if rows else ()


def _many(count: int) -> str:
    return f"{count} endpoint{'' if count == 1 else 's'}"


desk = WorkDesk()
