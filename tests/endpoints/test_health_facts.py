"""The prober's latest rows, read when somebody asks and never waited for."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from endpoints import loading
from endpoints.health_facts import HealthBoard, HealthFacts, facts_of, read_health_facts
from endpoints.models import Endpoint, EndpointHealth, Revision
from tests.proxy.builders import make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)


def add(name: str, **columns) -> int:
    endpoint = Endpoint.objects.create(name=name, url=f"http://{name}.test", backend_type="auto")
    EndpointHealth.objects.create(endpoint=endpoint, **columns)
    Revision.bump()
    loading.refresh(force=True)
    return endpoint.pk


def test_it_reads_every_row():
    now = timezone.now()
    key = add(
        "one", last_checked=now, next_check=now + timedelta(seconds=5), latency_ms=3.5, consecutive_failures=2,
        models_checked=now, models_error="no list", detected_type="vllm", version=7,
    )  # fmt: skip
    assert read_health_facts() == {
        key: HealthFacts(
            failures=2, last_checked=now.timestamp(), next_check=now.timestamp() + 5, latency_ms=3.5,
            models_checked=now.timestamp(), models_error="no list", detected_type="vllm", updates=7,
            configured_type="auto",
        )
    }  # fmt: skip


def test_it_falls_back_to_what_the_snapshot_knows():
    endpoint = make_endpoint("gpu")
    found = facts_of(endpoint, {})
    assert (found.last_checked, found.next_check) == (endpoint.last_checked, endpoint.next_check)


async def test_it_asks_the_database_once_for_many(monkeypatch):
    monkeypatch.setattr("endpoints.health_facts.KEPT_SECONDS", 3600)
    monkeypatch.setattr("endpoints.health_facts.PATIENCE_SECONDS", 60)
    key = await sync_to_async(add)("one", latency_ms=1.0)
    board = HealthBoard()
    first = await asyncio.gather(*(board.latest() for _ in range(20)))
    assert all(each is first[0] for each in first)
    await sync_to_async(EndpointHealth.objects.update)(latency_ms=2.0)
    assert (await board.latest())[key].latency_ms == 1.0  # within the time it is kept


async def test_it_reads_anew_with_a_new_snapshot(monkeypatch):
    monkeypatch.setattr("endpoints.health_facts.PATIENCE_SECONDS", 60)
    key = await sync_to_async(add)("one", latency_ms=1.0)
    board = HealthBoard()
    await board.latest()
    await sync_to_async(EndpointHealth.objects.update)(latency_ms=2.0)
    await sync_to_async(add)("two")
    assert (await board.latest())[key].latency_ms == 2.0


async def test_it_answers_with_what_it_knew_while_the_database_does_not(monkeypatch):
    key = await sync_to_async(add)("one", latency_ms=1.0)
    board = HealthBoard()
    before = await board.latest()
    monkeypatch.setattr("endpoints.health_facts.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("endpoints.health_facts.KEPT_SECONDS", 0.0)
    held = threading.Event()
    slow = asyncio.ensure_future(board._database.run(held.wait))  # the thread is stuck in another question
    assert await board.latest() is before
    assert before[key].latency_ms == 1.0
    held.set()
    await slow


async def test_it_survives_a_database_without_tables():
    await sync_to_async(add)("one")
    board = HealthBoard()

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER TABLE "{old}" RENAME TO "{new}"')

    table = EndpointHealth._meta.db_table
    await sync_to_async(rename)(table, "elsewhere")
    try:
        assert await board.latest() == {}
    finally:
        await sync_to_async(rename)("elsewhere", table)
