"""What the prober reads from and writes to the tables; blocking, run in its database thread.

    find_work()        which endpoints are due, ready to be asked
    record_probe()     one probe's result, if the row still looks as it did when the probe began
    record_models()    one model list, in a single short transaction
    record_no_models() why there was none; the last known models stay

Every write names its columns and is a compare-and-set: health on `version`, models on the times of their last
and next reading, both on the endpoint's `updated_at`, so that an answer from an old address or credential is
dropped and the endpoint simply stays due. Only what routing sees (status, detected type, the set of models)
bumps the revision.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Min, Q, QuerySet

from endpoints.addressing import AddressError, parse_origin
from endpoints.asking import ProbeTarget
from endpoints.credentials import read_access
from endpoints.health import ROUTABLE, HealthChange, HealthState, OperatorState, ProbeResult, Status, next_health
from endpoints.listed import ListedModel, ModelState
from endpoints.loaded import Loaded, find_in_memory, mark_one
from endpoints.model_lists import parse_patterns
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, Revision
from endpoints.probing import Discovery
from endpoints.profiles import AUTO
from endpoints.records import read_listed

logger = logging.getLogger(__name__)

LONGEST_ERROR = 500  # what the column holds
BATCH = 500  # rows a statement
ROUTABLE_VALUES = tuple(status.value for status in ROUTABLE)


@dataclass(frozen=True, slots=True)
class Job:
    """One endpoint to ask, with how its row looked when the job was made."""

    endpoint_id: int
    target: ProbeTarget
    state: HealthState
    check_interval: float
    detect: bool  # of type auto, and the kind is not known or may have changed
    version: int
    updated_at: datetime
    models_checked: datetime | None
    models_error: str
    next_discovery: datetime
    server_version: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What is due now, and when the next probe or discovery will be (None when nothing is planned)."""

    probes: tuple[Job, ...]
    discoveries: tuple[Job, ...]
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Slots:
    """How many may start now, and which endpoints are being asked already."""

    probes: int
    discoveries: int
    probing: Collection[int] = ()
    discovering: Collection[int] = ()


def to_datetime(seconds: float) -> datetime:
    """Seconds since the epoch as the tables hold them."""
    return datetime.fromtimestamp(seconds, UTC)


def build_target(endpoint: Endpoint, env: Mapping[str, str], detected_type: str = "") -> ProbeTarget:
    """What to ask and how, for a saved endpoint or for the form of one that is not."""
    access = read_access(endpoint, env)
    problem = access.problem
    try:
        parse_origin(endpoint.url)
    except AddressError as error:
        problem = str(error)
    return ProbeTarget(
        name=endpoint.name,
        url=endpoint.url,
        backend_type=endpoint.backend_type,
        detected_type=detected_type,
        health_check_url=endpoint.health_check_url,
        model_url=endpoint.model_url,
        headers=access.headers,
        tls=access.tls,
        check_timeout=endpoint.check_timeout,
        include=parse_patterns(endpoint.model_include),
        exclude=parse_patterns(endpoint.model_exclude),
        problem=problem,
    )


def build_job(endpoint: Endpoint, env: Mapping[str, str]) -> Job:
    """A job from an endpoint that was read with its health."""
    health = endpoint.health
    status = Status(health.status)
    edited = health.last_checked is None or endpoint.updated_at > health.last_checked
    return Job(
        endpoint_id=endpoint.pk,
        target=build_target(endpoint, env, health.detected_type),
        state=HealthState(status, health.status_since.timestamp(), health.consecutive_failures),
        check_interval=endpoint.check_interval,
        detect=endpoint.backend_type == AUTO and (edited or not health.detected_type or status not in ROUTABLE),
        version=health.version,
        updated_at=endpoint.updated_at,
        models_checked=health.models_checked,
        models_error=health.models_error,
        next_discovery=health.next_discovery,
        server_version=health.server_version,
    )


def watched() -> QuerySet[Endpoint]:
    """Every endpoint that is probed: all but the disabled ones, each with its health row.

    One that was saved a moment ago, and has no row yet, comes with the next look.
    """
    seen: QuerySet[Endpoint] = Endpoint.objects.filter(health__isnull=False).select_related("health")
    return seen.exclude(state=OperatorState.DISABLED.value)


