"""What web processes write when an endpoint cannot be reached."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from endpoints import reports
from endpoints.health import Status
from endpoints.models import Endpoint, EndpointHealth, Revision
from endpoints.reports import ReportOutcome, record_unreachable, report_unreachable

pytestmark = pytest.mark.django_db(transaction=True)


def make(status=Status.HEALTHY, checked_ago=3.0) -> EndpointHealth:
    endpoint = Endpoint.objects.create(name=f"e{Endpoint.objects.count()}", url="http://127.0.0.1:1")
    now = timezone.now()
    return EndpointHealth.objects.create(
        endpoint=endpoint,
        status=status.value,
        last_checked=now - timedelta(seconds=checked_ago),
        next_check=now + timedelta(seconds=50),
        latency_ms=7.0,
    )


def revision() -> int:
    return Revision.objects.values_list("number", flat=True).first() or 0


def test_it_demotes_an_endpoint_and_calls_for_a_probe():
    row, before, seen = make(), revision(), time.time()
    assert record_unreachable(row.pk, "refused", seen) is ReportOutcome.RECORDED
    row.refresh_from_db()
    assert (row.status, row.consecutive_failures, row.last_error, row.version) == ("offline", 1, "refused", 1)
    assert row.status_since == datetime.fromtimestamp(seen, UTC)
    assert row.next_check <= timezone.now()
    assert revision() == before + 1


@pytest.mark.parametrize("status", [s for s in Status if s not in {Status.HEALTHY, Status.BUSY, Status.WARMING}])
def test_it_leaves_an_endpoint_that_is_down_alone(status):
    row, before = make(status), revision()
    assert record_unreachable(row.pk, "refused", time.time()) is ReportOutcome.ALREADY_DOWN
    row.refresh_from_db()
    assert (row.status, row.version, revision()) == (status.value, 0, before)


def test_it_believes_a_later_probe():
    row = make(checked_ago=1.0)
    assert record_unreachable(row.pk, "refused", time.time() - 5) is ReportOutcome.SUPERSEDED
    row.refresh_from_db()
    assert row.status == "healthy"


def test_it_forgets_an_endpoint_that_is_gone():
    assert record_unreachable(12345, "refused", time.time()) is ReportOutcome.SUPERSEDED


def test_it_shortens_a_long_reason():
    row = make()
    record_unreachable(row.pk, "x" * 900, time.time())
    row.refresh_from_db()
    assert len(row.last_error) == 500


async def test_it_merges_reports_of_one_endpoint():
    row = await asyncio.to_thread(make)
    outcomes = await asyncio.gather(*(report_unreachable(row.pk, "refused", time.time()) for _ in range(50)))
    assert set(outcomes) == {ReportOutcome.RECORDED}
    stored = await asyncio.to_thread(EndpointHealth.objects.get, pk=row.pk)
    assert (stored.consecutive_failures, stored.version) == (1, 1)
    assert not reports._pending


async def test_it_keeps_the_later_of_merged_reports():
    row = await asyncio.to_thread(make, checked_ago=5.0)
    now = time.time()
    early = asyncio.ensure_future(report_unreachable(row.pk, "early", now - 10))
    late = asyncio.ensure_future(report_unreachable(row.pk, "late", now))
    assert [await early, await late] == [ReportOutcome.RECORDED] * 2
    assert (await asyncio.to_thread(EndpointHealth.objects.get, pk=row.pk)).last_error == "late"


async def test_it_tries_on_while_the_database_is_locked(monkeypatch):
    row = await asyncio.to_thread(make)
    locked, unlock = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN EXCLUSIVE")
                loop.call_soon_threadsafe(locked.set)
                unlock.wait(30)
                cursor.execute("ROLLBACK")
        finally:
            connection.close()

    # The lock's own timeout is five seconds: a shorter one makes the write fail, as a longer lock would.
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    holder = asyncio.ensure_future(asyncio.to_thread(hold))
    await locked.wait()
    report = asyncio.ensure_future(report_unreachable(row.pk, "refused", time.time()))
    await asyncio.sleep(0.3)
    assert not report.done()
    unlock.set()
    await holder
    async with asyncio.timeout(10):
        assert await report is ReportOutcome.RECORDED


async def test_it_survives_a_caller_that_leaves():
    row = await asyncio.to_thread(make)
    caller = asyncio.ensure_future(report_unreachable(row.pk, "refused", time.time()))
    await asyncio.sleep(0)
    _, task = reports._pending[row.pk]
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(10):
        assert await task is ReportOutcome.RECORDED
    assert (await asyncio.to_thread(EndpointHealth.objects.get, pk=row.pk)).status == "offline"
