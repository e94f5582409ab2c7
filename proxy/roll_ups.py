"""Hourly sums of the request log, and its retention. Blocking; for the prober's process and `manage.py prune`.

    roll_up(now)        every hour that has ended is summed up; doing it again changes nothing
    prune(now, ...)     rows and sums past their time go, in short transactions
    totals()            what was ever counted, across restarts: the sums, and the rows that are in none yet

An hour is summed from its rows as a whole and replaces what was summed before, so nothing counts twice. Rows that
come late reopen their hour (`proxy.journal`). Rows go only from hours that were summed, and such an hour is never
summed again; `RollUpState` says how far both have come. Several processes may do this at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Aggregate, Count, Q, Sum

from proxy.models import RequestHour, RequestLog, RollUpState, key_at, time_of_key
from proxy.record import Outcome

HOUR = 3600.0
GRACE = 120.0  # seconds after its end until an hour is summed: buffers are written within one
_HOUR_KEYS = key_at(HOUR)
_MOST_GROUPS = 1000  # of an hour; the smallest are summed as one
OTHER = "other"
# Rows go in chunks, each of small steps: the clock is read after each, so that a machine that has grown slow in
# the midst of a chunk ends it early. A chunk holds the write lock about this long, then leaves it alone as long
# again.
CHUNK_SECONDS = 0.03
_LARGEST_CHUNK, _STEP = 2000, 25
_MOST_TRIES = 10

_GOOD = Q(outcome=Outcome.SUCCESS.value)


def _count(outcome: Outcome) -> Aggregate:
    return Count("id", filter=Q(outcome=outcome.value))


# Names of RequestHour's columns; the prefix keeps them apart from those of RequestLog.
_PREFIX = "sum_"
_MEASURES: dict[str, Aggregate] = {
    "requests": Count("id"),
    "successes": _count(Outcome.SUCCESS),
    "backend_errors": _count(Outcome.BACKEND_ERROR),
    "rejected": _count(Outcome.REJECTED),
    "broken": _count(Outcome.BROKEN),
    "clients_gone": _count(Outcome.CLIENT_GONE),
    "streams": Count("id", filter=Q(stream=True)),
    "attempts": Sum("attempts", default=0),
    "request_bytes": Sum("request_bytes", default=0),
    "response_bytes": Sum("response_bytes", default=0),
    "total_ms": Sum("total_ms", filter=_GOOD, default=0.0),
    "first_byte_ms": Sum("first_byte_ms", filter=_GOOD, default=0.0),
    "queue_ms": Sum("queue_ms", default=0.0),
    "input_tokens": Sum("input_tokens", default=0),
    "output_tokens": Sum("output_tokens", default=0),
}
_OVER_ROWS: dict[str, Any] = {f"{_PREFIX}{name}": measure for name, measure in _MEASURES.items()}
_OVER_HOURS: dict[str, Any] = {f"{_PREFIX}{name}": Sum(name, default=0) for name in _MEASURES}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over every request there was; milliseconds and tokens as in RequestHour."""

    requests: int = 0
    successes: int = 0
    backend_errors: int = 0
    rejected: int = 0
    broken: int = 0
    clients_gone: int = 0
    streams: int = 0
    attempts: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    total_ms: float = 0.0
    first_byte_ms: float = 0.0
    queue_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


def _state() -> RollUpState:
    return RollUpState.objects.get_or_create(pk=1)[0]


def _floor(key: int) -> int:
    return key // _HOUR_KEYS * _HOUR_KEYS


def roll_up(now: float) -> int:
    """Sum up every hour that ended GRACE seconds before `now` (Unix time); how many hours were written."""
    end, hours = _floor(key_at(now - GRACE)), 0
    while True:
        state = _state()
        begin = max(state.rolled_until, state.pruned_until)
        first = (
            RequestLog.objects.filter(id__gte=begin, id__lt=end)
            .order_by("id")
            .values_list("id", flat=True)
            .first()
        )
        if first is None:
            # Up to here there is nothing to sum: also something to remember.
            RollUpState.objects.filter(pk=1, rolled_until=state.rolled_until, rolled_until__lt=end).update(
                rolled_until=end
            )
            return hours
        hours += _roll_up_hour(_floor(first), state.rolled_until)


def _roll_up_hour(start: int, expected: int) -> bool:
    """Replace the sums of one hour; False when somebody moved the state meanwhile, who knows better."""
    summed = _sum_hour(start)  # read before the write lock is taken
    with transaction.atomic():
        moved = RollUpState.objects.filter(pk=1, rolled_until=expected, pruned_until__lte=start).update(
            rolled_until=start + _HOUR_KEYS
        )
        if moved:
            RequestHour.objects.filter(hour=time_of_key(start)).delete()
            RequestHour.objects.bulk_create(summed)
    return bool(moved)


