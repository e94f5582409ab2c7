"""One model as an endpoint lists it, and the words used of models. (pure)

Every server has its own words for what a model can do and what state it is in; here are ours and how theirs
become ours. Words nobody here knows are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Capability(StrEnum):
    """What a model can do. The values are also what routing rules and requests are judged by."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    VISION = "vision"
    AUDIO = "audio"
    IMAGES = "images"
    TOOLS = "tools"
    REASONING = "reasoning"
    CODE = "code"
    INFILL = "infill"


class ModelType(StrEnum):
    """What a model is for, in LM Studio's words where it has them."""

    LLM = "llm"
    VLM = "vlm"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    AUDIO = "audio"
    IMAGES = "images"


class ModelState(StrEnum):
    """Where a model is at its endpoint, as far as the endpoint says."""

    LOADED = "loaded"
    LOADING = "loading"
    NOT_LOADED = "not-loaded"
    AVAILABLE = "available"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model as an endpoint lists it; texts as the endpoint spells them, empty where it says nothing.

    `capabilities` is what the endpoint says of this model as a whole: one that is missing there is missing.
    Empty means that it says nothing.
    """

    name: str
    digest: str = ""
    size_bytes: int | None = None
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context_length: int | None = None
    model_type: str = ""
    capabilities: tuple[str, ...] = ()
    state: str = ""
    owner: str = ""
    modified_at: float | None = None  # seconds since the epoch
    file_format: str = ""  # gguf, mlx, onnx, safetensors
    parent: str = ""  # the model it was made from
    checkpoint: str = ""  # Lemonade: the repository it was downloaded from
    recipe: str = ""  # Lemonade: the engine that runs it
    # Ollama: what it takes in memory, until when it stays there (seconds since the epoch), its context there.
    memory_bytes: int | None = None
    memory_until: float | None = None
    memory_context: int | None = None


def fold_model(name: str) -> str:
    """The form in which model names are compared."""
    return name.strip().casefold()


def fold_tag(name: str) -> str:
    """The same without the tag `:latest`, which Ollama and Docker Model Runner imply."""
    return fold_model(name).removesuffix(":latest")


_CAPABILITY_WORDS: dict[Capability, tuple[str, ...]] = {
    Capability.CHAT: (
        "chat", "completion", "completions", "text-generation", "completion-chat", "chat-completion",
    ),
    Capability.EMBEDDINGS: (
        "embedding", "embeddings", "embed", "text-embedding", "feature-extraction", "vector-search",
    ),
    Capability.RERANK: ("rerank", "reranking", "reranker"),
    Capability.VISION: (
        "vision", "multimodal", "image-text-to-text", "image-understanding", "vision-understanding",
    ),
    Capability.AUDIO: ("audio", "transcription", "audio-transcription", "speech"),
    Capability.IMAGES: ("images", "image-generation"),
    Capability.TOOLS: (
        "tools", "tool-use", "tool-calling", "tool-calls", "function-calling", "functions", "trained-for-tool-use",
    ),
    Capability.REASONING: ("reasoning", "thinking"),
    Capability.CODE: ("code", "coding", "code-generation"),
    Capability.INFILL: ("infill", "insert", "fim", "completion-fim"),
}  # fmt: skip
_CAPABILITIES = {word: ours for ours, words in _CAPABILITY_WORDS.items() for word in words}
_TYPES = {
    "llm": ModelType.LLM, "chat": ModelType.LLM, "completion": ModelType.LLM, "text-generation": ModelType.LLM,
    "responses": ModelType.LLM,
    "vlm": ModelType.VLM, "vision": ModelType.VLM,
    "embedding": ModelType.EMBEDDINGS, "embeddings": ModelType.EMBEDDINGS,
    "rerank": ModelType.RERANK, "reranker": ModelType.RERANK, "reranking": ModelType.RERANK,
    "audio": ModelType.AUDIO, "audio-transcription": ModelType.AUDIO, "audio-speech": ModelType.AUDIO,
    "transcription": ModelType.AUDIO,
    "image-generation": ModelType.IMAGES, "images": ModelType.IMAGES, "image": ModelType.IMAGES,
}  # fmt: skip
_STATES = {
    "loaded": ModelState.LOADED, "running": ModelState.LOADED, "ready": ModelState.LOADED,
    "sleeping": ModelState.LOADED,
    "loading": ModelState.LOADING, "starting": ModelState.LOADING,
    "not-loaded": ModelState.NOT_LOADED, "unloaded": ModelState.NOT_LOADED, "stopped": ModelState.NOT_LOADED,
    "available": ModelState.AVAILABLE, "downloaded": ModelState.AVAILABLE,
}  # fmt: skip


def parse_capabilities(words: Iterable[str]) -> tuple[str, ...]:
    """The capabilities meant by a server's words, in the order of `Capability`, each once."""
    meant = {_CAPABILITIES.get(_fold_word(word)) for word in words}
    return tuple(each.value for each in Capability if each in meant)


def parse_model_type(word: str) -> str:
    """What a server's word for the purpose of a model means; empty for words that mean nothing here."""
    return _TYPES.get(_fold_word(word), "")


def parse_state(word: str) -> str:
    """What a server's word for a model's state means; empty for words that mean nothing here."""
    return _STATES.get(_fold_word(word), "")


def _fold_word(word: str) -> str:
    return word.strip().lower().replace("_", "-").replace(" ", "-")


def judge_type(model: ListedModel) -> str:
    """What a model is for: as its endpoint says, else by what it can do, else by its name; empty when untold."""
    if model.model_type:
        return model.model_type
    for capability, model_type in _BY_CAPABILITY:
        if capability in model.capabilities:
            return model_type
    if "embed" in model.name.lower() or model.family.endswith("bert"):
        return ModelType.EMBEDDINGS
    return ""


_BY_CAPABILITY = (
    (Capability.EMBEDDINGS, ModelType.EMBEDDINGS),
    (Capability.RERANK, ModelType.RERANK),
    (Capability.VISION, ModelType.VLM),
    (Capability.CHAT, ModelType.LLM),
)


def tell_capabilities(model: ListedModel) -> tuple[str, ...]:
    """What a model can do, for people: as its endpoint says, else what its type implies."""
    return model.capabilities or _BY_TYPE.get(judge_type(model), ())


_BY_TYPE: dict[str, tuple[str, ...]] = {
    ModelType.LLM: (Capability.CHAT.value,),
    ModelType.VLM: (Capability.CHAT.value, Capability.VISION.value),
    ModelType.EMBEDDINGS: (Capability.EMBEDDINGS.value,),
    ModelType.RERANK: (Capability.RERANK.value,),
    ModelType.AUDIO: (Capability.AUDIO.value,),
    ModelType.IMAGES: (Capability.IMAGES.value,),
}
