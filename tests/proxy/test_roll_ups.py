"""Hourly sums that count each request once, and a log that loses its old rows without getting in the way."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from proxy.models import RequestHour, RequestLog, RollUpState, key_at
from proxy.record import Outcome
from proxy.roll_ups import GRACE, HOUR, Totals, prune, roll_up, totals
from tests.proxy.log_builders import CPU, START, fill, make_record, make_traffic

DAY = 24 * HOUR


def test_it_sums_up_what_has_ended(db: None) -> None:
    fill(iter([
        make_record(START, seconds=0.5, first_byte=0.25),
        make_record(START + 10, seconds=1.5, first_byte=0.25, stream=True),
        make_record(START + 20, outcome=Outcome.BROKEN, seconds=9, endpoint=CPU),
        make_record(START + 30, outcome=Outcome.REJECTED, endpoint=None, model="invented-by-a-client"),
        make_record(START + HOUR + 1),
    ]))  # fmt: skip
    assert roll_up(START + HOUR + GRACE - 1) == 0
    assert roll_up(START + HOUR + GRACE) == 1
    hours = {(each.endpoint, each.model): each for each in RequestHour.objects.all()}
    assert set(hours) == {("gpu-1", "m"), ("cpu-1", "m"), ("", "")}
    gpu = hours["gpu-1", "m"]
    assert gpu.hour.timestamp() == START
    assert (gpu.requests, gpu.successes, gpu.streams, gpu.attempts) == (2, 2, 1, 2)
    assert (gpu.total_ms, gpu.first_byte_ms, gpu.response_bytes) == (2000.0, 500.0, 2000)
    assert (hours["cpu-1", "m"].broken, hours["cpu-1", "m"].total_ms) == (1, 0.0)
    assert (hours["", ""].rejected, hours["", ""].attempts) == (1, 0)


def test_it_counts_nothing_twice_however_often_it_sums(db: None) -> None:
    fill(make_traffic(500, START, START + 5 * HOUR))
    seen = [totals()]
    for now in (START + 2.5 * HOUR, START + 2.5 * HOUR, START + 4 * HOUR, START + 9 * HOUR, START + 9 * HOUR):
        roll_up(now)
        seen.append(totals())
    RollUpState.objects.update(rolled_until=key_at(START))
    roll_up(START + 9 * HOUR)
    seen.append(totals())
    assert {each.requests for each in seen} == {500}
    assert len(set(seen)) == 1
    assert RequestHour.objects.count() == 5 * 20


def test_it_takes_up_rows_that_come_late(db: None) -> None:
    fill(iter([make_record(START)]))
    roll_up(START + 3 * HOUR)
    fill(iter([make_record(START + 5), make_record(START + HOUR)]))
    before = totals()
    roll_up(START + 3 * HOUR)
    assert (before.requests, totals().requests) == (3, 3)
    assert [each.requests for each in RequestHour.objects.order_by("hour")] == [2, 1]


def test_it_keeps_the_totals_when_rows_go(db: None) -> None:
    fill(make_traffic(40, START, START + 20 * DAY))
    told = totals()
    done = prune(START + 20 * DAY, 14, 365, rest=lambda _: None)
    assert done.rows == 12
    assert RequestLog.objects.order_by("id")[0].ended.timestamp() >= START + 6 * DAY
    assert totals() == told
    assert prune(START + 20 * DAY, 14, 365, rest=lambda _: None).rows == 0
    # The sums of hours whose rows are gone are never made anew.
    RollUpState.objects.update(rolled_until=0)
    roll_up(START + 20 * DAY)
    assert totals() == told


def test_it_lets_go_of_sums_and_keeps_all_where_told_so(db: None) -> None:
    fill(make_traffic(40, START, START + 400 * DAY))
    now = START + 400 * DAY
    assert prune(now, 0, 0, rest=lambda _: None).rows == 0
    done = prune(now, 14, 365, rest=lambda _: None)
    assert (done.rows, done.hours) == (39, 4)
    assert RequestHour.objects.order_by("hour")[0].hour.timestamp() >= now - 365 * DAY
    assert totals().requests == 36


def test_it_bounds_the_groups_of_an_hour(db: None) -> None:
    fill(make_record(START + number / 1000, model=f"m{number}") for number in range(1200))
    roll_up(START + 2 * HOUR)
    assert RequestHour.objects.count() == 1001
    assert RequestHour.objects.get(model="other").requests == 200


def test_it_behaves_for_a_day_in_fast_forward(db: None) -> None:
    """Retention of six hours, the chore twice an hour, traffic all the time: the log keeps its length."""
    sizes: list[int] = []
    for minute in range(0, 24 * 60, 30):
        now = START + minute * 60
        fill(make_traffic(45, now, now + 1800))
        prune(now + 1800, 0.25, 1, rest=lambda _: None)
        sizes.append(RequestLog.objects.count())
    assert max(sizes[16:]) <= 7 * 90
    assert min(sizes[16:]) >= 6 * 90
    assert totals().requests == 48 * 45


def test_it_prunes_by_command(db: None, settings: Any) -> None:
    settings.OLLA_REQUEST_LOG_DAYS = 14
    now = time.time()
    fill(make_traffic(20, now - 20 * DAY, now - HOUR))
    out = StringIO()
    call_command("prune", stdout=out)
    left = RequestLog.objects.count()
    assert 13 <= left <= 15
    assert f"{20 - left} rows" in out.getvalue()
    call_command("prune", "--days", "0", stdout=out)
    assert RequestLog.objects.count() == left


@pytest.mark.long_form
@pytest.mark.django_db(transaction=True)
def test_it_blocks_no_writer_while_it_prunes(long_form: bool) -> None:
    count = 1_000_000 if long_form else 8_000
    fill(make_traffic(count, START, START + DAY))
    longest, writes, stop = [0.0], Counter[str](), threading.Event()

    def write() -> None:
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=60)
        while not stop.is_set():
            began = time.perf_counter()
            other.execute("UPDATE proxy_rollupstate SET pruned_until = pruned_until")
            longest[0] = max(longest[0], time.perf_counter() - began)
            writes["done"] += 1
            stop.wait(0.005)
        other.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = prune(START + 1.5 * DAY, 1, 365)
    finally:
        stop.set()
        writer.join()
    assert abs(done.rows - count / 2) <= 4  # rows begun just before the bound end behind it
    assert writes["done"] >= 3
    # What a writer waits for a lock before it gives up; 0.2 s on a quiet machine.
    assert done.longest < 5.0
    print("longest chunk", done.longest, "longest write", longest[0])
    assert longest[0] < 5.0


def test_it_knows_nothing_at_first(db: None) -> None:
    assert totals() == Totals()
    assert roll_up(START) == 0
