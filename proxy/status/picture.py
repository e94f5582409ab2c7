"""Picture: everything the builders look at, taken at one moment on the event loop.

Builders may run in a thread, so that a large fleet's page holds up no request: what changes when looked at is
looked at here, single counters are read as they are, and dicts that grow are copied before they are gone through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from endpoints import loading
from endpoints.durations import Durations
from endpoints.health import ROUTABLE, OperatorState, Status
from endpoints.health_facts import HealthFacts, board, facts_of
from endpoints.loading import LoaderHealth
from endpoints.snapshot import EndpointRecord, Snapshot
from proxy.breaker import BreakerView
from proxy.journal import JournalState, journal_state
from proxy.live import Live, live
from proxy.sieve import LiveView, is_demoted, is_usable
from proxy.status.public_ids import ids_of_snapshot, shown_url
from proxy.tallies import Tallies, Tally
from proxy.violations import Violations, violations

STARTED_AT = time.time()
_NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Picture:
    """The state of this process and of what it knows. `now` is Unix time, `clock` monotonic seconds."""

    snapshot: Snapshot
    view: LiveView
    loader: LoaderHealth
    live: Live
    violations: Violations
    now: float
    clock: float
    health: Mapping[int, HealthFacts] = field(default_factory=dict)
    started_at: float = STARTED_AT
    journal: JournalState = field(default_factory=journal_state)
    limited_clients: int = 0  # refused for their rate within the hour
    sessions: int = 0  # sticky ones
    durations: Durations = field(default_factory=Durations)  # of probes and discoveries
    tasks: int = 0

    @property
    def tallies(self) -> Tallies:
        """What became of requests."""
        return self.live.tallies

    @property
    def uptime(self) -> float:
        """Seconds since this process began."""
        return max(0.0, self.now - self.started_at)


def uptime() -> float:
    """Seconds since this process began."""
    return max(0.0, time.time() - STARTED_AT)


async def take_picture() -> Picture:
    """The picture of now; reads the prober's latest rows, off the loop."""
    health = await board.latest()
    now, clock = time.time(), time.monotonic()
    return Picture(
        snapshot=loading.current(),
        view=live.view(),
        loader=loading.health(),
        live=live,
        violations=violations,
        now=now,
        clock=clock,
        health=health,
        limited_clients=violations.limited_clients(now),
        sessions=int(live.sticky.stats(clock).get("active_sessions", 0)),
        durations=board.durations,
        tasks=len(asyncio.all_tasks()),
    )


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint as every list of endpoints shows it."""

    record: EndpointRecord
    public_id: str
    url: str
    status: Status
    state: OperatorState
    usable: bool
    held_out_by: str  # why it takes no requests though status and state allow them
    health: HealthFacts
    tally: Tally
    in_flight: int
    queued: int
    breaker: BreakerView

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name


def read_endpoints(picture: Picture) -> list[EndpointFacts]:
    """Every endpoint: priority high to low, healthy ones first, then by name and id."""
    ids = ids_of_snapshot(picture.snapshot)
    found = [_read_endpoint(each, ids[each.id], picture) for each in picture.snapshot.endpoints]
    return sorted(
        found,
        key=lambda each: (-each.record.priority, each.status is not Status.HEALTHY, each.name, each.public_id),
    )


def _read_endpoint(record: EndpointRecord, public_id: str, picture: Picture) -> EndpointFacts:
    live_now = picture.live
    return EndpointFacts(
        record=record,
        public_id=public_id,
        url=shown_url(record.url),
        status=believed_status(record, picture.view),
        state=record.state_at(picture.view.now),
        usable=is_usable(record, picture.view),
        held_out_by=_held_out_by(record, picture.view),
        health=facts_of(record, picture.health),
        tally=picture.tallies.endpoints.get(record.id, _NOTHING),
        in_flight=live_now.in_flight.get(record.id, 0),
        queued=live_now.queue.waiting_for(record.id),
        breaker=live_now.breaker.view(record.id, picture.clock),
    )


def believed_status(record: EndpointRecord, view: LiveView) -> Status:
    """The status, or unknown where it says that traffic flows and nobody has probed for too long."""
    if record.status in ROUTABLE and record.is_stale(view.now, view.prober_seen):
        return Status.UNKNOWN
    return record.status


def _held_out_by(record: EndpointRecord, view: LiveView) -> str:
    reason = view.held_out.get(record.id)
    if reason is not None:
        return reason.value
    return "seen_failing" if is_demoted(record, view.demoted) else ""
