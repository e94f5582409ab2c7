"""The catalogue for the team: every model once, where it is, what is known of it and how much it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse

from endpoints import loading
from endpoints.drift import build_drift
from endpoints.listed import ModelState
from endpoints.quantities import normalize_quantization, write_size
from endpoints.snapshot import EndpointRecord, ListedModel, Snapshot, fold_model
from olla_site.portal.access import page
from olla_site.portal.navigation import find_pages
from proxy.listings import CatalogueEntry
from proxy.live import live
from proxy.tallies import ModelTally
from proxy.unified_list import build_unified, find_entry

PAGE = 100
PLACES_SHOWN = 4
NAMES_SHOWN = 3
LONGEST_SEARCH = 200
SORTS = {"name": "name", "used": "most used", "size": "largest", "places": "most endpoints"}
_MOST_CHOICES = 100


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


@page()
async def models(request: HttpRequest) -> HttpResponse:
    """The catalogue, filtered, a page at a time. Runs on the loop, where counters and the snapshot are."""
    snapshot = loading.current()
    entries = build_unified(snapshot, live.view())
    chosen = read_filters(request.GET)
    found = choose(entries, chosen)
    number = _page_number(request.GET.get("page", ""), len(found))
    drift = build_drift(snapshot)
    drifting = {fold_model(row.name) for row in drift}
    shown = found[(number - 1) * PAGE : number * PAGE]
    context = {
        "rows": [draw(entry, drifting) for entry in shown],
        "total": len(entries),
        "found": len(found),
        "usable": sum(entry.available for entry in entries),
        "chosen": chosen,
        "sorts": SORTS.items(),
        "families": _choices(entry.facts.family for entry in entries),
        "abilities": _choices(ability for entry in entries for ability in entry.abilities),
        "endpoints": [(each.id, each.name) for each in snapshot.endpoints[:500]],
        "drift": drift[:PAGE],
        "older": _link(chosen, number + 1) if number * PAGE < len(found) else "",
        "newer": _link(chosen, number - 1) if number > 1 else "",
        "number": number,
        "playground": _playground(),
        "pages": max(1, -(-len(found) // PAGE)),
    }
    answer: HttpResponse = await sync_to_async(render)(request, "portal/models.html", context)
    return answer


@page()
async def model(request: HttpRequest, name: str) -> HttpResponse:
    """One model: every endpoint that has it, its names, its use."""
    snapshot = loading.current()
    entry = find_entry(build_unified(snapshot, live.view()), name)
    if entry is None:
        raise Http404
    facts, tallies = entry.facts, _tallies_of(entry)
    context = {
        "entry": entry,
        "facts": facts,
        "parameters": write_parameters(facts.parameter_size),
        "quantization": _said_quantization(entry),
        "size": write_size(facts.total_size) if facts.total_size else "",
        "context_length": write_count(facts.context_length),
        "guess": entry.guess,
        "guessed_context": write_guess(entry.guess.context_length),
        "places": [draw_place(entry, endpoint, listed) for endpoint, listed in entry.sources],
        "names": sorted({listed.name for _, listed in entry.sources} | {entry.name}),
        "aliases": _aliases_of(snapshot, entry),
        "use": draw_use(tallies),
        "playground": _playground(),
        "drift": [row for row in build_drift(snapshot) if fold_model(row.name) in _folded(entry)],
        "requests": f"{reverse('portal:requests')}?{urlencode({'model': entry.name})}",
        "explain": f"{reverse('portal:explain')}?"
        + urlencode({"path": "/olla/openai/v1/chat/completions", "model": entry.name}),
    }
    answer: HttpResponse = await sync_to_async(render)(request, "portal/model.html", context)
    return answer


def read_filters(values: QueryDict) -> dict[str, str]:
    """The filters that mean something."""
    names = ("q", "family", "can", "endpoint", "now", "sort")
    chosen = {name: values.get(name, "").strip()[:LONGEST_SEARCH] for name in names}
    if chosen["sort"] not in SORTS:
        chosen["sort"] = ""
    return {name: value for name, value in chosen.items() if value}


def choose(entries: list[CatalogueEntry], chosen: dict[str, str]) -> list[CatalogueEntry]:
    """The models the filters leave, in the order asked for."""
    found = entries
    if words := chosen.get("q", "").casefold().split():
        found = [entry for entry in found if all(word in _searched(entry) for word in words)]
    if family := chosen.get("family"):
        found = [entry for entry in found if entry.facts.family == family]
    if ability := chosen.get("can"):
        found = [entry for entry in found if ability in entry.abilities]
    if endpoint := chosen.get("endpoint"):
        found = [entry for entry in found if any(str(each.id) == endpoint for each, _ in entry.sources)]
    now = chosen.get("now")
    if now == "usable":
        found = [entry for entry in found if entry.available]
    elif now == "loaded":
        found = [entry for entry in found if _count_loaded(entry)]
    elif now == "away":
        found = [entry for entry in found if not entry.available]
    return _sorted(found, chosen.get("sort", ""))


def _sorted(entries: list[CatalogueEntry], sort: str) -> list[CatalogueEntry]:
    if sort == "used":
        return sorted(entries, key=lambda entry: -_count_requests(entry))
    if sort == "size":
        return sorted(entries, key=lambda entry: -max((m.size_bytes or 0 for _, m in entry.sources), default=0))
    if sort == "places":
        return sorted(entries, key=lambda entry: -len(entry.sources))
    return entries


def _searched(entry: CatalogueEntry) -> str:
    return " ".join([entry.name, *(listed.name for _, listed in entry.sources)]).casefold()


def draw(entry: CatalogueEntry, drifting: set[str]) -> Row:
    """A row of the table."""
    facts = entry.facts
    names = sorted({listed.name for _, listed in entry.sources} - {entry.name})
    places = sorted(
        (draw_place(entry, endpoint, listed) for endpoint, listed in entry.sources),
        key=lambda place: (not place.loaded, not place.usable),
    )
    return Row(
        name=entry.name,
        address=reverse("portal:model", args=[entry.name]),
        aliases=tuple(names[:NAMES_SHOWN]),
        aliases_left_out=max(0, len(names) - NAMES_SHOWN),
        family=facts.family,
        parameters=write_parameters(facts.parameter_size),
        quantization=_said_quantization(entry),
        context=write_count(facts.context_length) or write_guess(entry.guess.context_length),
        size=_largest(entry),
        kind=facts.model_type,
        capabilities=facts.capabilities or tuple(f"{word}?" for word in entry.guess.capabilities),
        places=tuple(places[:PLACES_SHOWN]),
        places_left_out=max(0, len(places) - PLACES_SHOWN),
        usable=entry.available,
        loaded=_count_loaded(entry),
        requests=_count_requests(entry),
        drifts=not drifting.isdisjoint(_folded(entry)),
    )


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


def _said_quantization(entry: CatalogueEntry) -> str:
    """The quantisation as an endpoint writes it: the catalogue's own spelling is for comparing."""
    folded = entry.facts.quantization
    said = (listed.quantization for _, listed in entry.sources)
    return next((text for text in said if text and normalize_quantization(text) == folded), folded)


