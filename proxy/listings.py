"""Model lists in the shapes clients read, from the snapshot alone. (pure)

A model is available while an endpoint that lists it takes traffic. OpenAI's and Ollama's clients are shown
what they can use; the unified list shows all on request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from endpoints.listed import Capability, ModelState
from endpoints.model_facts import ModelFacts, merge_facts
from endpoints.name_patterns import Guess, guess
from endpoints.snapshot import Alias, EndpointRecord, ListedModel, Snapshot, fold_model
from proxy.routing import resolve_alias
from proxy.sieve import LiveView, is_usable


@dataclass(frozen=True)  # without slots, so that facts are kept
class CatalogueEntry:
    """One model name with every endpoint that lists it, in the snapshot's order."""

    name: str
    sources: tuple[tuple[EndpointRecord, ListedModel], ...]
    usable: frozenset[int]  # ids of the endpoints that take requests now

    @property
    def available(self) -> bool:
        """Whether it can be used now."""
        return bool(self.usable)

    @property
    def first(self) -> ListedModel:
        """The listing shown for the model."""
        return self.sources[0][1]

    @cached_property
    def facts(self) -> ModelFacts:
        """What is known of the model from all its listings."""
        return merge_facts(tuple(model for _, model in self.sources))

    @cached_property
    def guess(self) -> Guess:
        """What its names suggest of that which no endpoint tells: for people and filters."""
        facts = self.facts
        found = [guess(endpoint.profile.name_patterns, model.name) for endpoint, model in self.sources]
        able = {word for each in found for word in each.capabilities} if not facts.capabilities else ()
        context = None
        if not facts.context_length:
            context = next((each.context_length for each in found if each.context_length), None)
        return Guess(tuple(each.value for each in Capability if each in able), context)

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can do: as told, else as its names suggest."""
        return self.facts.capabilities or self.guess.capabilities


Writer = Callable[[Iterable[CatalogueEntry]], dict[str, Any]]
Sources = Iterable[tuple[EndpointRecord, ListedModel]]


def build_catalogue(snapshot: Snapshot, prefix: str, view: LiveView) -> list[CatalogueEntry]:
    """The models of a prefix by name, sorted; equal names without regard to case are one."""
    return look_up(snapshot, f"prefix {prefix}", lambda: _group_models(snapshot, prefix), view)


def look_up(
    snapshot: Snapshot, key: str, group: Callable[[], Iterable[tuple[str, Sources]]], view: LiveView
) -> list[CatalogueEntry]:
    """The entries of a list, which is grouped once a snapshot, with where each can be used now."""
    known: list[CatalogueEntry] | None = snapshot.lists.get(("entries", key))
    if known is None:
        known = [_anywhere(name, sources) for name, sources in group()]
        snapshot.lists["entries", key] = known
    usable = frozenset(each.id for each in snapshot.endpoints if is_usable(each, view))
    return [entry if entry.usable <= usable else replace(entry, usable=entry.usable & usable) for entry in known]


def _anywhere(name: str, sources: Sources) -> CatalogueEntry:
    found = tuple(sources)
    return CatalogueEntry(name, found, frozenset(each.id for each, _ in found))


def _group_models(snapshot: Snapshot, prefix: str) -> list[tuple[str, Sources]]:
    grouped: dict[str, list[tuple[EndpointRecord, ListedModel]]] = {}
    for endpoint in snapshot.by_prefix.get(prefix, ()):
        for model in endpoint.models:
            grouped.setdefault(fold_model(model.name), []).append((endpoint, model))
    names = {folded: sources[0][1].name for folded, sources in grouped.items()}
    for alias in snapshot.aliases.values():
        sources = alias_sources(snapshot, prefix, alias)
        if sources:  # an alias hides a model of its name, as it does for requests
            grouped[fold_model(alias.name)] = sources
            names[fold_model(alias.name)] = alias.name
    return [(names[folded], sources) for folded, sources in sorted(grouped.items())]


def build_entry(name: str, sources: Sources, view: LiveView) -> CatalogueEntry:
    """One entry with where it can be used now."""
    found = tuple(sources)
    return CatalogueEntry(name, found, frozenset(each.id for each, _ in found if is_usable(each, view)))


def alias_sources(snapshot: Snapshot, prefix: str, alias: Alias) -> list[tuple[EndpointRecord, ListedModel]]:
    """Each endpoint that has a target of the alias, with the model it would be sent."""
    sent = resolve_alias(snapshot, prefix, alias)
    endpoints = [snapshot.by_id[each] for each in sent]
    return [(each, model) for each in endpoints for model in each.models if model.name == sent[each.id]]


def openai_model(entry: CatalogueEntry) -> dict[str, Any]:
    """One object of OpenAI's model list (platform API reference, Models)."""
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.first.modified_at or 0),
        "owned_by": entry.first.owner or "olla",
        "permission": [],
        "root": entry.name,
        "parent": None,
    }


