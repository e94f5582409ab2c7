"""The request log's writer: a bounded buffer in front of a database thread.

    start_journal()         with the ASGI lifespan: every finished request is noted from now on
    stop_journal()          at its end: what is buffered is written, within a moment
    journal_state()         what operators are told: buffered, written, dropped, and the error while it fails

Noting requests is one append on the event loop. Rows are written in batches, each in its own short transaction.
While the database is locked, full or gone the buffer fills up; what does not fit is dropped and counted, and
requests go on. Every web process writes its own rows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import django.db
from django.db import connection, transaction

from endpoints import tasks
from endpoints.conf import conf
from endpoints.database_thread import KEPT_OPEN, DatabaseThread
from proxy.finished import flush, subscribe, unsubscribe
from proxy.log_rows import COLUMNS, RowBuilder, UTCText, moment_of
from proxy.models import KEY_SHIFT, SEQUENCE_BITS, RequestLog, RollUpState, key_at
from proxy.record import RequestRecord

logger = logging.getLogger(__name__)

EVERY = 0.5  # seconds between batches when there is little to write
BATCH = 500
# By one statement. Each hands the interpreter's lock to the event loop and has to win it back, so a statement for
# each row costs five times as much; more rows would make the loop wait longer while they are made (8 us each).
ROWS_AT_ONCE = 25
# Seconds between two statements. Without them a request meets statement after statement, and waits for the lock
# each time it comes back from a system call: that was a fifth of the 99th percentile at one client.
BREATH = 0.001
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds before a batch that failed is tried again
STOP_SECONDS = 3.0
_TELL_EVERY = 60.0  # seconds between log lines about drops
_HOUR_KEYS = key_at(3600)
_CLOSING = 60.0  # seconds after its end until an hour may be summed up, less than `proxy.roll_ups.GRACE`
# What one row alone can be at fault for.
_ROW_FAULTS = (django.db.DataError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class JournalState:
    """How the request log of this process fares. `failing_since` is Unix time, None while writing works."""

    enabled: bool
    pending: int
    capacity: int
    written: int
    dropped: int
    failing_since: float | None
    error: str


class Keys:
    """Growing keys of one process."""

    def __init__(self) -> None:
        self._last = 0
        self.renew()

    def renew(self) -> None:
        """Be another writer: some process has chosen the same number."""
        self._writer = int.from_bytes(os.urandom(2)) % (1 << (KEY_SHIFT - SEQUENCE_BITS)) << SEQUENCE_BITS

    def next(self, ended: float) -> int:
        """A key for a request that ended then (Unix time), above all before it within the same millisecond."""
        key = (round(ended * 1000) << KEY_SHIFT) + self._writer
        last, steps = self._last, (1 << SEQUENCE_BITS) - 1
        if key >> KEY_SHIFT == last >> KEY_SHIFT and last & steps < steps:
            key = last + 1
        elif key <= last:
            # The order of keys within a process is the order they were given in: late ones come a little later.
            key = last + 1 if last & steps < steps else ((last >> KEY_SHIFT) + 1 << KEY_SHIFT) + self._writer
        self._last = key
        return key


class Journal:
    """The buffer and its writing. `note` and the counters belong to the event loop."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.time) -> None:
        self.capacity = capacity
        self.written = 0
        self.dropped = 0
        self.failing_since: float | None = None
        self.error = ""
        self._clock = clock
        self._buffer: deque[RequestRecord] = deque()
        self._keys = Keys()
        self._database = DatabaseThread("olla-request-log", keep=KEPT_OPEN)
        self._told_drops = 0
        self._told_at = 0.0
        self._writing = asyncio.Lock()

    def note(self, records: Sequence[RequestRecord]) -> None:
        """Keep finished records for the next batch, as many as there is room for; a sink, never waits."""
        room = max(self.capacity - len(self._buffer), 0)
        self._buffer.extend(records[:room])
        self.dropped += len(records[room:])

    @property
    def pending(self) -> int:
        """How many records wait to be written."""
        return len(self._buffer)

    async def run(self) -> None:
        """Write batches until cancelled."""
        pause = FIRST_PAUSE
        while True:
            if await self.write_batch():
                pause = FIRST_PAUSE
                if len(self._buffer) < BATCH:
                    await asyncio.sleep(EVERY)
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            self._tell_drops()

    async def write_batch(self) -> bool:
        """Write the oldest records; False when the database did not take them, which keeps them."""
        async with self._writing:
            batch = list(islice(self._buffer, BATCH))
            if not batch:
                return True
            try:
                written = await self._database.run(lambda: write_rows(batch, self._keys))
            except (django.db.Error, OSError) as error:
                self._note_failure(error)
                return False
            for _ in batch:
                self._buffer.popleft()
            self.written += written
            self.dropped += len(batch) - written
            if self.failing_since is not None:
                logger.warning("the request log is written again")
                self.failing_since, self.error = None, ""
            return True

    async def flush(self, within: float = STOP_SECONDS) -> None:
        """Write all there is, as far as the database takes it within so many seconds."""
        try:
            async with asyncio.timeout(within):
                while self._buffer and await self.write_batch():
                    pass
        except TimeoutError:
            pass
        if self._buffer:
            self.dropped += len(self._buffer)
            self._buffer.clear()
        self._tell_drops(now=True)
        self._database.close()

    def state(self) -> JournalState:
        """What operators are told."""
        return JournalState(
            True, self.pending, self.capacity, self.written, self.dropped, self.failing_since, self.error
        )

    def _note_failure(self, error: Exception) -> None:
        if self.failing_since is None:
            self.failing_since = self._clock()
            logger.warning("the request log cannot be written, requests go on: %s", error)
        self.error = str(error)

    def _tell_drops(self, *, now: bool = False) -> None:
        """Say that requests are missing in the log; not more often than once a minute."""
        fresh = self.dropped - self._told_drops
        if fresh and (now or self._clock() - self._told_at >= _TELL_EVERY):
            self._told_drops, self._told_at = self.dropped, self._clock()
            logger.error("the request log lacks %d more requests: %s", fresh, self.error or "too many at once")


