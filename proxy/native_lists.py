"""Model lists as single kinds of server write them, from the snapshot alone. (pure)

Field for field what each server's own clients read (their API references, as of 2026-11). On a kind's own prefix
the entries are that kind's models under their own names; `?format=` of `/olla/models` writes all models so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from endpoints.listed import Capability, ModelState, ModelType
from endpoints.model_facts import ModelFacts
from endpoints.quantities import spell_quantization
from proxy.listings import CatalogueEntry, Writer, ollama_tags, openai_list, openai_model

_LMSTUDIO_TYPES = {ModelType.VLM: "vlm", ModelType.EMBEDDINGS: "embeddings"}


def lm_studio_v0(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """LM Studio's `GET /api/v0/models`."""
    return {"object": "list", "data": [lm_studio_v0_model(entry) for entry in entries]}


def lm_studio_v0_model(entry: CatalogueEntry) -> dict[str, Any]:
    """One entry of it, as `GET /api/v0/models/{id}` answers too."""
    facts = entry.facts
    model: dict[str, Any] = {
        "id": entry.name,
        "object": "model",
        "type": _LMSTUDIO_TYPES.get(ModelType(facts.model_type or ModelType.LLM), "llm"),
        "publisher": facts.publisher,
        "arch": facts.family,
        "compatibility_type": facts.file_format or "gguf",
        "quantization": spell_quantization(facts.quantization),
        "state": "loaded" if _is_loaded(entry) else "not-loaded",
        "max_context_length": facts.context_length,
        "loaded_context_length": _loaded_context(entry),
        "capabilities": ["tool_use"] if Capability.TOOLS in facts.capabilities else [],
    }
    return {key: value for key, value in model.items() if value is not None and value != ""}


