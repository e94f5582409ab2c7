"""One entry of each server's model list as the same record. (pure)

What a server writes in `owned_by` for all its models (its own name) says nothing about who made them and is
left out. Sources: the servers' own API references, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from endpoints.json_fields import (
    Entry,
    read_moment,
    read_name,
    read_number,
    read_object,
    read_text,
    read_words,
)
from endpoints.listed import (
    ListedModel,
    ModelState,
    ModelType,
    parse_capabilities,
    parse_model_type,
    parse_state,
)
from endpoints.profiles import ListFormat
from endpoints.quantities import write_count

Parser = Callable[[Entry], ListedModel | None]


def parse_ollama(entry: Entry) -> ListedModel | None:
    """One entry of GET /api/tags (Ollama API reference, List Local Models)."""
    name = read_name(entry, "name", "model")
    if not name:
        return None
    details = read_object(entry, "details")
    families = read_words(details, "families")
    return ListedModel(
        name=name,
        digest=read_text(entry, 200, "digest"),
        size_bytes=read_number(entry, "size"),
        family=read_text(details, 100, "family") or next(iter(families), ""),
        parameter_size=read_text(details, 40, "parameter_size"),
        quantization=_known(read_text(details, 40, "quantization_level")),
        context_length=read_number(details, "context_length"),
        capabilities=parse_capabilities(read_words(entry, "capabilities")),
        modified_at=read_moment(entry, "modified_at"),
        file_format=read_text(details, 40, "format"),
        parent=read_text(details, 500, "parent_model"),
    )


def parse_lm_studio(entry: Entry) -> ListedModel | None:
    """One entry of GET /api/v0/models (LM Studio REST API v0, 0.3.6 and newer)."""
    name = read_name(entry, "id")
    if not name:
        return None
    model_type = parse_model_type(read_text(entry, 40, "type"))
    return ListedModel(
        name=name,
        family=read_text(entry, 100, "arch"),
        quantization=_known(read_text(entry, 40, "quantization")),
        context_length=read_number(entry, "max_context_length"),
        model_type=model_type,
        capabilities=_lm_studio_capabilities(entry, model_type),
        state=parse_state(read_text(entry, 40, "state")),
        memory_context=read_number(entry, "loaded_context_length"),
        owner=read_text(entry, 200, "publisher"),
        file_format=read_text(entry, 40, "compatibility_type"),
    )


def _lm_studio_capabilities(entry: Entry, model_type: str) -> tuple[str, ...]:
    """Versions that list capabilities name tool use there; what else a model can do is in its type."""
    if model_type == ModelType.EMBEDDINGS:
        return parse_capabilities(["embeddings"])
    if not isinstance(entry.get("capabilities"), list):
        return ()
    implied = ["chat", "vision"] if model_type == ModelType.VLM else ["chat"]
    return parse_capabilities([*implied, *read_words(entry, "capabilities")])


@dataclass(frozen=True, slots=True)
class OpenAIList:
    """How a kind fills OpenAI's list: which owners mean nobody, which file format all its models have."""

    own_names: frozenset[str] = frozenset()
    file_format: str = ""

    def __call__(self, entry: Entry) -> ListedModel | None:
        """One entry of GET /v1/models, with the fields that others add: vLLM, llama.cpp (`meta`; `status` when it
        serves several models), LM Studio, LiteLLM (`mode`, `max_input_tokens`), OpenRouter, Mistral.
        """
        name = read_name(entry, "id", "name")
        if not name:
            return None
        owner = read_text(entry, 200, "publisher", "owned_by")
        meta = read_object(entry, "meta")
        count = read_number(meta, "n_params")
        return ListedModel(
            name=name,
            size_bytes=read_number(meta, "size"),
            parameter_size=write_count(count) if count else "",
            family=read_text(entry, 100, "arch"),
            quantization=_known(read_text(entry, 40, "quantization")),
            context_length=read_number(
                entry,
                "max_model_len",
                "max_context_length",
                "context_length",
                "context_window",
                "max_input_tokens",
            )
            or read_number(meta, "n_ctx", "n_ctx_train"),
            model_type=parse_model_type(read_text(entry, 40, "type") or read_text(entry, 40, "mode")),
            capabilities=parse_capabilities(read_words(entry, "capabilities")),
            state=parse_state(
                read_text(entry, 40, "state") or read_text(read_object(entry, "status"), 40, "value")
            ),
            owner="" if owner in self.own_names else owner,
            modified_at=read_moment(entry, "created"),
            file_format=self.file_format or read_text(entry, 40, "compatibility_type"),
            parent=read_text(entry, 500, "parent"),
        )


