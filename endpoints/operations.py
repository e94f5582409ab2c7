"""What operators' buttons do: change the state of endpoints, ask for a probe, wait for its result.

Buttons never write a status: they set the time of the next probe to now and let the prober act.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from endpoints.facts import current_state
from endpoints.health import OperatorState
from endpoints.models import Endpoint, EndpointHealth, ProberLease

POLL_SECONDS = 0.1
PROBE_WAIT_SECONDS = 10.0


class Ask(StrEnum):
    """What the prober is asked for."""

    PROBE = "probe"
    DISCOVERY = "discovery"


@dataclass(frozen=True, slots=True)
class ProberState:
    """Whether a prober works on this installation; `seen` is its last sign of life."""

    alive: bool
    seen: datetime | None


def prober_state(now: datetime | None = None) -> ProberState:
    """The lease row in words: a prober is alive until its lease expires."""
    lease = ProberLease.objects.filter(pk=1).first()
    if lease is None:
        return ProberState(alive=False, seen=None)
    return ProberState(alive=lease.expires_at > (now or timezone.now()), seen=lease.renewed_at)


def set_state(
    endpoints: Iterable[Endpoint], state: OperatorState, *, then_disable: bool = False
) -> list[Endpoint]:
    """Give `endpoints` an operator state; returns those that had another one.

    `then_disable`, with DRAINING: disabled once drained. ACTIVE also ends a maintenance window that is in force.
    Only these columns are written, so that a form saved meanwhile keeps its other values.
    """
    changed = [
        each
        for each in endpoints
        if current_state(each) is not state or each.state != state or each.drain_then_disable != then_disable
    ]
    values = {"state": state.value, "drain_then_disable": then_disable, "updated_at": timezone.now()}
    with transaction.atomic():
        Endpoint.objects.filter(pk__in=[each.pk for each in changed]).update(**values)
        if state is OperatorState.ACTIVE:
            held = [each.pk for each in changed if current_state(each) is OperatorState.MAINTENANCE]
            Endpoint.objects.filter(pk__in=held).update(maintenance_from=None, maintenance_until=None)
    return changed


def ask_prober(endpoint_ids: Iterable[int], asks: Iterable[Ask]) -> datetime:
    """Make the prober act on the endpoints at once; returns the moment asked.

    The version grows with the write, so a probe already under way cannot overwrite the request with its own
    plan: its compare-and-set fails and it is asked again.
    """
    now = timezone.now()
    columns = {Ask.PROBE: "next_check", Ask.DISCOVERY: "next_discovery"}
    for pk in endpoint_ids:
        EndpointHealth.objects.get_or_create(endpoint_id=pk, defaults={"status_since": now})
        due = {columns[ask]: now for ask in asks}
        EndpointHealth.objects.filter(pk=pk).update(version=F("version") + 1, **due)
    return now


def wait_for_prober(endpoint_ids: Iterable[int], asked: datetime, ask: Ask, timeout: float) -> set[int]:
    """Block until the prober has done what was asked or `timeout` seconds passed; returns what is done.

    For sync views only: each has a thread of its own.
    """
    wanted, deadline = set(endpoint_ids), time.monotonic() + timeout
    condition = {"last_checked__gte": asked} if ask is Ask.PROBE else {"next_discovery__gt": asked}
    while True:
        done = set(EndpointHealth.objects.filter(pk__in=wanted, **condition).values_list("pk", flat=True))
        if done == wanted or time.monotonic() >= deadline:
            return done
        time.sleep(POLL_SECONDS)