def add_missing_rows() -> None:
    """Give a health row to every endpoint that has none."""
    missing = list(Endpoint.objects.filter(health__isnull=True).values_list("pk", flat=True))
    if missing:
        EndpointHealth.objects.bulk_create(
            [EndpointHealth(endpoint_id=pk) for pk in missing], ignore_conflicts=True
        )


def find_work(now: float, slots: Slots, env: Mapping[str, str]) -> Work:
    """The most overdue endpoints that may be asked now. Raises django.db.Error."""
    add_missing_rows()
    moment = to_datetime(now)
    # An edit after the last look counts as due, whatever was planned before it. One from the future (another
    # machine's clock) has to wait: it would stay newer than any look.
    known = Q(updated_at__lte=moment)
    edited = Q(health__last_checked=None) | known & Q(updated_at__gt=F("health__last_checked"))
    due = Q(health__next_check__lte=moment) | edited
    models_due = Q(health__next_discovery__lte=moment) | known & Q(updated_at__gt=F("health__models_checked"))
    well = Q(health__status__in=ROUTABLE_VALUES) & ~edited
    probes = watched().filter(due).exclude(pk__in=slots.probing).order_by("health__next_check")
    discoveries = (
        watched().filter(well, models_due).exclude(pk__in=slots.discovering).order_by("health__next_discovery")
    )
    next_probe = watched().filter(health__next_check__gt=moment).aggregate(at=Min("health__next_check"))["at"]
    next_models = (
        watched().filter(well, health__next_discovery__gt=moment).aggregate(at=Min("health__next_discovery"))["at"]
    )
    planned = [at.timestamp() for at in (next_probe, next_models) if at is not None]
    return Work(
        probes=tuple(build_job(endpoint, env) for endpoint in probes[: slots.probes]),
        discoveries=tuple(build_job(endpoint, env) for endpoint in discoveries[: slots.discoveries]),
        next_due=min(planned, default=None),
    )


def record_probe(job: Job, result: ProbeResult, started: float, now: float) -> HealthChange | None:
    """Store what a probe begun at `started` found; None when the row or the endpoint changed meanwhile."""
    change = next_health(job.state, result, now, job.check_interval)
    values: dict[str, Any] = {
        "version": job.version + 1,
        "status": change.status.value,
        "status_since": to_datetime(change.status_since),
        "consecutive_failures": change.failures,
        "last_error": change.reason[:LONGEST_ERROR],
        "latency_ms": result.latency_ms,
        # The beginning: an edit or a failed request after it is news this probe cannot know of.
        "last_checked": to_datetime(started),
        "next_check": to_datetime(change.next_check),
    }
    new_type = bool(result.detected_type) and result.detected_type != job.target.detected_type
    if new_type:
        values["detected_type"] = result.detected_type
    if change.recovered or new_type:
        values["next_discovery"] = to_datetime(now)
    with transaction.atomic():
        if not _is_unchanged(job):
            return None
        if not EndpointHealth.objects.filter(pk=job.endpoint_id, version=job.version).update(**values):
            return None
        if change.changed or new_type:
            Revision.bump()
    _log_probe(job, change, result.detected_type if new_type else "")
    return change


def _log_probe(job: Job, change: HealthChange, new_type: str) -> None:
    if new_type:
        logger.info("endpoint %s: detected as %s", job.target.name, new_type)
    if change.changed:
        level = logging.INFO if change.status in ROUTABLE else logging.WARNING
        reason = f": {change.reason}" if change.reason else ""
        logger.log(level, "endpoint %s: %s -> %s%s", job.target.name, job.state.status, change.status, reason)


def _is_unchanged(job: Job) -> bool:
    """Whether the endpoint still is the one that was asked: same row, no edit since."""
    return Endpoint.objects.filter(pk=job.endpoint_id, updated_at=job.updated_at).exists()


def record_models(job: Job, discovery: Discovery, started: float, next_discovery: float) -> bool:
    """Make the tables hold exactly these models; whether it was done (not when the endpoint changed meanwhile)."""
    values: dict[str, Any] = {
        "models_error": "",
        "models_note": discovery.note,
        "server_version": discovery.version,
    }
    new_type = bool(discovery.detected_type) and discovery.detected_type != job.target.detected_type
    if new_type:
        values["detected_type"] = discovery.detected_type
    with transaction.atomic():
        if not _set_discovery(job, values, started, next_discovery):
            return False
        changed = replace_models(job.endpoint_id, {model.name: model for model in discovery.models})
        if changed or new_type or discovery.version != job.server_version:
            Revision.bump()
    if changed:
        logger.info("endpoint %s: now lists %d models", job.target.name, len(discovery.models))
    return True


