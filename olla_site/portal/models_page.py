"""The catalogue for the team: every model once, where it is, what is known of it and how much it is used."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse

from endpoints import loading
from endpoints.drift import build_drift
from endpoints.quantities import write_size
from endpoints.snapshot import Snapshot, fold_model
from olla_site.portal.access import page
from olla_site.portal.model_words import (
    count_loaded,
    count_requests,
    draw,
    draw_place,
    draw_use,
    find_largest,
    find_tallies,
    fold_names_of,
    say_quantization,
    write_count,
    write_guess,
    write_parameters,
)
from proxy.listings import CatalogueEntry
from proxy.live import live
from proxy.unified_list import build_unified, find_entry

PAGE = 100
LONGEST_SEARCH = 200
SORTS = {"name": "name", "used": "most used", "size": "largest", "places": "most endpoints"}
_MOST_CHOICES = 100


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
    facts, tallies = entry.facts, find_tallies(entry)
    context = {
        "entry": entry,
        "facts": facts,
        "parameters": write_parameters(facts.parameter_size),
        "quantization": say_quantization(entry),
        "size": write_size(facts.total_size) if facts.total_size else "",
        "context_length": write_count(facts.context_length),
        "guess": entry.guess,
        "guessed_context": write_guess(entry.guess.context_length),
        "places": [draw_place(entry, endpoint, listed) for endpoint, listed in entry.sources],
        "names": sorted({listed.name for _, listed in entry.sources} | {entry.name}),
        "aliases": _aliases_of(snapshot, entry),
        "use": draw_use(tallies),
        "drift": [row for row in build_drift(snapshot) if fold_model(row.name) in fold_names_of(entry)],
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
        found = [entry for entry in found if count_loaded(entry)]
    elif now == "away":
        found = [entry for entry in found if not entry.available]
    return _sorted(found, chosen.get("sort", ""))


def _sorted(entries: list[CatalogueEntry], sort: str) -> list[CatalogueEntry]:
    if sort == "used":
        return sorted(entries, key=lambda entry: -count_requests(entry))
    if sort == "size":
        return sorted(entries, key=lambda entry: -find_largest(entry))
    if sort == "places":
        return sorted(entries, key=lambda entry: -len(entry.sources))
    return entries


def _searched(entry: CatalogueEntry) -> str:
    return " ".join([entry.name, *(listed.name for _, listed in entry.sources)]).casefold()


def _aliases_of(snapshot: Snapshot, entry: CatalogueEntry) -> list[str]:
    names = fold_names_of(entry)
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
