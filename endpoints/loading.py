"""Tables to Snapshot: the only reader of the tables for web processes.

    current()      the snapshot in force; never waits once one exists
    refresh()      one look: re-read when the revision moved (blocking; runs in the loader's own thread)
    start_loader() the background task that looks every second

When the database cannot be read the last snapshot keeps serving; `health()` says since when and why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.db import DatabaseError, connection

from endpoints import tasks
from endpoints.conf import conf
from endpoints.database_thread import KEPT_OPEN, DatabaseThread
from endpoints.models import ProberLease, Revision
from endpoints.records import load_aliases, load_rules
from endpoints.rereading import Records
from endpoints.snapshot import EMPTY, Snapshot, build_snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoaderHealth:
    """How fresh the snapshot is: seconds since the epoch, and the error while the database is unreadable."""

    confirmed_at: float
    prober_seen: float
    error: str


class Loader:
    """Holds the snapshot of this process and renews it. One writer thread, any number of readers."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY
        self.health = LoaderHealth(0.0, 0.0, "")
        self._lock = threading.Lock()
        self._records = Records()

    @property
    def remade(self) -> int:
        """How many endpoints' records the last reading made anew."""
        return self._records.remade

    def refresh(self, *, force: bool = False) -> Snapshot:
        """Look once; re-read changed endpoints when the revision moved, all when told to. Raises DatabaseError."""
        with self._lock:
            try:
                revision, prober_seen = _read_marks()
                if force:
                    self._records.forget()
                if force or revision != self.snapshot.revision or self._records.files_changed():
                    self.snapshot = self._build(revision)
            except DatabaseError as error:
                if not self.health.error:
                    logger.warning("the database cannot be read, the last snapshot keeps serving: %s", error)
                self.health = LoaderHealth(self.health.confirmed_at, self.health.prober_seen, str(error))
                raise
            if self.health.error:
                logger.warning("the database can be read again")
            self.health = LoaderHealth(time.time(), prober_seen, "")
            return self.snapshot

    def _build(self, revision: int) -> Snapshot:
        before = self.snapshot
        records, notable = self._records.read(os.environ)
        aliases = load_aliases()
        # A status that changed changes no model: the catalogue is the dearest part of a large snapshot.
        same_models = not notable and aliases == tuple(before.aliases.values())
        catalogue = before.catalogue if same_models else None
        return build_snapshot(revision, time.time(), records, aliases, load_rules(), catalogue=catalogue)

    def forget(self) -> None:
        """Start anew."""
        self.snapshot = EMPTY
        self.health = LoaderHealth(0.0, 0.0, "")
        self._records.forget()


def _read_marks() -> tuple[int, float]:
    """The revision number and when the prober last renewed its lease (0 for never)."""
    revision = Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0
    renewed = ProberLease.objects.filter(pk=1).values_list("renewed_at", flat=True).first()
    return revision, renewed.timestamp() if renewed else 0.0


Follower = Callable[[Snapshot], None]

_loader = Loader()
_database = DatabaseThread("olla-loading", keep=KEPT_OPEN)


def current() -> Snapshot:
    """The snapshot in force."""
    return _loader.snapshot


def health() -> LoaderHealth:
    """How fresh it is."""
    return _loader.health


def refresh(*, force: bool = False) -> Snapshot:
    """Look once, blocking, with a connection of its own; for commands and tests."""
    try:
        return _loader.refresh(force=force)
    finally:
        connection.close()


def forget() -> None:
    """Drop the snapshot, as at the start of the process; for tests."""
    _loader.forget()


async def look() -> None:
    """One look in the loader's own thread; a database that cannot be read is logged, not raised."""
    try:
        await _database.run(_loader.refresh)
    except DatabaseError:
        return


async def _keep_looking(follow: Follower) -> None:
    while True:
        await look()
        follow(current())
        await asyncio.sleep(conf().snapshot_interval)


def start_loader(follow: Follower) -> asyncio.Task[None]:
    """Start the background task of this process's event loop; `follow` is shown the snapshot after each look."""
    return tasks.spawn(_keep_looking(follow), "snapshot loader")