def record_no_models(job: Job, error: str, started: float, next_discovery: float) -> bool:
    """Keep why the models could not be read; those known stay. Whether it was done."""
    error = error[:LONGEST_ERROR]
    with transaction.atomic():
        done = _set_discovery(job, {"models_error": error}, started, next_discovery)
    if done and error != job.models_error:
        logger.warning("endpoint %s: its models cannot be read: %s", job.target.name, error)
    return done


def _set_discovery(job: Job, values: Mapping[str, Any], started: float, next_discovery: float) -> bool:
    if not _is_unchanged(job):
        return False
    row = EndpointHealth.objects.filter(
        pk=job.endpoint_id, models_checked=job.models_checked, next_discovery=job.next_discovery
    )
    times = {"models_checked": to_datetime(started), "next_discovery": to_datetime(next_discovery)}
    return bool(row.update(**values, **times))


def replace_models(endpoint_id: int, wanted: Mapping[str, ListedModel]) -> bool:
    """Insert, update and delete rows so that they equal `wanted`; whether anything routing shows changed.

    Call inside a transaction.
    """
    rows = {row.name: row for row in DiscoveredModel.objects.filter(endpoint_id=endpoint_id)}
    built = {name: _build_row(endpoint_id, model) for name, model in wanted.items()}
    gone = [row.pk for name, row in rows.items() if name not in built]
    fresh = [row for name, row in built.items() if name not in rows]
    changed, notable = [], bool(gone or fresh)
    for name in rows.keys() & built.keys():
        fields = {field for field in MODEL_FIELDS if getattr(rows[name], field) != getattr(built[name], field)}
        if fields:
            built[name].pk = rows[name].pk
            changed.append(built[name])
        # vLLM answers with the present time as the time of every model; Ollama keeps what is used.
        notable = notable or bool(fields - {"modified_at", "memory_until"})
    for start in range(0, len(gone), BATCH):  # databases limit the parameters of one statement
        DiscoveredModel.objects.filter(pk__in=gone[start : start + BATCH]).delete()
    DiscoveredModel.objects.bulk_create(fresh, batch_size=BATCH)
    DiscoveredModel.objects.bulk_update(changed, MODEL_FIELDS, batch_size=BATCH // 10)
    return notable


MEMORY_FIELDS = ("memory_bytes", "memory_until", "memory_context")
MODEL_FIELDS = (
    "family", "parameter_size", "quantization", "context_length", "model_type", "capabilities", "digest",
    "size_bytes", "state", "owner", "modified_at", "file_format", "parent", "checkpoint", "recipe",
    *MEMORY_FIELDS,
)  # fmt: skip


def record_loaded(job: Job, loaded: Loaded) -> bool:
    """Give the endpoint's models the states that follow from what is in memory; whether a state changed."""
    with transaction.atomic():
        if not _is_unchanged(job):
            return False
        rows = DiscoveredModel.objects.filter(_may_change(loaded), endpoint_id=job.endpoint_id)
        before = [(row.pk, read_listed(row)) for row in rows]
        pairs = [(pk, old, mark_one(old, find_in_memory(old, loaded))) for pk, old in before]
        for pk, old, new in pairs:
            if new != old:
                row = _build_row(job.endpoint_id, new)
                values = {name: getattr(row, name) for name in ("state", *MEMORY_FIELDS)}
                DiscoveredModel.objects.filter(pk=pk, state=old.state).update(**values)
        notable = any(new.state != old.state for _, old, new in pairs)
        if notable:
            Revision.bump()
    return notable


def _may_change(loaded: Loaded) -> Q:
    """The rows of models that are in memory or were: few, however long the list is."""
    wanted = Q(state=ModelState.LOADED.value)
    for name in loaded:
        wanted |= Q(name__iexact=name) | Q(name__iexact=f"{name}:latest") | Q(digest__iexact=name)
    return wanted


def _build_row(endpoint_id: int, model: ListedModel) -> DiscoveredModel:
    values = asdict(model)
    values["capabilities"] = list(model.capabilities)
    for name in ("modified_at", "memory_until"):
        values[name] = None if values[name] is None else to_datetime(values[name])
    return DiscoveredModel(endpoint_id=endpoint_id, **values)
