"""Work the prober's process does beside probing, once in a while: other applications register theirs.

    register_chore("request log", 60.0, function)      in an AppConfig's ready()

A chore is a blocking function that works on the tables. Each has a thread of its own, so that none holds up a
probe; it runs in the active prober only, and must not mind being cut off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import django.db

from endpoints import tasks
from endpoints.database_thread import DatabaseThread

logger = logging.getLogger(__name__)

FIRST_AFTER = 5.0  # seconds: the first probes go before


@dataclass(frozen=True, slots=True)
class Chore:
    """One chore: run again `every` seconds after it has ended."""

    name: str
    every: float
    function: Callable[[], object]


_chores: dict[str, Chore] = {}


def register_chore(name: str, every: float, function: Callable[[], object]) -> None:
    """Have the prober's process run `function`."""
    _chores[name] = Chore(name, every, function)


def start_chores(is_active: Callable[[], bool]) -> list[asyncio.Task[None]]:
    """Run every registered chore while `is_active`; cancel the tasks to end them."""
    return [tasks.spawn(keep_doing(each, is_active), each.name) for each in _chores.values()]


async def keep_doing(chore: Chore, is_active: Callable[[], bool], first_after: float = FIRST_AFTER) -> None:
    """One chore again and again; a database that cannot be used is tried again next time."""
    database = DatabaseThread(f"olla-chore-{chore.name.replace(' ', '-')}")
    pause = first_after
    try:
        while True:
            await asyncio.sleep(pause)
            pause = chore.every
            if not is_active():
                continue
            try:
                await database.run(chore.function)
            except django.db.Error as error:
                logger.warning("%s: the database cannot be used, to be done later: %s", chore.name, error)
    finally:
        database.close()
