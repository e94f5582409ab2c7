"""Tables to Snapshot: the only reader of the tables for web processes.

    current()      the snapshot in force; never waits once one exists
    refresh()      one look: re-read when the revision moved (blocking; runs in the loader's own thread)
    start_loader() the background task that looks every second

When the database cannot be read the last snapshot keeps serving; `health()` says since when and why.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import DatabaseError, connection

from endpoints import tasks
from endpoints.addressing import CREDENTIAL_HEADERS, parse_base_path, parse_origin
from endpoints.conf import conf
from endpoints.credentials import read_access, secret_files_of
from endpoints.database_thread import DatabaseThread
from endpoints.health import OperatorState, Status, Window
from endpoints.models import (
    DiscoveredModel,
    Endpoint,
    EndpointHealth,
    ForwardClientAuth,
    ModelAlias,
    ProberLease,
    Revision,
    RoutingRule,
)
from endpoints.outgoing import Limits
from endpoints.profiles import AUTO, profile_for
from endpoints.rules import (
    Condition,
    ConditionField,
    Fallback,
    Operator,
    Policy,
    Rule,
    RuleAction,
    Strategy,
    parse_tags,
)
from endpoints.secret_files import Stamp, stamp_files
from endpoints.snapshot import (
    DEFAULT_RETRY_STATUSES,
    EMPTY,
    Alias,
    EndpointRecord,
    ListedModel,
    Snapshot,
    build_snapshot,
    fold_names,
)

logger = logging.getLogger(__name__)

_FORWARD = {ForwardClientAuth.YES.value: True, ForwardClientAuth.NO.value: False}


@dataclass(frozen=True, slots=True)
class LoaderHealth:
    """How fresh the snapshot is: seconds since the epoch, and the error while the database is unreadable."""

    confirmed_at: float
    prober_seen: float
    error: str


class Loader:
    """Holds the snapshot of this process and renews it. One writer thread, any number of readers."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY
        self.health = LoaderHealth(0.0, 0.0, "")
        self._lock = threading.Lock()
        self._files: tuple[str, ...] = ()  # the secret files the snapshot was built with, and how they looked
        self._stamp: Stamp = ()

    def refresh(self, *, force: bool = False) -> Snapshot:
        """Look once; re-read changed endpoints when the revision moved. Raises DatabaseError."""
        with self._lock:
            try:
                revision, prober_seen = _read_marks()
                if force or revision != self.snapshot.revision or stamp_files(self._files) != self._stamp:
                    self.snapshot = self._build(revision)
            except DatabaseError as error:
                if not self.health.error:
                    logger.warning("the database cannot be read, the last snapshot keeps serving: %s", error)
                self.health = LoaderHealth(self.health.confirmed_at, self.health.prober_seen, str(error))
                raise
            finally:
                # A fresh connection each time notices a file that was replaced, and outlives no lock.
                connection.close()
            if self.health.error:
                logger.warning("the database can be read again")
            self.health = LoaderHealth(time.time(), prober_seen, "")
            return self.snapshot

    def _build(self, revision: int) -> Snapshot:
        models: dict[int, list[ListedModel]] = {}
        for model in DiscoveredModel.objects.all().iterator():
            models.setdefault(model.endpoint_id, []).append(_listed(model))
        records = []
        endpoints = list(Endpoint.objects.select_related("health"))
        # Stamped before they are read: a file that changes in between is noticed at the next look.
        self._files = tuple(name for endpoint in endpoints for name in secret_files_of(endpoint))
        self._stamp = stamp_files(self._files)
        for endpoint in endpoints:
            try:
                records.append(build_record(endpoint, tuple(models.get(endpoint.pk, ())), os.environ))
            except ValueError as error:
                logger.warning("endpoint %s cannot be used: %s", endpoint.name, error)
        aliases = [Alias(row.name, row.target_names(), row.one_model) for row in ModelAlias.objects.all()]
        return build_snapshot(revision, time.time(), records, aliases, load_rules())


def load_rules() -> list[Rule]:
    """The enabled routing rules in their order; one that makes no sense is logged and left out."""
    rows = RoutingRule.objects.filter(enabled=True).prefetch_related("conditions", "endpoints")
    rules = []
    for row in rows.order_by("order", "name"):
        try:
            rules.append(build_rule(row))
        except ValueError as error:  # stored past the form
            logger.warning("routing rule %s cannot be used: %s", row.name, error)
    return rules


def build_rule(row: RoutingRule) -> Rule:
    """One rule as routing reads it. Raises ValueError for words that are none of ours."""
    conditions = tuple(
        Condition(ConditionField(each.field), Operator(each.operator), each.value, each.header)
        for each in row.conditions.all()
    )
    return Rule(
        name=row.name,
        action=RuleAction(row.action),
        conditions=conditions,
        tags=parse_tags(row.tags),
        endpoint_ids=frozenset(each.pk for each in row.endpoints.all()),
        model=row.model,
        policy=Policy(row.policy) if row.policy else "",
        strategy=Strategy(row.strategy) if row.strategy else "",
        fallback=Fallback(row.fallback) if row.fallback else "",
        percentage=row.percentage or 0,
        message=row.message,
    )


