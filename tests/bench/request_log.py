"""What the request log adds to a request, in this process: the record, its note, and its share of a batch written.

    python -m tests.bench.request_log        prints microseconds of CPU a request

Measured apart from the server, since 40 us are less than what one run differs from the next on a busy machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from pathlib import Path
from secrets import token_hex
from statistics import median

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "olla_site.settings")
ROUNDS, REQUESTS = 15, 2000


def main() -> None:
    """Measure on a database of its own and print."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OLLA_DATA_DIR"] = str(Path(folder))
        import django

        django.setup()
        for name, spent in measure():
            print(f"{name}: {spent:.1f} us CPU a request")


def measure() -> list[tuple[str, float]]:
    """(name, microseconds of CPU a request), of several rounds. Needs Django set up on an own database."""
    from django.core.management import call_command

    from proxy.finished import finish, subscribe, unsubscribe
    from proxy.journal import BATCH, Journal, Keys, write_rows
    from tests.proxy.log_builders import make_record

    call_command("migrate", verbosity=0)
    keys, journal = Keys(), Journal(REQUESTS)
    plain: list[float] = []
    noted: list[float] = []
    written: list[float] = []
    for _ in range(ROUNDS):
        some = [make_record(outcome=None, at=time.time(), request_id=token_hex(16)) for _ in range(REQUESTS)]
        plain.append(_spent(lambda some=some: deque(map(finish, some), maxlen=0)))
        for record in some:
            record.outcome = None
        subscribe(journal.note)
        noted.append(_spent(lambda some=some: deque(map(finish, some), maxlen=0)))
        unsubscribe(journal.note)
        written.append(_spent(lambda some=some: [
            write_rows(some[first : first + BATCH], keys) for first in range(0, REQUESTS, BATCH)
        ]))  # fmt: skip
        journal._buffer.clear()
    # The least is what the work costs; the middle, what it costs on a machine as busy as this one.
    return [
        (f"Request log on against off, {name}", max(0.0, of(noted) - of(plain)) + of(written))
        for name, of in (("least", min), ("middle", median))
    ]


def _spent(work: object) -> float:
    began = time.process_time()
    work()  # type: ignore[operator]
    return (time.process_time() - began) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
