"""What kinds tell of their models beyond the list, added to the listed models. (pure)

Each function takes the models and one decoded answer and returns the models with what it adds; an answer that is
not what it should be adds nothing. Sources: the servers' own API references, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from endpoints.json_fields import Entry, read_name, read_number, read_object, read_objects, read_text, read_words
from endpoints.listed import (
    ListedModel,
    ModelState,
    ModelType,
    fold_tag,
    parse_capabilities,
    parse_model_type,
    parse_state,
)
from endpoints.loaded import omlx_names
from endpoints.profiles import DetailSource
from endpoints.quantities import parse_bytes, write_count

Models = tuple[ListedModel, ...]
Adder = Callable[[Models, Any], Models]


def add_ollama_show(model: ListedModel, document: Any) -> ListedModel:
    """POST /api/show (Ollama API reference, Show Model Information): context length and capabilities."""
    answer = _as_object(document)
    info = read_object(answer, "model_info")
    architecture = read_text(info, 100, "general.architecture")
    count = read_number(info, "general.parameter_count")
    return replace(
        model,
        context_length=model.context_length or read_number(info, f"{architecture}.context_length"),
        capabilities=model.capabilities or parse_capabilities(read_words(answer, "capabilities")),
        family=model.family or architecture,
        parameter_size=model.parameter_size or (write_count(count) if count else ""),
    )


def add_llamacpp_props(models: Models, document: Any) -> Models:
    """GET /props (llama-server README): the context in force, and what model and template can do.

    Told of the one model a server runs; one that serves several answers for none of them.
    """
    answer = _as_object(document)
    settings = read_object(answer, "default_generation_settings")
    if len(models) != 1 or not settings:
        return models
    sees = read_object(answer, "modalities").get("vision") is True
    words = ["chat", "vision"] if sees else ["chat"]
    caps = read_object(answer, "chat_template_caps")
    uses_tools = caps.get("supports_tools", caps.get("supports_tool_calls"))
    if uses_tools is True:
        words.append("tools")
    (model,) = models
    return (
        replace(
            model,
            context_length=read_number(settings, "n_ctx") or model.context_length,
            model_type=model.model_type or (ModelType.VLM.value if sees else ""),
            # Versions that do not tell of tools leave the statement as a whole open.
            capabilities=model.capabilities or (parse_capabilities(words) if isinstance(uses_tools, bool) else ()),
            state=model.state or ModelState.LOADED.value,
        ),
    )


_LITELLM_WORDS = {
    "supports_function_calling": "tools", "supports_vision": "vision", "supports_reasoning": "reasoning",
    "supports_audio_input": "audio",
}  # fmt: skip


def add_litellm_info(models: Models, document: Any) -> Models:
    """GET /model/info (LiteLLM proxy, Model Info): what LiteLLM knows of each model behind it."""
    told: dict[str, Entry] = {}
    for entry in read_objects(_as_object(document), "data"):
        told.setdefault(read_name(entry, "model_name"), read_object(entry, "model_info"))
    return tuple(_add_litellm_info(each, told.get(each.name, {})) for each in models)


def _add_litellm_info(model: ListedModel, info: Entry) -> ListedModel:
    mode = read_text(info, 40, "mode")
    known = isinstance(info.get("supports_function_calling"), bool)
    words = ["chat", *(word for key, word in _LITELLM_WORDS.items() if info.get(key) is True)] if known else []
    if parse_model_type(mode) not in {ModelType.LLM, ""}:
        words = [mode]
    return replace(
        model,
        context_length=model.context_length or read_number(info, "max_input_tokens", "max_tokens"),
        model_type=model.model_type or _mode_type(mode, words),
        capabilities=model.capabilities or parse_capabilities(words),
    )


def _mode_type(mode: str, words: list[str]) -> str:
    return ModelType.VLM.value if "vision" in words else parse_model_type(mode)


def add_omlx_status(models: Models, document: Any) -> Models:
    """GET /v1/models/status (oMLX): what is in memory, what each model is for and how much it takes."""
    entries = read_objects(_as_object(document), "models")
    told = {name: each for each in entries for name in omlx_names(each)}
    return tuple(_add_omlx_status(each, told.get(each.name, {})) for each in models)


def _add_omlx_status(model: ListedModel, status: Entry) -> ListedModel:
    loaded = status.get("loaded")
    state = (ModelState.LOADED if loaded else ModelState.NOT_LOADED).value if isinstance(loaded, bool) else ""
    if status.get("is_loading") is True:
        state = ModelState.LOADING.value
    return replace(
        model,
        state=model.state or state or parse_state(read_text(status, 40, "state")),
        model_type=model.model_type or parse_model_type(read_text(status, 40, "model_type")),
        context_length=model.context_length or read_number(status, "max_context_window"),
        size_bytes=model.size_bytes or read_number(status, "estimated_size"),
    )


def add_docker_models(models: Models, document: Any) -> Models:
    """GET /models (Docker Model Runner's own API): digest, architecture, size and quantisation."""
    entries = document if isinstance(document, list) else []
    told = {
        fold_tag(tag.removeprefix("docker.io/")): entry
        for entry in entries
        if isinstance(entry, dict)
        for tag in _long_words(entry.get("tags"))
    }
    return tuple(_add_docker_model(each, told.get(fold_tag(each.name), {})) for each in models)


def _add_docker_model(model: ListedModel, entry: Entry) -> ListedModel:
    config = read_object(entry, "config")
    return replace(
        model,
        digest=model.digest or read_text(entry, 200, "id"),
        family=model.family or read_text(config, 100, "architecture"),
        parameter_size=model.parameter_size or read_text(config, 40, "parameters").replace(" ", ""),
        quantization=model.quantization or read_text(config, 40, "quantization").removeprefix("MOSTLY_"),
        file_format=read_text(config, 40, "format") or model.file_format,
        size_bytes=model.size_bytes or parse_bytes(read_text(config, 40, "size")),
    )


def _long_words(value: Any) -> Iterable[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _as_object(document: Any) -> Entry:
    return document if isinstance(document, dict) else {}


# The path each source is asked at, and what adds its answer.
SOURCES: dict[DetailSource, tuple[str, Adder]] = {
    DetailSource.LLAMACPP: ("/props", add_llamacpp_props),
    DetailSource.LITELLM: ("/model/info", add_litellm_info),
    DetailSource.OMLX: ("/v1/models/status", add_omlx_status),
    DetailSource.DOCKER_MODEL_RUNNER: ("/models", add_docker_models),
}
