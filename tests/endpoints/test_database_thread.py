"""The thread of an event loop's table work: whose connection it uses, and for how long."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper

from endpoints.database_thread import DatabaseThread
from endpoints.models import Endpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The thread of each connection that is opened."""
    threads: list[str] = []

    def note(**_facts: Any) -> None:
        threads.append(threading.current_thread().name)

    connection_created.connect(note)
    yield threads
    connection_created.disconnect(note)


def fail() -> None:
    """Read, then fail."""
    Endpoint.objects.count()
    raise LookupError("no such thing")


def open_connection() -> BaseDatabaseWrapper:
    """The thread's own connection, open."""
    connection.ensure_connection()
    return connections[DEFAULT_DB_ALIAS]


async def read_twice(thread: DatabaseThread, between: Callable[[], Any] | None = None) -> None:
    assert await thread.run(Endpoint.objects.count) == 0
    if between is not None:
        await between()
    assert await thread.run(Endpoint.objects.count) == 0
    thread.close()


async def test_it_works_with_a_fresh_connection_each_time(opened: list[str]) -> None:
    await read_twice(DatabaseThread("fresh"))
    assert opened == ["fresh", "fresh"]


async def test_it_keeps_a_connection_where_told_to(opened: list[str]) -> None:
    await read_twice(DatabaseThread("kept", keep=60))
    assert opened == ["kept"]


async def test_it_closes_a_kept_connection_that_nobody_uses(opened: list[str]) -> None:
    thread = DatabaseThread("idle", keep=0.05)
    handle = await thread.run(open_connection)
    async with asyncio.timeout(30):
        while handle.connection is not None:
            await asyncio.sleep(0.01)
    assert await thread.run(Endpoint.objects.count) == 0
    assert opened == ["idle", "idle"]
    thread.close()


async def test_it_closes_a_kept_connection_in_use_when_its_time_is_over(opened: list[str]) -> None:
    thread = DatabaseThread("busy", keep=0.05)
    async with asyncio.timeout(30):
        while len(opened) < 3:
            assert await thread.run(Endpoint.objects.count) == 0
    thread.close()


async def test_it_keeps_no_connection_on_which_work_failed(opened: list[str]) -> None:
    thread = DatabaseThread("failed", keep=60)

    async def fail_once() -> None:
        with pytest.raises(LookupError, match="no such thing"):
            await thread.run(fail)

    await read_twice(thread, fail_once)
    assert opened == ["failed", "failed"]


async def test_it_notices_at_once_that_its_file_was_replaced(tmp_path: Path) -> None:
    for number in (1, 2):
        with closing(sqlite3.connect(tmp_path / str(number), isolation_level=None)) as file:
            file.execute("CREATE TABLE kept (number)")
            file.execute("INSERT INTO kept VALUES (?)", (number,))
    thread = DatabaseThread("replaced", keep=60)
    await thread.run(lambda: use_file(tmp_path / "1"))
    assert [await thread.run(read_number) for _ in range(2)] == [1, 1]
    (tmp_path / "2").replace(tmp_path / "1")
    assert await thread.run(read_number) == 2
    thread.close()


def use_file(path: Path) -> None:
    """Have this thread work on another database."""
    settings = {**connection.settings_dict, "NAME": str(path)}
    connections[DEFAULT_DB_ALIAS] = DatabaseWrapper(settings, DEFAULT_DB_ALIAS)


def read_number() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM kept")
        return int(cursor.fetchone()[0])


async def test_it_ends_after_the_work_it_was_given() -> None:
    thread = DatabaseThread("ending", keep=60)
    work = asyncio.ensure_future(thread.run(Endpoint.objects.count))
    await asyncio.sleep(0)
    thread.close()
    assert await work == 0
    async with asyncio.timeout(30):
        while any(each.name == "ending" for each in threading.enumerate()):
            await asyncio.sleep(0.01)
