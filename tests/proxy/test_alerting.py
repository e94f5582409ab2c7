"""What a web process sees for alerts."""

from __future__ import annotations

import time

from endpoints import loading
from endpoints.alerts.judging import AlertKind
from endpoints.loading import LoaderHealth
from proxy.alerting import WebFacts
from proxy.live import live


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
    assert (fact.subject, fact.is_bad, fact.lasts) == ("gpu", True, False)


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