_GENERIC = OpenAIList(frozenset({"organization_owner", "organization-owner"}))  # LM Studio's is no owner
_LEMONADE = OpenAIList(frozenset({"lemonade"}))
_MOST_GIGABYTES = 10**6


def parse_lemonade(entry: Entry) -> ListedModel | None:
    """One entry of GET /api/v1/models (Lemonade Server endpoints spec)."""
    model = _LEMONADE(entry)
    if model is None:
        return None
    checkpoint, recipe = read_text(entry, 500, "checkpoint"), read_text(entry, 40, "recipe")
    publisher, slash, _ = checkpoint.partition("/")
    labels = [word.lower() for word in read_words(entry, "labels")]
    return _replaced(
        model,
        owner=(publisher if slash else "") or model.owner,
        checkpoint=checkpoint,
        recipe=recipe,
        size_bytes=_gigabytes(entry.get("size")),
        context_length=read_number(entry, "max_context_window"),
        file_format=_recipe_format(recipe),
        model_type=_label_type(labels),
        # Older versions have no label for tools, so labels without it say nothing of the model as a whole.
        capabilities=parse_capabilities(["chat", *labels]) if "tool-calling" in labels else (),
        state=ModelState.AVAILABLE.value if entry.get("downloaded") is True else "",
    )


_VLLM_MLX = OpenAIList(frozenset({"vllm-mlx", "vllm"}), "mlx")
_VLLM_MLX_TYPES = {"vllm-mlx-embedding": ModelType.EMBEDDINGS, "vllm-mlx-reranker": ModelType.RERANK}


def parse_vllm_mlx(entry: Entry) -> ListedModel | None:
    """One entry of vLLM-MLX's GET /v1/models, whose owner tells what a model is for."""
    model = _VLLM_MLX(entry)
    model_type = _VLLM_MLX_TYPES.get(model.owner) if model is not None else None
    return replace(model, owner="", model_type=model_type.value) if model and model_type else model


def _gigabytes(value: Any) -> int | None:
    is_amount = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST_GIGABYTES
    return round(value * 10**9) if is_amount else None


def _label_type(labels: list[str]) -> str:
    return next((found for found in (parse_model_type(label) for label in labels) if found), "")


def _recipe_format(recipe: str) -> str:
    if recipe.startswith(("oga-", "ryzenai")):
        return "onnx"
    return "gguf" if recipe in {"llamacpp", "flm"} else ""


def _replaced(model: ListedModel, **values: Any) -> ListedModel:
    """The model with the values that say something."""
    return replace(model, **{key: value for key, value in values.items() if value})


def _known(text: str) -> str:
    """Ollama and LM Studio write a quantisation they cannot tell as `unknown`."""
    return "" if text.lower() == "unknown" else text


# The key of the list in the envelope, and what reads its entries.
SHAPES: dict[ListFormat, tuple[str, Parser]] = {
    ListFormat.OLLAMA: ("models", parse_ollama),
    ListFormat.LM_STUDIO: ("data", parse_lm_studio),
    ListFormat.OPENAI: ("data", _GENERIC),
    ListFormat.VLLM: ("data", OpenAIList(frozenset({"vllm"}))),
    ListFormat.VLLM_MLX: ("data", parse_vllm_mlx),
    ListFormat.SGLANG: ("data", OpenAIList(frozenset({"sglang"}))),
    ListFormat.LMDEPLOY: ("data", OpenAIList(frozenset({"lmdeploy"}))),
    ListFormat.LLAMACPP: ("data", OpenAIList(frozenset({"llamacpp", "llama.cpp"}), "gguf")),
    ListFormat.LEMONADE: ("data", parse_lemonade),
    ListFormat.OMLX: ("data", OpenAIList(frozenset({"omlx"}), "mlx")),
    ListFormat.DOCKER_MODEL_RUNNER: ("data", OpenAIList(frozenset({"docker"}), "gguf")),
}
