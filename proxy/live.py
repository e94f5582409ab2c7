"""This process's counters: requests in flight, endpoints seen failing, totals.

One Live for each process; it lives on the event loop and is touched by nothing else.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from endpoints import loading
from endpoints.conf import conf
from endpoints.snapshot import EndpointRecord
from proxy.routing import Fallback, Plan, Refresh, Strategy
from proxy.sieve import LiveView

# A failure seen here keeps an endpoint out this long unless the tables say otherwise sooner: when the
# database cannot be written, nobody else would ever bring it back.
DEMOTION_SECONDS = 30.0


@dataclass(slots=True)
class Live:
    """Counters by endpoint id."""

    in_flight: Counter[int] = field(default_factory=Counter)
    demoted: dict[int, float] = field(default_factory=dict)
    requests: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    hang_ups: int = 0
    _cursor: int = 0

    def next_cursor(self) -> int:
        """A counter that grows by one with each pick."""
        self._cursor += 1
        return self._cursor

    def open_attempt(self, endpoint: EndpointRecord) -> None:
        """Count a request as in flight to an endpoint."""
        self.in_flight[endpoint.id] += 1
        self.requests[endpoint.id] += 1

    def close_attempt(self, endpoint: EndpointRecord, *, failed: bool = False) -> None:
        """Take it back, once for each open_attempt."""
        left = self.in_flight[endpoint.id] - 1
        if left > 0:
            self.in_flight[endpoint.id] = left
        else:
            del self.in_flight[endpoint.id]
        if failed:
            self.failures[endpoint.id] += 1

    def demote(self, endpoint: EndpointRecord, now: float) -> None:
        """Keep an endpoint out of this process's choices at once (`now`: seconds since the epoch)."""
        self.demoted[endpoint.id] = now

    def restore(self, endpoint_id: int) -> None:
        """Forget that an endpoint was seen failing: the prober has looked since and found it well."""
        self.demoted.pop(endpoint_id, None)

    def view(self) -> LiveView:
        """What routing may know of this moment."""
        now = time.time()
        if self.demoted:
            oldest = now - DEMOTION_SECONDS
            self.demoted = {key: seen for key, seen in self.demoted.items() if seen > oldest}
        return LiveView(
            now=now,
            prober_seen=loading.health().prober_seen,
            demoted=self.demoted,
            opened_guards=conf().open_guarded_paths,
            dice=random.random(),  # noqa: S311 - sharing out requests, not secrets
        )


def plan(refresh: Refresh | None = None) -> Plan:
    """The strategy the settings ask for; `refresh` tells how far a discovery for this request has come."""
    settings = conf()
    possible = Refresh.POSSIBLE if settings.discovery_refresh_on_miss else Refresh.OFF
    return Plan(Strategy(settings.routing_strategy), Fallback(settings.fallback_behavior), refresh or possible)


live = Live()
