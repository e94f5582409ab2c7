"""The only writer of web processes: "this request could not connect to that endpoint".

A web process may demote an endpoint and pull its next probe forward, never make it routable. It keeps the
endpoint out by itself at once (proxy/live.py); what is written here tells the other processes and the prober.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import django.db
from django.db import transaction

from endpoints import loading, tasks
from endpoints.database_thread import DatabaseThread
from endpoints.health import ROUTABLE, HealthState, Status, demote
from endpoints.models import EndpointHealth, Revision

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.25  # seconds before a write that failed is tried again, doubling each time
LONGEST_PAUSE = 5.0
DISCOVERY_LOOK = 0.1  # seconds between looks whether the prober has read the models
GIVE_UP_AFTER = 600.0  # by then the prober, if it can write, has found out by itself


class ReportOutcome(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    SUPERSEDED = "superseded"  # a probe that began later than the failure says otherwise, or the endpoint is gone
    ALREADY_DOWN = "already_down"
    LOST = "lost"  # the database could not be written for too long


@dataclass(slots=True)
class _Pending:
    """The one report of an endpoint that waits to be written; later failures only renew it."""

    reason: str
    seen_at: float


_pending: dict[int, tuple[_Pending, asyncio.Task[ReportOutcome]]] = {}
_database = DatabaseThread("olla-reports")


async def report_unreachable(endpoint_id: int, reason: str, seen_at: float) -> ReportOutcome:
    """Record that no connection could be made at `seen_at`; returns when it is written or not needed.

    Retried while the database is down, so await it in a task of its own. Reports of one endpoint are merged
    while one is pending. Raises nothing but CancelledError.
    """
    found = _pending.get(endpoint_id)
    if found is None or found[1].done():
        pending = _Pending(reason, seen_at)
        task = tasks.spawn(_deliver(endpoint_id, pending), f"report of endpoint {endpoint_id}")
        _pending[endpoint_id] = (pending, task)
    else:
        pending, task = found
        if seen_at > pending.seen_at:
            pending.reason, pending.seen_at = reason, seen_at
    return await asyncio.shield(task)  # others may be waiting for it too


async def _deliver(endpoint_id: int, pending: _Pending) -> ReportOutcome:
    began, pause = time.monotonic(), FIRST_PAUSE

    def write() -> ReportOutcome:
        return record_unreachable(endpoint_id, pending.reason, pending.seen_at)

    try:
        while True:
            try:
                return await _database.run(write)
            except django.db.Error as error:
                if pause == FIRST_PAUSE:
                    logger.warning("a failed endpoint cannot be recorded yet, trying on: %s", error)
            if time.monotonic() - began > GIVE_UP_AFTER:
                return ReportOutcome.LOST
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
    finally:
        _pending.pop(endpoint_id, None)


async def discover_now(endpoint_ids: Sequence[int], timeout: float) -> bool:
    """Have the prober read these endpoints' models at once and wait for it, `timeout` seconds at most.

    Whether all of them were read (also if in vain) since; False too when the database cannot be used. The
    snapshot has what was found.
    """
    asked = datetime.now(UTC)
    end = time.monotonic() + timeout
    try:
        await _database.run(
            lambda: EndpointHealth.objects.filter(pk__in=endpoint_ids).update(next_discovery=asked)
        )
        waiting = EndpointHealth.objects.filter(pk__in=endpoint_ids, status__in=ROUTABLE)
        unread = waiting.exclude(models_checked__gte=asked)
        while await _database.run(unread.exists):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(DISCOVERY_LOOK)
    except django.db.Error:
        return False
    await loading.look()
    return True


def record_unreachable(endpoint_id: int, reason: str, seen_at: float) -> ReportOutcome:
    """Write it, unless a later probe knows better. Blocking; raises django.db.Error."""
    while True:
        row = EndpointHealth.objects.filter(pk=endpoint_id).first()
        if row is None:
            return ReportOutcome.SUPERSEDED
        state = HealthState(Status(row.status), row.status_since.timestamp(), row.consecutive_failures)
        demoted = demote(state, seen_at)
        if demoted is None:
            return ReportOutcome.ALREADY_DOWN
        if row.last_checked is not None and row.last_checked.timestamp() >= seen_at:
            return ReportOutcome.SUPERSEDED
        if _write(row, demoted, reason):
            logger.warning("endpoint %d: %s -> %s: %s", endpoint_id, row.status, demoted.status, reason)
            return ReportOutcome.RECORDED
        # Somebody wrote between reading and writing: look again.


def _write(row: EndpointHealth, demoted: HealthState, reason: str) -> bool:
    """Compare-and-set; whether the row still was as read."""
    with transaction.atomic():
        done = EndpointHealth.objects.filter(pk=row.pk, version=row.version).update(
            version=row.version + 1,
            status=demoted.status.value,
            status_since=datetime.fromtimestamp(demoted.status_since, UTC),
            consecutive_failures=demoted.failures,
            last_error=reason[:500],
            next_check=datetime.now(UTC),
        )
        if done:
            Revision.bump()
    return bool(done)