def lm_studio_v1(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """LM Studio's `GET /api/v1/models` (0.4 and newer)."""
    return {"models": [_lm_studio_v1_model(entry) for entry in entries]}


def _lm_studio_v1_model(entry: CatalogueEntry) -> dict[str, Any]:
    facts = entry.facts
    is_embedding = facts.model_type == ModelType.EMBEDDINGS
    quantization = spell_quantization(facts.quantization)
    model: dict[str, Any] = {
        "type": "embedding" if is_embedding else "llm",
        "publisher": facts.publisher,
        "key": entry.name,
        "display_name": entry.name,
        "quantization": {"name": quantization, "bits_per_weight": None} if quantization else None,
        "size_bytes": facts.total_size // len(entry.sources),
        "params_string": facts.parameter_size.upper() or None,
        "loaded_instances": _loaded_instances(entry),
        "max_context_length": facts.context_length or 0,
        "format": facts.file_format or None,
    }
    if is_embedding:
        return model
    capabilities = {
        "vision": Capability.VISION in facts.capabilities,
        "trained_for_tool_use": Capability.TOOLS in facts.capabilities,
    }
    return {**model, "architecture": facts.family or None, "capabilities": capabilities, "description": None}


def _loaded_instances(entry: CatalogueEntry) -> list[dict[str, Any]]:
    if not _is_loaded(entry):
        return []
    context = _loaded_context(entry) or entry.facts.context_length or 0
    return [{"id": entry.name, "config": {"context_length": context}}]


_LEMONADE_LABELS = (
    (Capability.VISION, "vision"), (Capability.TOOLS, "tool-calling"), (Capability.EMBEDDINGS, "embeddings"),
    (Capability.RERANK, "reranking"), (Capability.REASONING, "reasoning"), (Capability.CODE, "coding"),
    (Capability.IMAGES, "image"),
)  # fmt: skip


def lemonade(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """Lemonade's `GET /api/v1/models`, which lists what is downloaded."""
    return {"object": "list", "data": [lemonade_model(entry) for entry in entries]}


def lemonade_model(entry: CatalogueEntry) -> dict[str, Any]:
    """One entry of it, as `GET /api/v1/models/{id}` answers too."""
    facts = entry.facts
    size = round(facts.total_size / len(entry.sources) / 10**9, 2)
    told = {"size": size, "max_context_window": facts.context_length}
    return {
        **_openai(entry, "lemonade"),
        **{name: value for name, value in told.items() if value},
        "checkpoint": next((model.checkpoint for _, model in entry.sources if model.checkpoint), entry.name),
        "recipe": next((model.recipe for _, model in entry.sources if model.recipe), ""),
        "downloaded": True,
        "suggested": False,
        "labels": [label for capability, label in _LEMONADE_LABELS if capability in facts.capabilities],
    }


def docker_model_runner(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """Docker Model Runner's `GET /engines/v1/models`."""
    return _list(docker_model(entry) for entry in entries)


def docker_model(entry: CatalogueEntry) -> dict[str, Any]:
    """One entry of it, as `GET /engines/v1/models/{id}` answers too."""
    return {**_openai(entry, "docker"), "owned_by": "docker"}


def vllm(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """vLLM's `GET /v1/models`."""
    return _list(
        {**_openai(entry, "vllm"), **_root(entry), "parent": _parent(entry), "permission": [_permission(entry)]}
        for entry in entries
    )


def sglang(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """SGLang's `GET /v1/models`."""
    return _list({**_openai(entry, "sglang"), **_root(entry), "parent": _parent(entry)} for entry in entries)


def lmdeploy(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """LMDeploy's `GET /v1/models`."""
    return _list(
        {**_openai(entry, "lmdeploy"), "root": entry.name, "parent": _parent(entry),
         "permission": [_permission(entry)]}
        for entry in entries
    )  # fmt: skip


def llamacpp(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """llama.cpp's `GET /v1/models`."""
    return _list({**_openai(entry, "llamacpp"), "meta": _meta(entry.facts)} for entry in entries)


def vllm_mlx(entries: Iterable[CatalogueEntry]) -> dict[str, Any]:
    """vLLM-MLX's `GET /v1/models`."""
    return _list(_openai(entry, "vllm-mlx") for entry in entries)


def _list(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": list(items)}


def _openai(entry: CatalogueEntry, owner: str) -> dict[str, Any]:
    facts = entry.facts
    created = int(facts.modified_at or 0)
    return {"id": entry.name, "object": "model", "created": created, "owned_by": facts.publisher or owner}


def _root(entry: CatalogueEntry) -> dict[str, Any]:
    return {"root": entry.name, "max_model_len": entry.facts.context_length}


def _parent(entry: CatalogueEntry) -> str | None:
    return next((model.parent for _, model in entry.sources if model.parent), None)


def _meta(facts: ModelFacts) -> dict[str, Any]:
    size = facts.total_size or None
    return {"n_ctx_train": facts.context_length, "n_params": facts.parameter_count or None, "size": size}


def _permission(entry: CatalogueEntry) -> dict[str, Any]:
    return {
        "id": f"modelperm-olla-{entry.name.replace('/', '-')}",
        "object": "model_permission",
        "created": int(entry.first.modified_at or 0),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def _loaded_context(entry: CatalogueEntry) -> int | None:
    contexts = (model.memory_context for _, model in entry.sources if model.state == ModelState.LOADED)
    return next(filter(None, contexts), None)


def _is_loaded(entry: CatalogueEntry) -> bool:
    return any(model.state == ModelState.LOADED for _, model in entry.sources)


# By format name; kinds that write plain OpenAI lists have none of their own.
FORMATS: dict[str, Writer] = {
    "openai": openai_list,
    "ollama": ollama_tags,
    "lmstudio": lm_studio_v0,
    "vllm": vllm,
    "vllm-mlx": vllm_mlx,
    "sglang": sglang,
    "llamacpp": llamacpp,
    "lemonade": lemonade,
    "lmdeploy": lmdeploy,
    "docker-model-runner": docker_model_runner,
    "litellm": openai_list,
    "omlx": openai_list,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a list is written and, where single models can be asked for, one of them."""

    write_list: Writer
    write_model: Callable[[CatalogueEntry], dict[str, Any]] | None = None


PLAIN = Shape(openai_list, openai_model)
_LEMONADE = Shape(lemonade, lemonade_model)
_DOCKER = Shape(docker_model_runner, docker_model)
# Kind -> where its own API lists models, besides OpenAI's /v1/models; other kinds list where their profile says.
ROUTES: dict[str, tuple[tuple[str, Shape], ...]] = {
    "ollama": (("/api/tags", Shape(ollama_tags)),),
    "lm-studio": (
        ("/api/v0/models", Shape(lm_studio_v0, lm_studio_v0_model)),
        ("/api/v1/models", Shape(lm_studio_v1)),
    ),
    "lemonade": (("/api/v1/models", _LEMONADE), ("/api/v0/models", _LEMONADE)),
    "docker-model-runner": tuple(
        (f"/engines{engine}/v1/models", _DOCKER) for engine in ("", "/llama.cpp", "/vllm")
    ),
}