def build_record(endpoint: Endpoint, models: tuple[ListedModel, ...], env: Mapping[str, str]) -> EndpointRecord:
    """One endpoint with its health and credentials resolved.

    Raises ValueError when its URL cannot be used at all; unusable credentials become `config_problem`.
    """
    health = getattr(endpoint, "health", None) or EndpointHealth(endpoint=endpoint)
    settings = conf()
    kind = endpoint.backend_type
    if kind == AUTO and health.detected_type:
        kind = health.detected_type
    profile = profile_for(kind)
    access = read_access(endpoint, env)
    return EndpointRecord(
        id=endpoint.pk,
        name=endpoint.name,
        backend_type=kind,
        profile=profile,
        url=endpoint.url,
        origin=parse_origin(endpoint.url),
        base_path=parse_base_path(endpoint.url),
        preserve_path=endpoint.preserve_path,
        priority=endpoint.priority,
        weight=endpoint.weight,
        tags=parse_tags(endpoint.tags),
        state=OperatorState(endpoint.state),
        status=Status.CONFIG_ERROR if access.problem else Status(health.status),
        status_since=health.status_since.timestamp(),
        next_check=health.next_check.timestamp(),
        check_interval=endpoint.check_interval,
        last_checked=health.last_checked.timestamp() if health.last_checked else None,
        last_error=health.last_error,
        latency_ms=health.latency_ms,
        headers=access.headers,
        uses_own_key=endpoint.auth_type != "none"
        or any(name.lower() in CREDENTIAL_HEADERS for name, _ in access.headers),
        forward_client_auth=_FORWARD.get(endpoint.forward_client_auth),
        retry_statuses=parse_statuses(endpoint.retry_statuses),
        limits=Limits(
            connect=endpoint.connect_timeout or settings.connect_timeout,
            first_byte=endpoint.first_byte_timeout or settings.first_byte_timeout,
            idle=endpoint.idle_timeout or settings.idle_timeout,
            total=endpoint.total_timeout or settings.total_timeout,
        ),
        tls=access.tls,
        max_concurrent=endpoint.max_concurrent,
        requests_per_minute=endpoint_rate(endpoint.requests_per_minute, kind),
        models=models,
        model_names=fold_names(models),
        config_problem=access.problem,
        maintenance=maintenance_window(endpoint),
        drain_then_disable=endpoint.drain_then_disable,
    )


def endpoint_rate(own: int | None, backend_type: str) -> int:
    """Requests a minute an endpoint may get: its own setting, else a default for OpenAI's API alone; 0 is none."""
    if own is not None:
        return own
    return conf().openai_requests_per_minute if backend_type == "openai" else 0


def maintenance_window(endpoint: Endpoint) -> Window | None:
    """An endpoint's window, open where a side is empty; None when there is none."""
    begin, end = endpoint.maintenance_from, endpoint.maintenance_until
    if begin is None and end is None:
        return None
    return begin.timestamp() if begin else -math.inf, end.timestamp() if end else math.inf


def parse_statuses(text: str) -> frozenset[int]:
    """Retry statuses as typed ("502, 503"); the product's own set when empty."""
    numbers = frozenset(int(part) for part in text.replace(",", " ").split() if part.isdecimal())
    return numbers or DEFAULT_RETRY_STATUSES


def _listed(row: DiscoveredModel) -> ListedModel:
    return ListedModel(
        name=row.name,
        digest=row.digest,
        size_bytes=row.size_bytes,
        family=row.family,
        parameter_size=row.parameter_size,
        quantization=row.quantization,
        context_length=row.context_length,
        model_type=row.model_type,
        capabilities=tuple(row.capabilities),
        state=row.state,
        owner=row.owner,
        modified_at=row.modified_at.timestamp() if row.modified_at else None,
        file_format=row.file_format,
        parent=row.parent,
        checkpoint=row.checkpoint,
        recipe=row.recipe,
    )


def _read_marks() -> tuple[int, float]:
    """The revision number and when the prober last renewed its lease (0 for never)."""
    revision = Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0
    renewed = ProberLease.objects.filter(pk=1).values_list("renewed_at", flat=True).first()
    return revision, renewed.timestamp() if renewed else 0.0


Follower = Callable[[Snapshot], None]

_loader = Loader()
_database = DatabaseThread("olla-loading")


def current() -> Snapshot:
    """The snapshot in force."""
    return _loader.snapshot


def health() -> LoaderHealth:
    """How fresh it is."""
    return _loader.health


def refresh(*, force: bool = False) -> Snapshot:
    """Look once, blocking; for commands, tests and the background task."""
    return _loader.refresh(force=force)


def forget() -> None:
    """Drop the snapshot, as at the start of the process; for tests."""
    _loader.snapshot = EMPTY


async def look() -> None:
    """One look in the loader's own thread; a database that cannot be read is logged, not raised."""
    try:
        await _database.run(_loader.refresh)
    except DatabaseError:
        return


async def _keep_looking(follow: Follower) -> None:
    while True:
        await look()
        follow(current())
        await asyncio.sleep(conf().snapshot_interval)


def start_loader(follow: Follower) -> asyncio.Task[None]:
    """Start the background task of this process's event loop; `follow` is shown the snapshot after each look."""
    return tasks.spawn(_keep_looking(follow), "snapshot loader")
