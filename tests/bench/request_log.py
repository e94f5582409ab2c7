"""What the request log and the statistics add to a request, in this process.

    python -m tests.bench.request_log        prints microseconds of CPU a request

The log's part is one note on the event loop and a share of a batch written in a thread; statistics are counted
on the event loop. The record, made for both and for the log lines, is measured apart. All of it apart from the
server, since 40 us are less than what one run differs from the next on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "olla_site.settings")
ROUNDS, REQUESTS = 30, 2000
TOLD = 8  # at once, as they are while few requests are open
SCOPE = {"method": "POST", "path": "/olla/openai/v1/chat", "client": ("10.0.0.1", 5), "headers": []}
MAKING = "Request record, made and finished"
NOTING = "Request log on the event loop"
WRITING = "Request log written beside it"
LOG = "Request log on against off"
COUNTING = "Statistics on against off"


def main() -> None:
    """Measure on a database of its own and print."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OLLA_DATA_DIR"] = str(Path(folder))
        import django

        django.setup()
        for name, least, middle in measure():
            print(f"{name}: {least:.1f} us CPU a request, middle {middle:.1f}")


def measure() -> list[tuple[str, float, float]]:
    """(name, least, middle) in microseconds of CPU a request. Needs Django set up on an own database.

    The least is what the work costs; the middle, what it costs on a machine as busy as this one.
    """
    from django.core.management import call_command

    from proxy.finished import finish
    from proxy.journal import BATCH, Journal, Keys, write_rows
    from proxy.tallies import Tallies
    from tests.proxy.log_builders import make_record

    call_command("migrate", verbosity=0)
    keys, journal, tallies = Keys(), Journal(REQUESTS), Tallies()
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        records = make_records()
        made = _spent(make_records)
        spent[MAKING].append(made + asyncio.run(_spent_on_loop(partial(_each, finish, records))))
        # Rows are written of requests whose time passes, as they do.
        whole = [make_record(at=time.time(), request_id=each.request_id) for each in records]
        told = [whole[first : first + TOLD] for first in range(0, REQUESTS, TOLD)]
        spent[NOTING].append(_spent(partial(_each, journal.note, told)))
        spent[COUNTING].append(_spent(partial(_each, tallies.note, told)))
        batches = [whole[first : first + BATCH] for first in range(0, REQUESTS, BATCH)]
        spent[WRITING].append(_spent(partial(_each, partial(write_rows, keys=keys), batches)))
        journal._buffer.clear()
    spent[LOG] = [noted + written for noted, written in zip(spent[NOTING], spent[WRITING], strict=True)]
    return [(name, min(turns), median(turns)) for name, turns in spent.items()]


def make_records() -> list[Any]:
    """Records as the door makes them, each with its attempt."""
    from proxy.admission import begin_record
    from proxy.record import AttemptNote
    from proxy.request_id import choose_request_id
    from tests.proxy.log_builders import GPU

    records = []
    for _ in range(REQUESTS):
        record = begin_record(dict(SCOPE), choose_request_id(None), "openai")
        record.attempts.append(AttemptNote(GPU, record.started))
        record.status = 200
        records.append(record)
    return records


def _each(work: Callable[[Any], object], records: Iterable[Any]) -> None:
    deque(map(work, records), maxlen=0)


async def _spent_on_loop(work: Callable[[], object]) -> float:
    """As `_spent`, of work that wants an event loop: requests end on one."""
    return _spent(work)


def _spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