def write_rows(records: Sequence[RequestRecord], keys: Keys) -> int:
    """Write a batch in one transaction; how many rows went in. Blocking. Raises django.db.Error, OSError."""
    try:
        return _insert(records, keys)
    except django.db.IntegrityError:
        keys.renew()
        return _insert(records, keys)
    except _ROW_FAULTS:
        logger.exception("a request cannot be logged; the others of its batch are written one by one")
        with transaction.atomic():  # all or none: a batch that fails further on is written once more
            return sum(_insert_alone(record, keys) for record in records)


def _insert_alone(record: RequestRecord, keys: Keys) -> int:
    try:
        return _insert([record], keys)
    except _ROW_FAULTS:
        return 0


def _insert(records: Sequence[RequestRecord], keys: Keys) -> int:
    # Not through model instances: filling those costs several times as much as writing the row.
    build = RowBuilder(UTCText().write if connection.vendor == "sqlite" else _adapt).build
    first = min((each.at + each.seconds for each in records), default=0.0)
    with transaction.atomic():
        for start in range(0, len(records), ROWS_AT_ONCE):
            if start:
                time.sleep(BREATH)
            rows = [
                build(each, keys.next(each.at + each.seconds)) for each in records[start : start + ROWS_AT_ONCE]
            ]
            _execute(len(rows), list(chain.from_iterable(rows)))
        _reopen_hour(first)
    return len(records)


def _execute(rows: int, values: list[Any]) -> None:
    """Insert some rows by one statement.

    SQLite's own cursor: Django's would look for its marks in the long text anew each time.
    """
    if connection.vendor == "sqlite":
        with connection.wrap_database_errors:
            connection.connection.execute(_statement(rows, "?"), values)
    else:
        with connection.cursor() as cursor:
            cursor.execute(_statement(rows, "%s"), values)


@lru_cache(maxsize=2 * ROWS_AT_ONCE)
def _statement(rows: int, mark: str) -> str:
    table = connection.ops.quote_name(RequestLog._meta.db_table)
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    row = f"({', '.join([mark] * len(COLUMNS))})"
    return f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - no value in it


def _adapt(unix_seconds: float) -> Any:
    return connection.ops.adapt_datetimefield_value(moment_of(unix_seconds))


def _reopen_hour(ended: float) -> None:
    """Have an hour rolled up anew that may have been closed before these rows came, which is rare."""
    hour = key_at(ended) // _HOUR_KEYS * _HOUR_KEYS
    if key_at(time.time() - _CLOSING) >= hour + _HOUR_KEYS:
        RollUpState.objects.filter(rolled_until__gt=hour, pruned_until__lte=hour).update(rolled_until=hour)


_started: list[tuple[Journal, asyncio.Task[None]]] = []


def start_journal() -> None:
    """Log every request that ends from now on, if the settings want it."""
    if conf().request_log and not _started:
        journal = Journal(conf().request_log_buffer)
        subscribe(journal.note)
        _started.append((journal, tasks.spawn(journal.run(), "request log")))


async def stop_journal() -> None:
    """Write what is left and stop; a second time does nothing."""
    flush()
    while _started:
        journal, task = _started.pop()
        unsubscribe(journal.note)
        task.cancel()
        await journal.flush()


def journal_state() -> JournalState:
    """How the request log of this process fares."""
    return _started[0][0].state() if _started else JournalState(False, 0, 0, 0, 0, None, "")


__all__ = ["Journal", "JournalState", "Keys", "journal_state", "start_journal", "stop_journal", "write_rows"]
