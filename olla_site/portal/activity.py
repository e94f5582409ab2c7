"""What this process did lately: its tally, and how the statuses of endpoints changed while it watched."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from endpoints import tasks
from endpoints.snapshot import EMPTY, Snapshot
from olla_site.portal.tally import Tally
from proxy.finished import flush, subscribe
from proxy.live import live
from proxy.record import FAILURES, RequestRecord

SAMPLE_SECONDS = 1.0
CHANGES = 50  # remembered of each endpoint


@dataclass(frozen=True, slots=True)
class Change:
    """An endpoint's status or operator state became another one."""

    at: float
    status: str
    state: str
    reason: str


class Activity:
    """One for each process. Written on its event loop."""

    def __init__(self) -> None:
        self._tally = Tally()
        self.changes: dict[int, deque[Change]] = {}
        self._seen = EMPTY

    @property
    def tally(self) -> Tally:
        """The history until now."""
        flush()
        return self._tally

    def note(self, records: Iterable[RequestRecord]) -> None:
        """Requests have finished. A subscriber of `proxy.finished`."""
        now = time.time()
        for record in records:
            self._tally.note(record, record.outcome in FAILURES, now)

    def follow(self, after: Snapshot) -> bool:
        """Heed what the loader sees at every look: what changed, what is gone. Whether it saw anything new."""
        before, self._seen = self._seen, after
        if before is after:
            return False
        now = time.time()
        for endpoint in after.endpoints:
            old = before.by_id.get(endpoint.id)
            if old is None or (old.status is endpoint.status and old.state is endpoint.state):
                continue
            kept = self.changes.setdefault(endpoint.id, deque(maxlen=CHANGES))
            kept.append(Change(now, endpoint.status.value, endpoint.state.value, endpoint.last_error))
        gone = before.by_id.keys() - after.by_id.keys()
        if gone:
            self._tally.retain(after.by_id)
            self.changes = {key: kept for key, kept in self.changes.items() if key in after.by_id}
        return True


activity = Activity()


async def _keep_sampling() -> None:
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        activity.tally.sample(live.in_flight, time.time())


def start_sampling() -> asyncio.Task[None]:
    """Count requests from now on, and start the background task of this process's event loop."""
    subscribe(activity.note)
    return tasks.spawn(_keep_sampling(), "portal history")
