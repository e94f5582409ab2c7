"""What operators' buttons do: change the state of endpoints, ask for a probe, wait for its result.

Buttons never write a status: they set the time of the next probe to now and let the prober act.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from endpoints.facts import current_state
from endpoints.health import OperatorState
from endpoints.models import Endpoint, EndpointHealth, ProberLease

POLL_SECONDS = 0.1
PROBE_WAIT_SECONDS = 10.0
NAMED = 5  # names in one message


class Ask(StrEnum):
    """What the prober is asked for."""

    PROBE = "probe"
    DISCOVERY = "discovery"


_COLUMNS = {Ask.PROBE: "next_check", Ask.DISCOVERY: "next_discovery"}


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


def change_state(
    endpoints: Iterable[Endpoint], state: OperatorState, user_pk: int, *, then_disable: bool = False
) -> list[Endpoint]:
    """As `set_state`, noted in the admin's history; what is to take requests again is probed at once."""
    changed = set_state(endpoints, state, then_disable=then_disable)
    if changed:
        message = f"State set to {state.value}."
        LogEntry.objects.log_actions(user_pk, changed, CHANGE, change_message=message)
        if state is OperatorState.ACTIVE:
            ask_prober([each.pk for each in changed], (Ask.PROBE,))
    return changed


def ask_prober(endpoint_ids: Iterable[int], asks: Iterable[Ask]) -> datetime:
    """Make the prober act on the endpoints at once; returns the moment asked.

    The version grows with the write, so a probe already under way cannot overwrite the request with its own
    plan: its compare-and-set fails and it is asked again.
    """
    now = timezone.now()
    ids = list(endpoint_ids)
    with transaction.atomic():
        # An endpoint made past the admin may have no row yet.
        EndpointHealth.objects.bulk_create(
            [EndpointHealth(endpoint_id=pk, status_since=now) for pk in ids], ignore_conflicts=True
        )
        due = {_COLUMNS[ask]: now for ask in asks}
        EndpointHealth.objects.filter(pk__in=ids).update(version=F("version") + 1, **due)
    return now


def read_plans(endpoint_ids: Collection[int], ask: Ask) -> dict[int, datetime]:
    """When the prober is to do that at each of the endpoints it has looked at."""
    return dict(EndpointHealth.objects.filter(pk__in=endpoint_ids).values_list("pk", _COLUMNS[ask]))


def withdraw(plans: Mapping[int, datetime], asked: datetime, ask: Ask) -> None:
    """Take back what was asked for at `asked` where it is not done yet; `plans` are those before."""
    column = _COLUMNS[ask]
    with transaction.atomic():
        for pk, plan in plans.items():
            due = EndpointHealth.objects.filter(pk=pk, **{column: asked})
            due.update(**{"version": F("version") + 1, column: plan})


def find_done(endpoint_ids: Collection[int], asked: datetime, ask: Ask) -> set[int]:
    """The endpoints at which the prober has done what it was asked for at `asked`."""
    condition = {"last_checked__gte": asked} if ask is Ask.PROBE else {"next_discovery__gt": asked}
    return set(EndpointHealth.objects.filter(pk__in=endpoint_ids, **condition).values_list("pk", flat=True))


def wait_for_prober(endpoint_ids: Iterable[int], asked: datetime, ask: Ask, timeout: float) -> set[int]:
    """Block until the prober has done what was asked or `timeout` seconds passed; returns what is done.

    For sync views only: each has a thread of its own.
    """
    wanted, deadline = set(endpoint_ids), time.monotonic() + timeout
    while True:
        done = find_done(wanted, asked, ask)
        if done == wanted or time.monotonic() >= deadline:
            return done
        time.sleep(POLL_SECONDS)


def join_names(named: Iterable[Endpoint | str]) -> str:
    """The names of endpoints for a message: the first few, then how many more."""
    names = [str(each) for each in named]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
