"""The records of all endpoints, of which only those are made anew whose rows changed.

Rows are compared as the database gives them, every column that counts: no time stamp, signal or version has to be
relied on, so neither a bulk update nor a restored fixture goes unseen. That takes a fraction of what making the
records takes: decrypting, parsing, looking up files.
"""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from endpoints.credentials import secret_files_of
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from endpoints.records import build_record, read_health, read_listed
from endpoints.secret_files import Stamp, stamp_files
from endpoints.snapshot import EndpointRecord, ListedModel

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]
_COLUMNS = ("pk", *(field.attname for field in Endpoint._meta.concrete_fields), "health__detected_type")
_MODEL_COLUMNS = ("endpoint_id", *(field.attname for field in DiscoveredModel._meta.concrete_fields))
_named: Any = namedtuple  # its fields are known to Django alone
# A fetched row of a model with its values by name, as `read_listed` wants them.
_ModelRow: Any = _named("_ModelRow", ("of", *_MODEL_COLUMNS[1:]))
# Beyond this many, reading all is cheaper than naming them.
_MOST_NAMED = 200


@dataclass(frozen=True, slots=True)
class _Made:
    """A record (None: its row is of no use) with the rows and the secret files it was made of."""

    row: Row
    models: tuple[Row, ...]
    health: dict[str, Any]
    files: tuple[str, ...]
    stamp: Stamp
    record: EndpointRecord | None

    @property
    def files_changed(self) -> bool:
        """Whether a secret file looks other than when it was read."""
        return bool(self.files) and stamp_files(self.files) != self.stamp

    def still_is(self, row: Row, models: tuple[Row, ...]) -> bool:
        """Whether these rows make the same record. Where a variable or file was missing it may be there now."""
        if self.record is None or self.record.config_problem or self.files_changed:
            return False
        return self.row == row and self.models == models


class Records:
    """What was made at the last reading."""

    def __init__(self) -> None:
        self._made: dict[int, _Made] = {}
        self.remade = 0  # at the last reading

    def files_changed(self) -> bool:
        """Whether a secret file that some endpoint names looks other than when it was read."""
        return any(each.files_changed for each in self._made.values())

    def forget(self) -> None:
        """Make every record anew at the next reading."""
        self._made = {}

    def read(self, env: Mapping[str, str]) -> tuple[list[EndpointRecord], bool]:
        """The records of the endpoints that can be used, and whether more than health changed since the last time.

        Raises DatabaseError.
        """
        rows = {row[0]: row for row in _fetch(Endpoint.objects.order_by().values_list(*_COLUMNS))}
        listed = DiscoveredModel.objects.order_by("endpoint_id", "name")
        listings = listed.values_list(*_MODEL_COLUMNS)
        models = _group(_fetch(listings))
        before = self._made
        same = {
            key for key, each in before.items() if key in rows and each.still_is(rows[key], models.get(key, ()))
        }
        changed = rows.keys() - same
        kept = {key: before[key] for key in same}
        self._made = {**_renew(kept), **_make(changed, rows, models, _Reader(listings), env)}
        self.remade = len(changed)
        found = [each.record for each in self._made.values() if each.record is not None]
        return found, bool(changed) or len(kept) != len(before)


def _fetch(rows: QuerySet[Any, Any]) -> list[Row]:
    """What a query gives before any conversion: quick, and all that a comparison needs."""
    sql, params = rows.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [tuple(row) for row in cursor.fetchall()]


def _group(rows: Iterable[Row]) -> dict[int, tuple[Row, ...]]:
    return {key: tuple(found) for key, found in groupby(rows, key=itemgetter(0))}


def _renew(kept: Mapping[int, _Made]) -> dict[int, _Made]:
    """The same endpoints with what the prober found since."""
    if not kept:
        return {}
    fresh = dict(kept)
    for row in EndpointHealth.objects.all():
        made = kept.get(row.pk)
        if made is None or made.record is None:
            continue
        health = read_health(row)
        if health != made.health:
            fresh[row.pk] = replace(made, health=health, record=replace(made.record, **health))
    return fresh


class _Reader:
    """Fetched rows of models as records, by way of no model instances: these take four times as long.

    What Django would convert is converted as Django does, each different value of a column once.
    """

    def __init__(self, rows: QuerySet[Any, Any]) -> None:
        compiler = rows.query.get_compiler(connection=connection)
        compiler.setup_query()
        needed = compiler.get_converters([column for column, _, _ in compiler.select])
        self._converters = [
            (position, lru_cache(maxsize=None)(partial(_convert, functions, column)))
            for position, (functions, column) in needed.items()
        ]

    def read(self, rows: Iterable[Row]) -> tuple[ListedModel, ...]:
        """One record for each row."""
        found = []
        for row in rows:
            values = list(row)
            for position, convert in self._converters:
                values[position] = convert(values[position])
            found.append(read_listed(_ModelRow._make(values)))
        return tuple(found)


def _convert(functions: Iterable[Any], column: Any, value: Any) -> Any:
    for function in functions:
        value = function(value, column, connection)
    return value


def _make(
    changed: set[int],
    rows: Mapping[int, Row],
    models: Mapping[int, tuple[Row, ...]],
    reader: _Reader,
    env: Mapping[str, str],
) -> dict[int, _Made]:
    if not changed:
        return {}
    endpoints = Endpoint.objects.select_related("health")
    if len(changed) <= _MOST_NAMED:
        endpoints = endpoints.filter(pk__in=changed)
    made = {}
    for endpoint in endpoints:
        key = endpoint.pk
        if key in changed:
            files = tuple(secret_files_of(endpoint))
            stamp = stamp_files(files)  # before they are read, so that a change in between is noticed
            health = read_health(endpoint.health) if hasattr(endpoint, "health") else {}
            record = _try_record(endpoint, reader.read(models.get(key, ())), env)
            made[key] = _Made(rows[key], models.get(key, ()), health, files, stamp, record)
    return made


def _try_record(
    endpoint: Endpoint, models: tuple[ListedModel, ...], env: Mapping[str, str]
) -> EndpointRecord | None:
    try:
        return build_record(endpoint, models, env)
    except ValueError as error:
        logger.warning("endpoint %s cannot be used: %s", endpoint.name, error)
        return None
