"""What a web process sees for alerts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing

from asgiref.sync import sync_to_async
from django.db import connection

from endpoints import loading
from endpoints.alerts.judging import AlertKind
from endpoints.alerts.watching import Watcher
from endpoints.loading import LoaderHealth
from endpoints.models import AlertHook
from endpoints.tasks import running_tasks
from proxy.alerting import WebFacts
from proxy.journal import Journal
from proxy.live import live
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.log_builders import make_record


def facts_of(kind: AlertKind, now: float | None = None, web: WebFacts | None = None):
    return [each for each in (web or WebFacts()).look(now or time.time()) if each.kind is kind]


async def test_it_sees_a_breaker_that_opened(proxy):
    endpoint = await proxy.add("http://127.0.0.1:9", "gpu")
    assert facts_of(AlertKind.BREAKER) == []
    for _ in range(live.breaker.threshold):
        ticket = live.breaker.try_enter(endpoint.pk, time.monotonic())
        assert ticket is not None
        live.breaker.fail(ticket, time.monotonic())
    [fact] = facts_of(AlertKind.BREAKER)
    assert (fact.subject, fact.is_bad, fact.lasts, fact.muted) == ("gpu", True, False, False)
    endpoint.state = "maintenance"
    await endpoint.asave()
    await proxy.refresh()
    assert [each.muted for each in facts_of(AlertKind.BREAKER)] == [True]


async def test_it_sees_a_prober_that_is_silent_only_while_the_database_can_be_read(proxy):
    await proxy.add("http://127.0.0.1:9", "gpu")
    now = time.time()
    seen = loading._loader.health
    try:
        for silence, error, expected in ((10, "", [False]), (300, "", [True]), (300, "locked", [])):
            loading._loader.health = LoaderHealth(now, now - silence, error)
            assert [each.is_bad for each in facts_of(AlertKind.PROBER, now)] == expected
    finally:
        loading._loader.health = seen


async def test_it_sees_no_dropped_rows_where_none_were(proxy):
    [fact] = facts_of(AlertKind.REQUEST_LOG)
    assert (fact.is_bad, fact.lasts) == (False, False)


async def test_it_tells_of_dropped_rows_once_the_database_is_back(transactional_db, settings, monkeypatch):
    """Rows are dropped because the database is locked, and then nobody can be told either: not for good."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    journal = Journal(2)
    facts = WebFacts(journal.state)
    watcher = Watcher(facts.look, in_thread=False, settle=facts.settle)
    now = time.time()
    async with ScriptedBackend(json_reply({})) as hook:
        await sync_to_async(AlertHook.objects.create)(name="ops", url=hook.url, events="request_log")
        await watcher.look(now)
        blocker = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        with closing(blocker):
            blocker.execute("BEGIN IMMEDIATE")
            for _ in range(5):
                journal.note([make_record()])
            await watcher.look(now + 5)
            blocker.execute("ROLLBACK")
        assert hook.requests == []
        for later in (10, 15, 20):
            await watcher.look(now + later)
        await hook.wait_requests(1)
        journal.note([make_record()])
        await watcher.look(now + 25)  # again within OLLA_ALERT_REPEAT
        while running_tasks():
            await asyncio.sleep(0.01)
        [told] = [each.json() for each in hook.requests]
    watcher._database.close()
    await watcher._door.aclose()
    assert (told["event"], told["subject"]) == ("request_log_drops", "request log")
    assert "dropped 3 rows" in told["message"]