_Group = tuple[str, str, int | None, str]


def _sum_hour(start: int) -> list[RequestHour]:
    """The sums of one hour by route, model and endpoint."""
    rows = RequestLog.objects.order_by().filter(id__gte=start, id__lt=start + _HOUR_KEYS)
    found: Any = rows.values("provider", "model", "endpoint_id", "endpoint").annotate(**_OVER_ROWS)
    groups: dict[_Group, dict[str, Any]] = {}
    for row in sorted(found.iterator(), key=lambda each: -each["sum_requests"]):
        sums = groups.setdefault(_group_of(row, groups), dict.fromkeys(_MEASURES, 0))
        for name in _MEASURES:
            sums[name] += row[_PREFIX + name]
    hour = time_of_key(start)
    return [
        RequestHour(hour=hour, provider=provider, model=model, endpoint_id=endpoint_id, endpoint=endpoint, **sums)
        for (provider, model, endpoint_id, endpoint), sums in groups.items()
    ]


def _group_of(row: dict[str, Any], groups: dict[_Group, dict[str, Any]]) -> _Group:
    """Where a row counts. Names that only clients invented (no endpoint was found for them) count as none."""
    if row["endpoint_id"] is None:
        return (row["provider"] if len(groups) < _MOST_GROUPS else OTHER, "", None, "")
    group = (row["provider"], row["model"], row["endpoint_id"], row["endpoint"])
    return group if group in groups or len(groups) < _MOST_GROUPS else (OTHER, OTHER, None, "")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` did; `longest` is the longest time in seconds it held the database."""

    hours_rolled: int
    rows: int
    hours: int
    longest: float


def prune(
    now: float,
    days: float,
    rollup_days: float,
    progress: Callable[[int], None] = lambda rows: None,
    rest: Callable[[float], None] = time.sleep,
) -> Pruned:
    """Sum up what has ended, then let go of rows and sums older than so many days (0 keeps them).

    `progress` is told the rows gone so far, `rest` waits between chunks.
    """
    rolled = roll_up(now)
    rows, longest = _prune_rows(_prunable(now, days), progress, rest) if days else (0, 0.0)
    hours = 0
    if rollup_days:
        oldest = datetime.fromtimestamp(now, UTC) - timedelta(days=rollup_days)
        hours = RequestHour.objects.filter(hour__lt=oldest).delete()[0]
    return Pruned(rolled, rows, hours, longest)


def _prunable(now: float, days: float) -> int:
    """The key up to which rows may go, which from then on are never summed again."""
    for _ in range(_MOST_TRIES):
        state = _state()
        bound = min(_floor(key_at(now - days * 24 * HOUR)), state.rolled_until)
        if bound <= state.pruned_until:
            return state.pruned_until
        if RollUpState.objects.filter(pk=1, rolled_until=state.rolled_until).update(pruned_until=bound):
            return bound
    return 0


def _prune_rows(bound: int, progress: Callable[[int], None], rest: Callable[[float], None]) -> tuple[int, float]:
    gone, longest = 0, 0.0
    oldest = RequestLog.objects.filter(id__lt=bound).order_by("id").values_list("id", flat=True)
    while ids := list(oldest[:_LARGEST_CHUNK]):
        began = time.perf_counter()
        gone += _delete_chunk(ids, began + CHUNK_SECONDS)
        spent = time.perf_counter() - began
        longest = max(longest, spent)
        progress(gone)
        rest(max(spent, CHUNK_SECONDS / 4))
    return gone, longest


def _delete_chunk(ids: Sequence[int], until: float) -> int:
    """Delete rows, the first ones first, in one transaction that ends by then (`perf_counter`); how many went."""
    gone = 0
    with transaction.atomic():
        for first in range(0, len(ids), _STEP):
            step = ids[first : first + _STEP]
            gone += RequestLog.objects.filter(id__gte=step[0], id__lte=step[-1]).delete()[0]
            if time.perf_counter() >= until:
                break
    return gone


def totals() -> Totals:
    """Every request ever logged, as far as its sums are still kept. Raises django.db.Error."""
    while True:
        state = _state()
        rolled = RequestHour.objects.filter(hour__lt=time_of_key(state.rolled_until)).aggregate(**_OVER_HOURS)
        fresh = RequestLog.objects.filter(id__gte=max(state.rolled_until, state.pruned_until)).aggregate(
            **_OVER_ROWS
        )
        if _state().rolled_until == state.rolled_until:  # else an hour may be in both or in none
            return Totals(
                **{each.name: rolled[_PREFIX + each.name] + fresh[_PREFIX + each.name] for each in fields(Totals)}
            )
