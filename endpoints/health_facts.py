"""What the prober last wrote of each endpoint, for people and monitors.

The snapshot holds what routing needs and is renewed when that changes; the time of the last probe, its latency
and the like change with every probe and are read here, when somebody asks, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError

from endpoints import loading, tasks
from endpoints.database_thread import DatabaseThread
from endpoints.durations import Durations, parse_durations
from endpoints.models import EndpointHealth, ProberLease
from endpoints.snapshot import EMPTY, EndpointRecord, Snapshot

logger = logging.getLogger(__name__)

KEPT_SECONDS = 0.5  # many who ask at once cause one query
PATIENCE_SECONDS = 1.0  # a database that does not answer must not keep status pages waiting
_COLUMNS = (
    "endpoint_id", "consecutive_failures", "last_checked", "next_check", "latency_ms", "last_error",
    "models_checked", "models_error", "detected_type", "version", "endpoint__backend_type",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """One endpoint's row; times in seconds since the epoch, None for never."""

    failures: int = 0
    last_checked: float | None = None
    next_check: float | None = None
    latency_ms: float | None = None
    last_error: str = ""
    models_checked: float | None = None
    models_error: str = ""
    detected_type: str = ""
    updates: int = 0  # times the row was written: probes, and demotions by requests
    configured_type: str = ""  # as the operator set it, `auto` included


def read_health_facts() -> dict[int, HealthFacts]:
    """Every endpoint's row by endpoint id; blocking. Raises DatabaseError."""
    rows = EndpointHealth.objects.values_list(*_COLUMNS)
    return {
        pk: HealthFacts(failures, _seconds(last), _seconds(following), latency, error, _seconds(models), *rest)
        for pk, failures, last, following, latency, error, models, *rest in rows.iterator()
    }


def read_durations() -> Durations:
    """How long the prober's work took since it began; blocking. Raises DatabaseError."""
    return parse_durations(ProberLease.objects.filter(pk=1).values_list("durations", flat=True).first() or "")


def facts_of(endpoint: EndpointRecord, facts: Mapping[int, HealthFacts]) -> HealthFacts:
    """The row of an endpoint; as far as the snapshot knows it when it could not be read."""
    found = facts.get(endpoint.id)
    if found is not None:
        return found
    return HealthFacts(
        last_checked=endpoint.last_checked,
        next_check=endpoint.next_check,
        latency_ms=endpoint.latency_ms,
        last_error=endpoint.last_error,
    )


class HealthBoard:
    """The facts of this process: read when they are older than half a second or the snapshot is another."""

    def __init__(self) -> None:
        self.durations = Durations()  # of the prober's work, as old as the facts
        self._facts: Mapping[int, HealthFacts] = {}
        self._read_at = 0.0
        self._snapshot: Snapshot = EMPTY
        self._reading: asyncio.Task[None] | None = None
        self._database = DatabaseThread("olla-health-facts")

    async def latest(self) -> Mapping[int, HealthFacts]:
        """The facts by endpoint id; those of before while the database cannot be read in time."""
        snapshot = loading.current()
        if snapshot is self._snapshot and time.monotonic() - self._read_at < KEPT_SECONDS:
            return self._facts
        if self._reading is None or self._reading.done():
            self._reading = tasks.spawn(self._read(snapshot), "health facts")
        await asyncio.wait({self._reading}, timeout=PATIENCE_SECONDS)
        return self._facts

    async def _read(self, snapshot: Snapshot) -> None:
        try:
            self._facts, self.durations = await self._database.run(lambda: (read_health_facts(), read_durations()))
        except DatabaseError as error:
            logger.debug("health facts cannot be read: %s", error)
        # Also after a failure, so that a database in trouble is asked twice a second and no more.
        self._read_at, self._snapshot = time.monotonic(), snapshot


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


board = HealthBoard()
