"""The fleet at one moment, as the page shows it: words and numbers ready to print.

Made of the snapshot, one query of the health table, the prober's lease, and this process's counters; the same
values go into the page and over its WebSocket, so that neither formats anything by itself.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from django.utils import timezone

from endpoints import loading
from endpoints.health import ROUTABLE, OperatorState
from endpoints.models import EndpointHealth
from endpoints.operations import ProberState, prober_state
from endpoints.profiles import AUTO
from endpoints.snapshot import EndpointRecord, Snapshot, fold_model
from endpoints.status_text import (
    DRAINING_TO_DISABLE,
    Badge,
    HealthFacts,
    Tone,
    describe_state,
    describe_status,
)
from olla_site.portal.activity import activity
from olla_site.portal.tally import Recent
from proxy.breaker import GateState
from proxy.live import DEMOTION_SECONDS, live

NONE = "\N{EN DASH}"
LATE_SECONDS = 15.0  # a snapshot older than this is worth a warning
LONGEST_REASON = 160  # characters of an error that go into the page; the endpoint's own page has all of it
FAILED_HERE = "A request to it failed a moment ago; it is left out until the prober has looked again."
# Worst first: how the table is ordered before anybody sorts it.
_RANKS = {Tone.BAD: 0, Tone.WARN: 1, Tone.QUIET: 2, Tone.GOOD: 3}


class Row(msgspec.Struct, frozen=True):
    """One endpoint. Numbers are texts as shown; times are seconds since the epoch, 0 for never."""

    id: int
    name: str
    url: str
    kind: str
    version: str
    tags: str
    priority: int
    label: str
    tone: str
    stale: bool
    ready: bool
    reason: str
    state: str
    state_reason: str
    rank: int
    since: int
    breaker: str
    breaker_tone: str
    in_flight: int
    waiting: int
    limit: str
    requests: str
    errors: str
    p50: str
    p95: str
    tokens: str
    probe: str
    models: int
    last: int
    next: int


class Summary(msgspec.Struct, frozen=True):
    """The whole fleet in numbers."""

    ready: int
    total: int
    tone: str
    verdict: str
    models: int
    in_flight: int
    waiting: int
    requests: str
    errors: str
    error_percent: str
    tokens: str
    first_byte: str
    p95: str
    troubles: list[tuple[int, str]]
    warning: str


class Picture(msgspec.Struct, frozen=True):
    """Everything the fleet page shows. `shape` changes when rows come, go or are renamed."""

    shape: str
    summary: Summary
    rows: tuple[Row, ...]


class Probe(msgspec.Struct, frozen=True):
    """What the health table knows beyond the snapshot, which a mere probe does not renew."""

    latency_ms: float | None = None
    last: float = 0.0
    next: float = 0.0
    error: str = ""


def take_picture() -> Picture:
    """The fleet now: two queries. Blocking; for sync views and the feed's own thread. Raises django.db.Error."""
    return draw(loading.current(), read_probes(), prober_state(timezone.now()), time.time())


def read_probes(pk: int | None = None) -> dict[int, Probe]:
    """The health rows by endpoint, or that of one: one query."""
    table = EndpointHealth.objects.all() if pk is None else EndpointHealth.objects.filter(pk=pk)
    rows = table.values_list("pk", "latency_ms", "last_checked", "next_check", "last_error")
    return {
        pk: Probe(latency, last.timestamp() if last else 0.0, following.timestamp(), error)
        for pk, latency, last, following, error in rows
    }


def draw(snapshot: Snapshot, probes: Mapping[int, Probe], prober: ProberState, now: float) -> Picture:
    """The picture of a snapshot with what this process counted."""
    rows = [draw_row(each, probes.get(each.id), prober.seen, now) for each in snapshot.endpoints]
    rows.sort(key=lambda row: row.rank)  # stable: priority and name within
    drawn = repr(sorted((r.id, r.name, r.url, r.kind, r.version, r.tags, r.priority) for r in rows))
    shape = f"{zlib.crc32(drawn.encode()):08x}"
    return Picture(shape, _summary(snapshot, rows, prober, now), tuple(rows))


def draw_row(endpoint: EndpointRecord, probe: Probe | None, seen: datetime | None, now: float) -> Row:
    """One endpoint; `seen` is the prober's last sign of life."""
    probe = probe or Probe()
    badge = _badge(endpoint, probe, seen.timestamp() if seen else 0.0, now)
    state = endpoint.state_at(now)
    state_badge = describe_state(state, DRAINING_TO_DISABLE if _drains_to_disable(endpoint) else "")
    recent = activity.tally.look(endpoint.id, now)
    breaker, breaker_tone = _breaker(endpoint.id)
    # Somebody who drained or disabled it knows that it is down.
    rank = _RANKS[badge.tone] if state is OperatorState.ACTIVE else 2
    return Row(
        id=endpoint.id, name=endpoint.name, url=endpoint.url, kind=describe_record_kind(endpoint),
        version=endpoint.server_version, tags=", ".join(sorted(endpoint.tags)), priority=endpoint.priority,
        label=badge.label, tone=badge.tone, stale=badge.stale, ready=badge.routable and breaker != "open",
        reason=badge.reason[:LONGEST_REASON],
        state=state_badge.label if state_badge else "", state_reason=state_badge.reason if state_badge else "",
        rank=rank, since=int(endpoint.status_since) if probe.last else 0,
        breaker=breaker, breaker_tone=breaker_tone,
        in_flight=live.in_flight.get(endpoint.id, 0), waiting=live.queue.waiting_for(endpoint.id),
        limit=str(endpoint.max_concurrent or ""),
        requests=_rate(recent), errors=show_percent(recent.error_percent), p50=show_ms(recent.p50),
        p95=show_ms(recent.p95), tokens=show_number(recent.tokens) if recent.tokens else NONE,
        probe=show_ms(probe.latency_ms), models=len(endpoint.models), last=int(probe.last),
        next=0 if state is OperatorState.DISABLED else int(probe.next),
    )  # fmt: skip


