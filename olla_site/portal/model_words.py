"""Models in words: a row of the catalogue, a model at one endpoint, how much it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from endpoints.listed import ModelState
from endpoints.quantities import normalize_quantization, write_size
from endpoints.snapshot import EndpointRecord, ListedModel, fold_model
from proxy.listings import CatalogueEntry
from proxy.live import live
from proxy.tallies import ModelTally

PLACES_SHOWN = 4
NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A model at one endpoint."""

    endpoint_id: int
    endpoint: str
    kind: str
    name: str  # the endpoint's own name for it
    usable: bool
    state: str
    size: str
    context: str
    quantization: str
    digest: str

    @property
    def loaded(self) -> bool:
        """Whether it is in memory there."""
        return self.usable and self.state == ModelState.LOADED


@dataclass(frozen=True, slots=True)
class Row:
    """A model as the table shows it."""

    name: str
    address: str
    aliases: tuple[str, ...]
    aliases_left_out: int
    family: str
    parameters: str
    quantization: str
    context: str
    size: str
    kind: str
    capabilities: tuple[str, ...]
    places: tuple[Place, ...]
    places_left_out: int
    usable: bool
    loaded: int
    requests: int
    drifts: bool


def draw(entry: CatalogueEntry, drifting: set[str]) -> Row:
    """A row of the table."""
    facts = entry.facts
    names = sorted({listed.name for _, listed in entry.sources} - {entry.name})
    # Only those that are shown are drawn: a model may be at every endpoint.
    sources = sorted(entry.sources, key=lambda source: _rank(entry, *source))
    return Row(
        name=entry.name,
        address=reverse("portal:model", args=[entry.name]),
        aliases=tuple(names[:NAMES_SHOWN]),
        aliases_left_out=max(0, len(names) - NAMES_SHOWN),
        family=facts.family,
        parameters=write_parameters(facts.parameter_size),
        quantization=say_quantization(entry),
        context=write_count(facts.context_length) or write_guess(entry.guess.context_length),
        size=say_largest(entry),
        kind=facts.model_type,
        capabilities=facts.capabilities or tuple(f"{word}?" for word in entry.guess.capabilities),
        places=tuple(draw_place(entry, *source) for source in sources[:PLACES_SHOWN]),
        places_left_out=max(0, len(sources) - PLACES_SHOWN),
        usable=entry.available,
        loaded=count_loaded(entry),
        requests=count_requests(entry),
        drifts=not drifting.isdisjoint(fold_names_of(entry)),
    )


def _rank(entry: CatalogueEntry, endpoint: EndpointRecord, listed: ListedModel) -> int:
    """In memory first, then usable, then the rest."""
    if endpoint.id not in entry.usable:
        return 2
    return int(listed.state != ModelState.LOADED)


def draw_place(entry: CatalogueEntry, endpoint: EndpointRecord, listed: ListedModel) -> Place:
    """A model at one endpoint, in words."""
    usable = endpoint.id in entry.usable
    return Place(
        endpoint_id=endpoint.id,
        endpoint=endpoint.name,
        kind=endpoint.backend_type,
        name=listed.name,
        usable=usable,
        state=(listed.state or ModelState.AVAILABLE) if usable else "unavailable",
        size=write_size(listed.size_bytes) if listed.size_bytes else "",
        context=write_count(listed.context_length),
        quantization=listed.quantization,
        digest=listed.digest.removeprefix("sha256:")[:12],
    )


def draw_use(tallies: list[ModelTally]) -> dict[str, Any]:
    """How much a model was used since this server started; empty when it was not."""
    if not tallies:
        return {}
    latency, first, speed = tallies[0].latency, tallies[0].first_byte, tallies[0].speed
    return {
        "requests": sum(each.requests for each in tallies),
        "input_tokens": sum(each.input_tokens for each in tallies),
        "output_tokens": sum(each.output_tokens for each in tallies),
        "p50": latency.quantile(0.5),
        "p95": latency.quantile(0.95),
        "first": first.quantile(0.5),
        "speed": speed.quantile(0.5),
    }


def write_count(value: int | None) -> str:
    """A context length as people say it: `128k`; empty for none."""
    if not value:
        return ""
    if value % 1024 == 0:
        return f"{value // 1024}k"
    return f"{value / 1000:.0f}k" if value >= 10_000 else str(value)


def write_guess(value: int | None) -> str:
    """A context length that only the model's name suggests; empty for none."""
    return f"~{write_count(value)}" if value else ""


def write_parameters(size: str) -> str:
    """A number of parameters with its unit as people write it: `70.6B`."""
    return size.upper() if size[:1].isdigit() else size


def say_quantization(entry: CatalogueEntry) -> str:
    """The quantisation as an endpoint writes it: the catalogue's own spelling is for comparing."""
    folded = entry.facts.quantization
    said = (listed.quantization for _, listed in entry.sources)
    return next((text for text in said if text and normalize_quantization(text) == folded), folded)


def find_largest(entry: CatalogueEntry) -> int:
    """The bytes it has where it is largest; 0 where nobody tells."""
    return max((listed.size_bytes or 0 for _, listed in entry.sources), default=0)


def say_largest(entry: CatalogueEntry) -> str:
    """That in words; empty where nobody tells."""
    size = find_largest(entry)
    return write_size(size) if size else ""


def count_loaded(entry: CatalogueEntry) -> int:
    """At how many endpoints it is in memory."""
    return len({e.id for e, m in entry.sources if m.state == ModelState.LOADED and e.id in entry.usable})


def fold_names_of(entry: CatalogueEntry) -> set[str]:
    """All its names, for comparing."""
    return {fold_model(listed.name) for _, listed in entry.sources} | {fold_model(entry.name)}


def find_tallies(entry: CatalogueEntry) -> list[ModelTally]:
    """What was counted of requests for it, under each of its names."""
    names = dict.fromkeys([entry.name, *(listed.name for _, listed in entry.sources)])
    models = live.tallies.models
    return [models[name] for name in names if name in models]


def count_requests(entry: CatalogueEntry) -> int:
    """How often it was asked for since this server started."""
    return sum(each.requests for each in find_tallies(entry))
