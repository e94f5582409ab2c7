"""The feed: differences between pictures, and a task that ends when nobody listens."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from endpoints.models import Endpoint, EndpointHealth
from olla_site.portal.feed import Feed, compare
from olla_site.portal.log_feed import MOST_ROWS, LogFeed
from olla_site.portal.picture import take_picture
from tests.portal.fleet_rows import endpoint, lease, load_now
from tests.portal.test_requests_page import NOW, log


@pytest.mark.django_db
def test_it_tells_only_what_changed():
    lease()
    first, second = endpoint("a", "m"), endpoint("b")
    load_now()
    before = take_picture()
    EndpointHealth.objects.filter(pk=first.pk).update(latency_ms=250.0)

    message = compare(before, take_picture())

    assert message == {"rows": {str(first.pk): {"probe": "250"}}}
    assert str(second.pk) not in message["rows"]


@pytest.mark.django_db
def test_it_says_nothing_when_nothing_changed():
    lease()
    endpoint("a")
    load_now()
    picture = take_picture()

    assert compare(picture, take_picture()) == {}


@pytest.mark.django_db
def test_it_has_pages_fetch_rows_that_came_or_were_renamed():
    lease()
    one = endpoint("a")
    load_now()
    before = take_picture()
    Endpoint.objects.filter(pk=one.pk).update(name="b")
    load_now()
    renamed = take_picture()
    endpoint("c")
    load_now()

    assert compare(before, renamed)["shape"] == renamed.shape
    assert compare(renamed, take_picture())["shape"] not in {before.shape, renamed.shape}


@pytest.mark.django_db
def test_it_keeps_the_shape_when_the_order_changes():
    lease()
    endpoint("a")
    two = endpoint("b")
    load_now()
    before = take_picture()
    EndpointHealth.objects.filter(pk=two.pk).update(status="offline")
    load_now()
    after = take_picture()

    assert [row.name for row in after.rows] == ["b", "a"]
    assert "shape" not in compare(before, after)


@pytest.mark.django_db
def test_it_puts_no_secret_on_the_wire():
    lease()
    endpoint("a", auth_type="bearer", auth_secret="sk-tiger", extra_headers="X-Team: zebra-value")
    load_now()

    text = Feed().full_message()

    assert "sk-tiger" not in text
    assert "zebra-value" not in text


@pytest.mark.django_db
def test_it_gives_a_newcomer_no_picture_older_than_his_page():
    lease()
    endpoint("a")
    load_now()
    feed = Feed()
    feed.difference()
    endpoint("b")
    load_now()

    told = json.loads(feed.full_message())

    assert told["summary"]["total"] == 2
    assert told["shape"] == take_picture().shape


async def wait_until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
async def test_it_works_only_while_somebody_listens():
    feed = Feed()
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    full = json.loads(await feed.join(listen))
    assert full["summary"]["total"] == 0
    assert feed.is_running
    await wait_until(lambda: heard)  # a finished step of the history at the latest
    assert set(json.loads(heard[0])) <= {"point", "summary"}

    feed.leave(listen)
    await wait_until(lambda: not feed.is_running)


@pytest.mark.django_db(transaction=True)
async def test_it_draws_once_however_many_listen():
    feed = Feed()
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    async def listen_too(text: str) -> None:
        heard.append(text)

    await feed.join(listen)
    await feed.join(listen_too)
    await wait_until(lambda: len(heard) >= 2)
    assert heard[0] is heard[1]
    feed.leave(listen)
    feed.leave(listen_too)
    await wait_until(lambda: not feed.is_running)


# ------------------------------------------------------------------------------------------------ request log


def just_now() -> float:
    """This moment as `log` counts."""
    return 1000 + time.time() - NOW


def rows_told(text: str) -> list[str]:
    return re.findall(r'data-key="(\d+)"', json.loads(text)["log"]) if text else []


@pytest.mark.django_db
def test_it_tells_each_new_row_of_the_log_once():
    feed, newest = LogFeed(), just_now()
    assert feed.difference() == ""
    old, first = log(newest - 60), log(newest - 1, model="<script>alert(1)</script>")

    told = feed.difference()
    assert rows_told(told) == [str(first.pk)]
    assert "<script>" not in told
    assert feed.difference() == ""

    late, second = log(newest - 2), log(newest)  # another process writes its rows a moment later
    assert rows_told(feed.difference()) == [str(second.pk), str(late.pk)]
    assert old.pk not in feed._told


@pytest.mark.django_db
def test_it_tells_rows_written_long_before_a_late_look(monkeypatch):
    feed, moment = LogFeed(), just_now()
    assert feed.difference() == ""
    row = log(moment)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)

    assert rows_told(feed.difference()) == [str(row.pk)]


@pytest.mark.django_db
def test_it_does_not_tell_what_came_while_nobody_listened(monkeypatch):
    feed, moment = LogFeed(), just_now()
    log(moment)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)

    feed.full_message()

    assert feed.difference() == ""


@pytest.mark.django_db
def test_it_tells_of_a_crowd_only_the_newest():
    feed = LogFeed()
    moment = just_now()  # once: as time goes on, two rows would fall on one instant
    rows = [log(moment - number / 100) for number in range(MOST_ROWS + 10)]

    told = rows_told(feed.difference())

    assert told == [str(row.pk) for row in sorted(rows, key=lambda row: -row.pk)[:MOST_ROWS]]