def _badge(endpoint: EndpointRecord, probe: Probe, prober_seen: float, now: float) -> Badge:
    failed = live.demoted.get(endpoint.id)
    if failed is not None and now - failed < DEMOTION_SECONDS and endpoint.status in ROUTABLE:
        return Badge("failing", Tone.BAD, FAILED_HERE)
    return describe_status(
        HealthFacts(
            status=endpoint.status,
            state=endpoint.state_at(now),
            last_error=probe.error or endpoint.last_error,
            next_check=max(probe.next, endpoint.next_check),
            check_interval=endpoint.check_interval,
            prober_seen=prober_seen,
            probed=bool(probe.last),
            config_problem=endpoint.config_problem,
        ),
        now,
    )


def _drains_to_disable(endpoint: EndpointRecord) -> bool:
    return endpoint.drain_then_disable and endpoint.state is OperatorState.DRAINING


def _breaker(endpoint_id: int) -> tuple[str, str]:
    state = live.breaker.view(endpoint_id, time.monotonic()).state
    tones = {GateState.CLOSED: Tone.GOOD, GateState.OPEN: Tone.BAD, GateState.HALF_OPEN: Tone.WARN}
    return state.value, tones[state]


def _summary(snapshot: Snapshot, rows: list[Row], prober: ProberState, now: float) -> Summary:
    ready = sum(row.ready for row in rows)
    troubles = [(row.id, row.name) for row in rows if row.tone == Tone.BAD and not row.state]
    recent = activity.tally.total.look(now)
    return Summary(
        ready=ready, total=len(rows), tone=_tone(ready, len(rows)), verdict=_verdict(ready, len(rows)),
        models=count_models(snapshot),
        in_flight=sum(row.in_flight for row in rows), waiting=live.queue.waiting,
        requests=show_number(recent.requests), errors=show_number(recent.errors),
        error_percent=show_percent(recent.error_percent), tokens=show_number(recent.tokens),
        first_byte=show_ms(recent.first_byte), p95=show_ms(recent.p95),
        troubles=troubles[:3] + ([(0, f"and {len(troubles) - 3} more")] if len(troubles) > 3 else []),
        warning=_warning(bool(rows), prober, now),
    )  # fmt: skip


@lru_cache(maxsize=1)
def count_models(snapshot: Snapshot) -> int:
    """How many different names the endpoints list; counted once a snapshot."""
    return len({fold_model(model.name) for each in snapshot.endpoints for model in each.models})


def _tone(ready: int, total: int) -> Tone:
    if not total:
        return Tone.QUIET
    if ready == total:
        return Tone.GOOD
    return Tone.WARN if ready else Tone.BAD


def _verdict(ready: int, total: int) -> str:
    if total and ready == total:
        return "The endpoint is ready" if total == 1 else f"All {total} endpoints are ready"
    return f"{ready or 'None'} of {total} endpoint{'' if total == 1 else 's'} ready"


def _warning(any_rows: bool, prober: ProberState, now: float) -> str:
    """What is wrong with the picture itself; empty when nothing is."""
    health = loading.health()
    if health.confirmed_at and health.error:
        return f"The database cannot be read; routing goes on with what was known before. {health.error}"
    if health.confirmed_at and now - health.confirmed_at > LATE_SECONDS:
        return "The picture of the endpoints is not being renewed."
    if any_rows and not prober.alive:
        return (
            "No prober is running: statuses and models are not being renewed. It starts with the server; or run "
            "manage.py probe_endpoints."
        )
    return ""


def describe_record_kind(endpoint: EndpointRecord) -> str:
    """The type for people."""
    return "not detected yet" if endpoint.backend_type == AUTO else endpoint.profile.title


def _rate(recent: Recent) -> str:
    return show_number(recent.requests) if recent.requests else NONE


def show_ms(value: float | None) -> str:
    """Milliseconds, whole from ten up."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def show_number(value: float) -> str:
    """A rate with as many digits as help."""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def show_percent(value: float | None) -> str:
    """A percentage; a dash where there was nothing to count."""
    if value is None:
        return NONE
    return "0" if value == 0 else f"{value:.1f}"


def differences(before: Any, after: Any) -> dict[str, Any]:
    """The fields of a record that differ, with their new values."""
    return {
        name: getattr(after, name)
        for name in after.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    }
