"""Which models a server has in memory, as its kind tells. (pure)

    read_loaded(source, document) -> Loaded | None
    mark_loaded(models, loaded) -> the models with their states

Sources: the servers' own API references, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from endpoints.json_fields import Entry, read_moment, read_name, read_number, read_object, read_objects, read_text
from endpoints.listed import ListedModel, ModelState, fold_model, fold_tag, parse_state
from endpoints.profile import LoadedSource


@dataclass(frozen=True, slots=True)
class InMemory:
    """One model in memory: the bytes it takes there, until when (seconds since the epoch), its context there."""

    size: int | None = None
    until: float | None = None
    context: int | None = None


# By name without its implied tag, or by digest.
Loaded = Mapping[str, InMemory]
PRESENT = InMemory()
# A model in one of these states would have to be loaded first.
COLD = frozenset({ModelState.NOT_LOADED, ModelState.AVAILABLE})


def read_loaded(source: LoadedSource, document: Any) -> Loaded | None:
    """What is in memory by one decoded answer of the source; None when it does not tell."""
    return READERS[source][1](document)


def find_in_memory(model: ListedModel, loaded: Loaded) -> InMemory | None:
    """The model among those in memory, by its name or digest."""
    return loaded.get(fold_tag(model.name)) or (loaded.get(fold_model(model.digest)) if model.digest else None)


def mark_loaded(models: Iterable[ListedModel], loaded: Loaded) -> tuple[ListedModel, ...]:
    """The models with the states that follow from what is in memory."""
    return tuple(mark_one(model, find_in_memory(model, loaded)) for model in models)


def mark_one(model: ListedModel, found: InMemory | None) -> ListedModel:
    """The model as it is found in memory, or not found there."""
    if found is not None:
        return replace(
            model,
            state=ModelState.LOADED.value,
            memory_bytes=found.size,
            memory_until=found.until,
            memory_context=found.context,
        )
    # A list may say more of what is not loaded: that it is there, or being loaded.
    state = ModelState.NOT_LOADED.value if model.state in {"", ModelState.LOADED} else model.state
    return replace(model, state=state, memory_bytes=None, memory_until=None, memory_context=None)


def is_cold(model: ListedModel) -> bool:
    """Whether the model would have to be loaded first, as far as its endpoint tells."""
    return model.state in COLD


def _read_ollama(document: Any) -> Loaded | None:
    """GET /api/ps (Ollama API reference, List Running Models)."""
    entries = _entries(document, "models")
    if entries is None:
        return None
    return {
        fold_tag(read_name(each, "model", "name")): InMemory(
            read_number(each, "size_vram"), read_moment(each, "expires_at"), read_number(each, "context_length")
        )
        for each in entries
    }


def _read_lm_studio(document: Any) -> Loaded | None:
    """GET /api/v0/models (LM Studio REST API v0): `state` of each, and the context of what is loaded."""
    entries = _entries(document, "data")
    loaded = _by_state(entries, "id", lambda each: read_text(each, 40, "state"))
    if loaded is None:
        return None
    contexts = {
        fold_tag(read_name(each, "id")): read_number(each, "loaded_context_length") for each in entries or ()
    }
    return {name: InMemory(context=contexts[name]) for name in loaded}


def _read_llamacpp(document: Any) -> Loaded | None:
    """GET /v1/models of a llama-server that serves several models: `status.value` of each."""
    entries = _entries(document, "data")
    return _by_state(entries, "id", lambda each: read_text(read_object(each, "status"), 40, "value"))


def _read_lemonade(document: Any) -> Loaded | None:
    """GET /api/v1/health (Lemonade Server endpoints spec)."""
    if not isinstance(document, dict) or document.keys().isdisjoint({"all_models_loaded", "model_loaded"}):
        return None
    found = {read_name(document, "model_loaded"): PRESENT}
    for each in read_objects(document, "all_models_loaded"):
        context = read_number(read_object(each, "recipe_options"), "ctx_size")
        found[read_name(each, "model_name")] = InMemory(context=context)
    return {fold_tag(name): told for name, told in found.items() if name}


def _read_omlx(document: Any) -> Loaded | None:
    """GET /v1/models/status (oMLX)."""
    entries = _entries(document, "models")
    if entries is None or not any(isinstance(each.get("loaded"), bool) for each in entries):
        return None
    loaded = (each for each in entries if each.get("loaded") is True)
    return {fold_tag(name): PRESENT for each in loaded for name in omlx_names(each)}


def omlx_names(status: Entry) -> tuple[str, ...]:
    """What a model of oMLX's status may be called in its list: by its folder, or by the alias it was given."""
    names = (read_name(status, "id"), read_name(status, "model_alias"))
    return tuple(name for name in names if name)


def _read_docker(document: Any) -> Loaded | None:
    """GET /engines/ps (Docker Model Runner): models by reference or by digest."""
    if not isinstance(document, list):
        return None
    running = [each for each in document if isinstance(each, dict) and each.get("loading") is not True]
    names = [read_name(each, "model_name").removeprefix("docker.io/") for each in running]
    return {fold_tag(name): PRESENT for name in names if name}


def _entries(document: Any, key: str) -> list[Entry] | None:
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        return None
    return read_objects(document, key)


def _by_state(entries: list[Entry] | None, key: str, read_state: Callable[[Entry], str]) -> Loaded | None:
    states = {read_name(each, key): parse_state(read_state(each)) for each in entries or ()}
    if not any(states.values()):
        return None
    return {fold_tag(name): PRESENT for name, state in states.items() if state == ModelState.LOADED}


# The path each source is asked at, and what reads its answer.
READERS: dict[LoadedSource, tuple[str, Callable[[Any], Loaded | None]]] = {
    LoadedSource.OLLAMA: ("/api/ps", _read_ollama),
    LoadedSource.LM_STUDIO: ("/api/v0/models", _read_lm_studio),
    LoadedSource.LLAMACPP: ("/v1/models", _read_llamacpp),
    LoadedSource.LEMONADE: ("/api/v1/health", _read_lemonade),
    LoadedSource.OMLX: ("/v1/models/status", _read_omlx),
    LoadedSource.DOCKER_MODEL_RUNNER: ("/engines/ps", _read_docker),
}
