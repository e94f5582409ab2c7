"""Every page with 200 endpoints and 2,000 models: a constant number of queries, quick, and light to load."""

from __future__ import annotations

import gzip
import re
import sys
import time
import traceback
from functools import cache
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.browser.scenes import crowd
from tests.portal.every_page import PAGES, every_address, fill

pytestmark = pytest.mark.django_db

HEAVIEST = 250_000  # bytes over the wire, of the page and every file it names, with nothing in the browser's cache
PROMISED = 0.3  # seconds of processor time
UNIT = 0.010  # the same that `unit` takes on a machine that must keep the promise; a slower one is given more
FILE = re.compile(rb'(?:src|href)="/static/([^"?]+)')


def unit() -> float:
    """Processor seconds of a fixed piece of work much like drawing a page: looking up, escaping, joining."""
    began = time.process_time()
    for _ in range(17):
        names = {f"endpoint-{number}": number for number in range(1000)}
        "".join(f"<td>{name.replace('&', '&amp;')}</td>" for name, number in names.items() if number >= 0)
    return time.process_time() - began


def wait_for_quiet() -> None:
    """Until no thread of this process is at work: what an earlier test left running would count as the page's."""
    deadline = time.monotonic() + 60
    while True:
        began = time.process_time()
        time.sleep(0.1)
        if time.process_time() - began < 0.01:
            return
        stacks = ["".join(traceback.format_stack(frame, 6)) for frame in sys._current_frames().values()]
        assert time.monotonic() < deadline, "\n\n".join(["never quiet", *stacks])


def get(client: Client, address: str) -> tuple[float, bytes]:
    began = time.process_time()
    response = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert response.status_code == 200, address
    return time.process_time() - began, response.content


def weigh(page: bytes) -> int:
    """Bytes of a page as sent and of its files, which are sent in gzip too."""
    text = gzip.decompress(page) if page.startswith(b"\x1f\x8b") else page
    return len(page) + sum(weigh_file(name.decode()) for name in set(FILE.findall(text)))


@cache
def weigh_file(name: str) -> int:
    return len(gzip.compress(Path(str(finders.find(name))).read_bytes()))


@pytest.mark.usefixtures("frozen_heap")
def test_it_draws_every_page_of_a_large_fleet_quickly_and_lightly(admin_client):
    fill(crowd(200, 10), "a team's own rule", 60)
    queries, slow, heavy = {}, {}, {}  # by pattern
    for pattern, address in every_address(admin_client):
        for _ in range(12):  # what is compiled and counted once, and what else runs, may spoil a look
            wait_for_quiet()
            before = unit()
            with CaptureQueriesContext(connection) as seen:
                took, page = get(admin_client, address)
            # Not less where `unit` is quick: it lives in the processor's cache, a page does not.
            limit = PROMISED * max(1.0, before / UNIT, unit() / UNIT)
            if took < limit and len(seen) == PAGES[pattern]:
                break
        queries[pattern], heavy[pattern] = len(seen), weigh(page)
        if took > limit:
            slow[pattern] = f"{took:.3f} s, where {limit:.3f} s are promised"

    assert slow == {}
    assert {pattern: size for pattern, size in heavy.items() if size > HEAVIEST} == {}
    assert queries == PAGES
