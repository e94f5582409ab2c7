"""The product's own model list: one entry for each model, wherever it is and whatever its names. (pure)"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from endpoints.listed import ListedModel, ModelState, fold_tag
from endpoints.quantities import write_size
from endpoints.snapshot import UNIVERSAL, EndpointRecord, Snapshot, fold_model
from proxy.listings import CatalogueEntry, Sources, alias_sources, look_up
from proxy.sieve import LiveView


def build_unified(snapshot: Snapshot, view: LiveView) -> list[CatalogueEntry]:
    """Every model by its id, and every alias that leads somewhere; an alias hides a model of its name."""
    return look_up(snapshot, "unified", lambda: _group_unified(snapshot), view)


def _group_unified(snapshot: Snapshot) -> list[tuple[str, Sources]]:
    by_id = snapshot.by_id
    grouped: dict[str, tuple[str, Sources]] = {
        fold_model(model.id): (model.id, [(by_id[where], listed) for where, listed in model.sources])
        for model in snapshot.catalogue.models
    }
    for folded, alias in snapshot.aliases.items():
        sources = alias_sources(snapshot, UNIVERSAL, alias)
        if sources and not alias.one_model:
            grouped[folded] = (alias.name, sources)
    return [entry for _, entry in sorted(grouped.items(), key=itemgetter(0))]


def find_entry(entries: Iterable[CatalogueEntry], name: str) -> CatalogueEntry | None:
    """The entry of an id, else the first that has the name at an endpoint."""
    wanted, tagless, found = fold_model(name), fold_tag(name), None
    for entry in entries:
        if fold_model(entry.name) == wanted:
            return entry
        if found is None and any(fold_tag(model.name) == tagless for _, model in entry.sources):
            found = entry
    return found


def unified_list(entries: Iterable[CatalogueEntry], now: float) -> dict[str, Any]:
    """The product's own list: every model with where it is and what is known of it."""
    return {"object": "list", "data": [unified_model(entry, now) for entry in entries]}


def unified_model(entry: CatalogueEntry, now: float) -> dict[str, Any]:
    """One entry of the product's own list."""
    facts = entry.facts
    details: dict[str, Any] = {
        "family": facts.family,
        "variant": facts.variant,
        "parameter_size": facts.parameter_size,
        "quantization": facts.quantization,
        "type": facts.model_type,
        "aliases": _names(entry),
        "availability": [
            _availability(endpoint, listed, usable=endpoint.id in entry.usable)
            for endpoint, listed in entry.sources
        ],
        "capabilities": list(facts.capabilities),
    }
    if facts.context_length:
        details["max_context_length"] = facts.context_length
    guessed = _guessed(entry)
    if guessed:
        details["guessed"] = guessed
    return {
        "id": entry.name,
        "object": "model",
        "owned_by": "olla",
        "created": int(facts.modified_at or now),
        "olla": details,
    }


def unified_item(entry: CatalogueEntry, now: float) -> dict[str, Any]:
    """One model looked up by itself: its entry of the list, and the same facts and more side by side."""
    facts = entry.facts
    endpoints = list(dict.fromkeys(endpoint.name for endpoint, _ in entry.sources))
    loaded = [e.name for e, m in entry.sources if m.state == ModelState.LOADED and e.id in entry.usable]
    return {
        **unified_model(entry, now),
        "family": facts.family,
        "variant": facts.variant,
        "parameter_size": facts.parameter_size,
        "parameter_count": facts.parameter_count,
        "quantization": facts.quantization,
        "format": facts.file_format,
        "type": facts.model_type,
        "publisher": facts.publisher,
        "digest": facts.digest,
        "total_disk_size": write_size(facts.total_size),
        "aliases": _names(entry),
        "endpoints": endpoints,
        "loaded_endpoints": list(dict.fromkeys(loaded)),
        "capabilities": list(facts.capabilities),
        "max_context_length": facts.context_length,
    }


def _guessed(entry: CatalogueEntry) -> dict[str, Any]:
    """What no endpoint tells and the names suggest: apart, so that nobody takes it for told."""
    guess = entry.guess
    words = {"capabilities": list(guess.capabilities), "max_context_length": guess.context_length}
    return {name: value for name, value in words.items() if value}


def _names(entry: CatalogueEntry) -> list[str]:
    return sorted({listed.name for _, listed in entry.sources})


def _availability(endpoint: EndpointRecord, model: ListedModel, *, usable: bool) -> dict[str, Any]:
    return {
        "endpoint": endpoint.name,
        "type": endpoint.backend_type,
        "name": model.name,
        "status": endpoint.status,
        "state": (model.state or ModelState.AVAILABLE) if usable else "unavailable",
    }