def openai_list(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """OpenAI's `GET /v1/models`."""
    return {"object": "list", "data": [openai_model(entry) for entry in entries]}


def ollama_tags(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """Ollama's `GET /api/tags` (its docs/api.md, List Local Models)."""
    return {"models": [_ollama_model(entry) for entry in entries]}


def _ollama_model(entry: CatalogueEntry) -> dict[str, Any]:
    model = entry.first
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": _rfc3339(model.modified_at),
        "size": model.size_bytes or 0,
        "digest": model.digest,
        "details": _ollama_details(model),
    }


def _ollama_details(model: ListedModel) -> dict[str, Any]:
    return {
        "parent_model": model.parent,
        "format": model.file_format or "gguf",
        "family": model.family,
        "families": [model.family] if model.family else None,
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }


def ollama_running(entries: Iterable[CatalogueEntry], now: float) -> dict[str, Any]:
    """Ollama's `GET /api/ps` (its docs/api.md, List Running Models): what is in memory at any of the endpoints."""
    models = []
    for entry in entries:
        loaded = (m for e, m in entry.sources if e.id in entry.usable and m.state == ModelState.LOADED)
        model = next(loaded, None)
        if model is not None:
            models.append(_running_model(entry.name, model, now))
    return {"models": models}


def _running_model(name: str, model: ListedModel, now: float) -> dict[str, Any]:
    size = model.memory_bytes or model.size_bytes or 0
    return {
        "name": name,
        "model": name,
        "size": size,
        "digest": model.digest,
        "details": _ollama_details(model),
        # As last told; it was in memory since then, so the time cannot have come.
        "expires_at": _rfc3339(max(model.memory_until or now, now)),
        "size_vram": size,
        "context_length": model.memory_context or model.context_length or 0,
    }


def ollama_version(snapshot: Snapshot, prefix: str, view: LiveView) -> dict[str, Any] | None:
    """Ollama's `GET /api/version`: the oldest among the endpoints in use, since any of them may get the next
    request; None when nobody has told yet.
    """
    members = [each for each in snapshot.by_prefix.get(prefix, ()) if is_usable(each, view)]
    versions = [each.server_version for each in members if each.server_version]
    return {"version": min(versions, key=_version_key)} if versions else None


def _version_key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]{1,9}", version)[:6]]


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a list was asked for, as Anthropic's list parameters say it."""

    limit: int = 20
    after_id: str = ""
    before_id: str = ""


def anthropic_page(found: Sequence[CatalogueEntry], page: Page) -> tuple[Sequence[CatalogueEntry], Writer]:
    """The entries of one page of Anthropic's `GET /v1/models` (its API reference, List Models), and what writes
    any of them with what the page says of itself. An unknown cursor begins at the start.
    """
    start, end = 0, page.limit
    before, after = _find_cursor(found, page.before_id), _find_cursor(found, page.after_id)
    if before is not None:
        start, end = max(0, before - page.limit), before
    elif after is not None:
        start, end = after + 1, after + 1 + page.limit
    entries = found[start:end]
    ends = {
        "has_more": start > 0 if before is not None else end < len(found),
        "first_id": entries[0].name if entries else None,
        "last_id": entries[-1].name if entries else None,
    }
    return entries, lambda some: {"data": [anthropic_model(entry) for entry in some], **ends}


def _find_cursor(found: Sequence[CatalogueEntry], name: str) -> int | None:
    wanted = fold_model(name)
    if not wanted:
        return None
    return next((index for index, entry in enumerate(found) if fold_model(entry.name) == wanted), None)


def anthropic_model(entry: CatalogueEntry) -> dict[str, Any]:
    """One entry of Anthropic's model list; the window as far as it is known."""
    windows = [listed.context_length for _, listed in entry.sources if listed.context_length]
    return {
        "type": "model",
        "id": entry.name,
        "display_name": entry.name,
        "created_at": _rfc3339(entry.first.modified_at),
        "lifecycle": "active",
        "max_input_tokens": min(windows) if windows else None,
        "max_tokens": None,
    }


def _rfc3339(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
