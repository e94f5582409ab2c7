"""The background task that looks after endpoints to be disabled once drained (endpoints/drains.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime

import django.db
from django.utils import timezone

from endpoints import loading, tasks
from endpoints.database_thread import DatabaseThread
from endpoints.drains import LOOK_SECONDS, settle_drains
from endpoints.health import OperatorState
from endpoints.snapshot import Snapshot
from proxy.live import live

logger = logging.getLogger(__name__)
_database = DatabaseThread("olla-draining")


async def settle(snapshot: Snapshot, in_flight: Mapping[int, int], now: datetime) -> list[str]:
    """One look: the names of endpoints disabled. Touches the database only while something drains so."""
    waiting = [
        each.id for each in snapshot.endpoints if each.drain_then_disable and each.state is OperatorState.DRAINING
    ]
    if not waiting:
        return []
    busy = [each for each in waiting if in_flight.get(each, 0) > 0]
    idle = [each for each in waiting if each not in busy]
    try:
        return await _database.run(lambda: settle_drains(busy, idle, now))
    except django.db.Error as error:
        logger.warning("drained endpoints cannot be disabled yet: %s", error)
        return []


async def _keep_settling() -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await settle(loading.current(), live.in_flight, timezone.now())


def start_settling() -> asyncio.Task[None]:
    """Start the background task of this process's event loop."""
    return tasks.spawn(_keep_settling(), "drained endpoints")
