"""The records of all endpoints, of which only those are made anew whose rows changed.

Rows are compared as the database gives them, every column that counts: no time stamp, signal or version has to be
relied on, so neither a bulk update nor a restored fixture goes unseen. That takes a fraction of what making the
records takes: decrypting, parsing, looking up files. And records are made of rows, by way of no model instances,
which would take as long as all the rest together.
"""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet

from endpoints.credentials import secret_files_of
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from endpoints.records import build_record, read_health, read_listed
from endpoints.secret_files import Stamp, stamp_files
from endpoints.snapshot import EndpointRecord, ListedModel

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]
# Columns that the prober alone reads, or nobody, or that only say which row it is.
_UNREAD = frozenset({
    "id", "endpoint_id", "notes", "health_check_url", "model_url", "check_timeout", "model_include",
    "model_exclude", "created_at", "updated_at",
})  # fmt: skip


def _columns(model: type[Model]) -> tuple[str, ...]:
    return tuple(each.attname for each in model._meta.concrete_fields if each.attname not in _UNREAD)


# The first column is the endpoint's key. Of its health the detected type is last: that makes another record.
_COLUMNS = ("pk", *_columns(Endpoint))
_MODEL_COLUMNS = ("endpoint_id", *_columns(DiscoveredModel))
_HEALTH_COLUMNS = (
    "endpoint_id", "status", "status_since", "next_check", "last_checked", "last_error", "latency_ms",
    "server_version", "detected_type",
)  # fmt: skip
_named: Any = namedtuple  # its fields are known to Django alone
# Rows with converted values by name, as `build_record`, `read_listed` and `read_health` want them.
_EndpointRow: Any = _named("_EndpointRow", (*_COLUMNS, "health"))
_ModelRow: Any = _named("_ModelRow", _MODEL_COLUMNS[1:])
_HealthRow: Any = _named("_HealthRow", _HEALTH_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the tables hold of one endpoint, as fetched."""

    endpoint: Row
    models: tuple[Row, ...]
    health: Row | None

    def makes_the_same(self, other: _Rows) -> bool:
        """Whether a record made of these rows would differ from that of the others in nothing but its health."""
        return (self.endpoint, self.models, self._detected) == (other.endpoint, other.models, other._detected)

    @property
    def _detected(self) -> str | None:
        return self.health[-1] if self.health else None


@dataclass(frozen=True, slots=True)
class _Made:
    """A record (None: its row is of no use) with the rows and the secret files it was made of."""

    rows: _Rows
    files: tuple[str, ...]
    stamp: Stamp
    record: EndpointRecord | None

    @property
    def files_changed(self) -> bool:
        """Whether a secret file looks other than when it was read."""
        return bool(self.files) and stamp_files(self.files) != self.stamp

    def holds_for(self, rows: _Rows) -> bool:
        """Whether these rows make the same record. Where a variable or file was missing it may be there now."""
        if self.record is None or self.record.config_problem or self.files_changed:
            return False
        return self.rows.makes_the_same(rows)


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
        reader = _Reader()
        before, self._made, self.remade = self._made, {}, 0
        kept = 0
        for key, rows in reader.fetch().items():
            made = before.get(key)
            if made is not None and made.holds_for(rows):
                kept += 1
                self._made[key] = _renew(made, rows, reader)
            else:
                self.remade += 1
                self._made[key] = _make(rows, reader, env)
        found = [each.record for each in self._made.values() if each.record is not None]
        return found, bool(self.remade) or kept != len(before)


def _renew(made: _Made, rows: _Rows, reader: _Reader) -> _Made:
    """The same with what the prober found since."""
    if made.record is None or rows.health is None or rows.health == made.rows.health:
        return made
    return replace(made, rows=rows, record=replace(made.record, **read_health(reader.read_health(rows.health))))


def _make(rows: _Rows, reader: _Reader, env: Mapping[str, str]) -> _Made:
    endpoint = reader.read_endpoint(rows)
    files = tuple(secret_files_of(endpoint))
    stamp = stamp_files(files)  # before they are read, so that a change in between is noticed
    return _Made(rows, files, stamp, _try_record(endpoint, reader.read_models(rows.models), env))


def _try_record(endpoint: Any, models: tuple[ListedModel, ...], env: Mapping[str, str]) -> EndpointRecord | None:
    try:
        return build_record(endpoint, models, env)
    except ValueError as error:
        logger.warning("endpoint %s cannot be used: %s", endpoint.name, error)
        return None


class _Reader:
    """Fetched rows with the values Django would give, each different value of a column converted once."""

    def __init__(self) -> None:
        self._queries: tuple[QuerySet[Any, Any], ...] = (
            Endpoint.objects.order_by().values_list(*_COLUMNS),
            DiscoveredModel.objects.order_by("endpoint_id", "name").values_list(*_MODEL_COLUMNS),
            EndpointHealth.objects.order_by().values_list(*_HEALTH_COLUMNS),
        )
        self._endpoint, self._model, self._health = map(_find_converters, self._queries)
        # Many endpoints list the same models with the same facts.
        self._listed: dict[Row, ListedModel] = {}

    def fetch(self) -> dict[int, _Rows]:
        """What the tables hold, by endpoint. Raises DatabaseError."""
        endpoints, listings, health = map(_fetch, self._queries)
        models = {key: tuple(found) for key, found in groupby(listings, key=itemgetter(0))}
        found_well = {row[0]: row for row in health}
        return {row[0]: _Rows(row, models.get(row[0], ()), found_well.get(row[0])) for row in endpoints}

    def read_endpoint(self, rows: _Rows) -> Any:
        """An endpoint and its health, if there is any."""
        health = self.read_health(rows.health) if rows.health is not None else None
        return _EndpointRow(*_convert_row(rows.endpoint, self._endpoint), health)

    def read_health(self, row: Row) -> Any:
        """An endpoint's health."""
        return _HealthRow(*_convert_row(row, self._health))

    def read_models(self, rows: Iterable[Row]) -> tuple[ListedModel, ...]:
        """What an endpoint lists."""
        return tuple([self._read_model(row[1:]) for row in rows])

    def _read_model(self, row: Row) -> ListedModel:
        listed = self._listed.get(row)
        if listed is None:
            # Converters know the columns by their places in the query, the endpoint's key among them.
            values = _convert_row((None, *row), self._model)[1:]
            listed = self._listed[row] = read_listed(_ModelRow(*values))
        return listed


def _fetch(rows: QuerySet[Any, Any]) -> list[Row]:
    """What a query gives before any conversion: quick, and all that a comparison needs."""
    sql, params = rows.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [tuple(row) for row in cursor.fetchall()]


Converter = tuple[int, Callable[[Any], Any]]


def _find_converters(rows: QuerySet[Any, Any]) -> list[Converter]:
    """What Django would do with some columns of a query, by their place."""
    compiler = rows.query.get_compiler(connection=connection)
    compiler.setup_query()
    needed = compiler.get_converters([column for column, _, _ in compiler.select])
    return [
        (position, lru_cache(maxsize=None)(partial(_convert, functions, column)))
        for position, (functions, column) in needed.items()
    ]


def _convert_row(row: Row, converters: Iterable[Converter]) -> list[Any]:
    values = list(row)
    for position, convert in converters:
        values[position] = convert(values[position])
    return values


def _convert(functions: Iterable[Any], column: Any, value: Any) -> Any:
    for function in functions:
        value = function(value, column, connection)
    return value