def _largest(entry: CatalogueEntry) -> str:
    size = max((listed.size_bytes or 0 for _, listed in entry.sources), default=0)
    return write_size(size) if size else ""


def _count_loaded(entry: CatalogueEntry) -> int:
    return len({e.id for e, m in entry.sources if m.state == ModelState.LOADED and e.id in entry.usable})


def _folded(entry: CatalogueEntry) -> set[str]:
    return {fold_model(listed.name) for _, listed in entry.sources} | {fold_model(entry.name)}


def _tallies_of(entry: CatalogueEntry) -> list[ModelTally]:
    names = dict.fromkeys([entry.name, *(listed.name for _, listed in entry.sources)])
    models = live.tallies.models
    return [models[name] for name in names if name in models]


def _count_requests(entry: CatalogueEntry) -> int:
    return sum(each.requests for each in _tallies_of(entry))


def _aliases_of(snapshot: Snapshot, entry: CatalogueEntry) -> list[str]:
    names = _folded(entry)
    return sorted(
        alias.name
        for alias in snapshot.aliases.values()
        if any(fold_model(target) in names for target in alias.targets)
    )


def _choices(values: Any) -> list[str]:
    return sorted({value for value in values if value})[:_MOST_CHOICES]


def _page_number(text: str, rows: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
    return max(1, min(number, -(-rows // PAGE)))


def _link(chosen: dict[str, str], number: int) -> str:
    return f"{reverse('portal:models')}?{urlencode({**chosen, 'page': number})}"


def _playground() -> str:
    """The playground's address; empty where there is none."""
    return next((address for item, address in find_pages() if item.view == "portal:playground"), "")
