"""What the fleet page shows, read in a constant number of queries. Never asks a backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from endpoints import loading
from endpoints.facts import describe_kind, gather_facts, health_of
from endpoints.models import DiscoveredModel, Endpoint
from endpoints.operations import ProberState, prober_state
from endpoints.snapshot import EndpointRecord, fold_model
from endpoints.status_text import Badge, Tone, describe_state, describe_status

CHIPS = 4  # models shown of an endpoint before the rest folds away
LATE_SECONDS = 15.0  # a picture older than this is worth a warning
# Parts of names by which models that do not chat are told from those that do, for the example only.
_NOT_CHAT = ("embed", "rerank", "bge-", "whisper", "tts", "clip", "stable-diffusion", "dall-e", "moderation")


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One endpoint as the page shows it."""

    id: int
    name: str
    url: str
    kind: str
    badge: Badge
    state: Badge | None
    since: datetime | None
    latency_ms: float | None
    last_checked: datetime | None
    priority: int
    models: tuple[str, ...]
    more_models: tuple[str, ...]

    @property
    def model_count(self) -> int:
        """All models, folded away or not."""
        return len(self.models) + len(self.more_models)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The whole page: rows in routing order, and the summary over them."""

    rows: tuple[EndpointRow, ...]
    model_count: int
    prober: ProberState
    database_error: str
    picture_from: float

    @property
    def ready_count(self) -> int:
        """Endpoints that take requests now."""
        return sum(row.badge.routable for row in self.rows)

    @property
    def tone(self) -> Tone:
        """The colour of the summary: all, some or none take requests."""
        if not self.rows:
            return Tone.QUIET
        if self.ready_count == len(self.rows):
            return Tone.GOOD
        return Tone.WARN if self.ready_count else Tone.BAD

    @property
    def troubles(self) -> tuple[EndpointRow, ...]:
        """Endpoints that should take requests and cannot."""
        return tuple(row for row in self.rows if row.badge.tone is Tone.BAD and row.state is None)


def load_fleet(now: float) -> Fleet:
    """Everything the page needs: three queries, and this process's snapshot state."""
    prober = prober_state()
    models: dict[int, list[str]] = {}
    for endpoint_id, name in DiscoveredModel.objects.order_by("name").values_list("endpoint_id", "name"):
        models.setdefault(endpoint_id, []).append(name)
    rows = tuple(
        _build_row(endpoint, tuple(models.get(endpoint.pk, ())), prober, now)
        for endpoint in Endpoint.objects.select_related("health").order_by("-priority", "name")
    )
    error, since = _picture_state(now)
    return Fleet(
        rows=rows,
        model_count=len({fold_model(name) for row in rows for name in (*row.models, *row.more_models)}),
        prober=prober,
        database_error=error,
        picture_from=since,
    )


def _build_row(endpoint: Endpoint, models: tuple[str, ...], prober: ProberState, now: float) -> EndpointRow:
    health = health_of(endpoint)
    facts = gather_facts(endpoint, prober.seen)
    return EndpointRow(
        id=endpoint.pk,
        name=endpoint.name,
        url=endpoint.url,
        kind=describe_kind(endpoint),
        badge=describe_status(facts, now),
        state=describe_state(facts.state, facts.state_reason),
        since=health.status_since if health.last_checked else None,
        latency_ms=health.latency_ms,
        last_checked=health.last_checked,
        priority=endpoint.priority,
        models=models[:CHIPS],
        more_models=models[CHIPS:],
    )


def choose_example(endpoints: Iterable[EndpointRecord], now: float) -> str:
    """A model for a request to try: of an endpoint that takes requests, preferably one that chats."""
    ordered = list(endpoints)
    ordered = [each for each in ordered if each.takes_traffic(now)] or ordered
    names = [model.name for each in ordered for model in each.models]
    chatting = [name for name in names if not any(part in name.lower() for part in _NOT_CHAT)]
    return next(iter(chatting or names), "")


def _picture_state(now: float) -> tuple[str, float]:
    """Why and since when routing works with an old picture; no text while it is fresh.

    A process that never started its loader (a test client) has no picture and nothing to say.
    """
    health = loading.health()
    if not health.confirmed_at:
        return "", 0.0
    if health.error:
        return health.error, health.confirmed_at
    late = now - health.confirmed_at > LATE_SECONDS
    return ("The picture of the endpoints is not being renewed." if late else ""), health.confirmed_at
