"""What only a web process can see, for alerts: breakers that opened, log rows dropped, a prober that is silent."""

from __future__ import annotations

import time
from collections.abc import Callable

from endpoints import loading, tasks
from endpoints.alerts.judging import AlertKind, Fact
from endpoints.alerts.watching import Watcher
from endpoints.conf import conf
from endpoints.health import OperatorState
from proxy.journal import JournalState, journal_state
from proxy.live import live


class WebFacts:
    """Looks at this process, on its event loop."""

    def __init__(self, read_journal: Callable[[], JournalState] = journal_state) -> None:
        self._read_journal = read_journal
        self._told_dropped = 0
        self._seen_dropped = 0

    def look(self, now: float) -> list[Fact]:
        """The facts of this moment (`now`: seconds since the epoch)."""
        return [*self._breakers(now), self._request_log(), *self._prober(now)]

    def settle(self) -> None:
        """What was seen has been judged. Rows are dropped while the database is away, when nothing can be."""
        self._told_dropped = self._seen_dropped

    def _breakers(self, now: float) -> list[Fact]:
        """Occurrences: another process may have a breaker of its own closed."""
        snapshot = loading.current()
        closed = live.breaker.closed_ways(time.monotonic())
        return [
            Fact(
                AlertKind.BREAKER,
                endpoint.name,
                True,
                f"The breaker of endpoint {endpoint.name} is open: it failed again and again.",
                muted=endpoint.state_at(now) is not OperatorState.ACTIVE,
                lasts=False,
            )
            for endpoint in (snapshot.by_id.get(each) for each in closed)
            if endpoint is not None
        ]

    def _request_log(self) -> Fact:
        self._seen_dropped = self._read_journal().dropped
        fresh = self._seen_dropped - self._told_dropped
        text = f"The request log dropped {fresh} rows: its database does not keep up or cannot be written."
        return Fact(AlertKind.REQUEST_LOG, "request log", fresh > 0, text, lasts=False)

    def _prober(self, now: float) -> list[Fact]:
        """Nothing while the database cannot be read: then the prober's sign of life cannot be seen either."""
        health = loading.health()
        if health.error or not health.confirmed_at or not loading.current().endpoints:
            return []
        silent = now - health.prober_seen
        is_bad = silent > conf().alert_prober_silence
        text = f"The prober has been silent for {silent:.0f} s." if health.prober_seen else "No prober ever ran."
        return [Fact(AlertKind.PROBER, "prober", is_bad, text if is_bad else "The prober is back.")]


def start_alerts() -> None:
    """Look every few seconds from now on, on this process's event loop."""
    facts = WebFacts()
    tasks.spawn(Watcher(facts.look, in_thread=False, settle=facts.settle).run(), "alerts")
