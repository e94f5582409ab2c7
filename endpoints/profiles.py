"""PROFILES: one frozen record for each kind of inference server. (pure)

A profile holds only what the product reads. Paths are those the kind itself serves, without any base path
of an endpoint's URL. Sources: the public API references of the projects, as of 2026-11.
"""

from __future__ import annotations

from endpoints.answer_metrics import (
    COMPATIBLE_METRICS,
    LITELLM_METRICS,
    LLAMACPP_METRICS,
    LM_STUDIO_METRICS,
    LMDEPLOY_METRICS,
    OLLAMA_METRICS,
    OMLX_METRICS,
    SGLANG_METRICS,
    VLLM_METRICS,
)
from endpoints.guard_lists import (
    DMR_GUARDS,
    LEMONADE_GUARDS,
    LITELLM_OPEN,
    LLAMACPP_GUARDS,
    LM_STUDIO_GUARDS,
    LMDEPLOY_GUARDS,
    OLLAMA_GUARDS,
    OMLX_GUARDS,
    OPENAI_GUARDS,
    SGLANG_GUARDS,
    VLLM_GUARDS,
    VLLM_MLX_GUARDS,
)
from endpoints.name_patterns import EVERY_CHATS, HOSTED
from endpoints.profile import AUTO as AUTO
from endpoints.profile import LOADING_SECONDS
from endpoints.profile import DetailSource as DetailSource
from endpoints.profile import Guard as Guard
from endpoints.profile import ListFormat as ListFormat
from endpoints.profile import LoadedSource as LoadedSource
from endpoints.profile import NativeAnthropic as NativeAnthropic
from endpoints.profile import Profile as Profile

_OPENAI_PATHS = (
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
)  # fmt: skip
_OPENAI_MEDIA_PATHS = (
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/audio/speech",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/moderations",
)  # fmt: skip
_VLLM_PATHS = (
    *_OPENAI_PATHS, "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/messages", "/health", "/metrics",
    "/v1/messages/count_tokens", "/version", "/tokenize", "/detokenize", "/rerank", "/score", "/pooling",
    "/classify", "/v2/embed", "/get_tokenizer_info", "/tokenizer_info",
)  # fmt: skip


_ALL = (
    Profile(
        name="ollama",
        title="Ollama",
        prefixes=("ollama",),
        paths=(
            *_OPENAI_PATHS,
            "/",
            "/api/generate",
            "/api/chat",
            "/api/embed",
            "/api/embeddings",
            "/api/tags",
            "/api/show",
            "/api/ps",
            "/api/version",
            "/v1/messages",
            "/v1/images/generations",
            "/v1/images/edits",
            "/v1/audio/transcriptions",
        ),
        header_name="ollama",
        health_path="/",
        models_path="/api/tags",
        list_format=ListFormat.OLLAMA,
        details=DetailSource.OLLAMA,
        default_ports=(11434,),
        guards=OLLAMA_GUARDS,
        guard_status_501=True,
        native_anthropic=NativeAnthropic(limitations=frozenset({"no_documents"})),
        loaded_at=LoadedSource.OLLAMA,
        first_byte_timeout=LOADING_SECONDS,
        version_path="/api/version",
        metrics=OLLAMA_METRICS,
        name_patterns=EVERY_CHATS,
    ),
    Profile(
        name="lm-studio",
        title="LM Studio",
        prefixes=("lmstudio", "lm-studio", "lm_studio"),
        paths=(
            *_OPENAI_PATHS,
            "/v1/messages",
            "/api/v0/models",
            "/api/v0/chat/completions",
            "/api/v0/completions",
            "/api/v0/embeddings",
            "/api/v1/models",
            "/api/v1/chat",
        ),
        header_name="lmstudio",
        health_path="/v1/models",
        models_path="/api/v0/models",
        list_format=ListFormat.LM_STUDIO,
        default_ports=(1234,),
        guards=LM_STUDIO_GUARDS,
        native_anthropic=NativeAnthropic(),
        loaded_at=LoadedSource.LM_STUDIO,
        first_byte_timeout=LOADING_SECONDS,
        metrics=LM_STUDIO_METRICS,
        name_patterns=EVERY_CHATS,
    ),
    Profile(
        name="openai-compatible",
        title="OpenAI-compatible",
        prefixes=("openai", "openai-compatible"),
        paths=(*_OPENAI_PATHS, *_OPENAI_MEDIA_PATHS),
        header_name="openai",
        health_path="/v1/models",
        models_path="/v1/models",
        aliases=("openai_compatible",),
        guards=OPENAI_GUARDS,
        forward_client_auth=True,
        metrics=COMPATIBLE_METRICS,
        name_patterns=HOSTED,
    ),
    Profile(
        name="openai",
        title="OpenAI",
        prefixes=(),
        paths=(*_OPENAI_PATHS, *_OPENAI_MEDIA_PATHS),
        header_name="openai",
        health_path="/v1/models",
        models_path="/v1/models",
        guards=OPENAI_GUARDS,
        forward_client_auth=True,
        name_patterns=HOSTED,
    ),
    Profile(
        name="vllm",
        title="vLLM",
        prefixes=("vllm",),
        paths=_VLLM_PATHS,
        header_name="vllm",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.VLLM,
        listed_owner="vllm",
        default_ports=(8000,),
        guards=VLLM_GUARDS,
        native_anthropic=NativeAnthropic(limitations=frozenset({"no_documents", "no_server_tools"})),
        version_path="/version",
        metrics=VLLM_METRICS,
    ),
    Profile(
        name="vllm-mlx",
        title="vLLM-MLX",
        prefixes=("vllm-mlx",),
        paths=(
            *_OPENAI_PATHS,
            "/health",
            "/metrics",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/rerank",
            "/v1/audio/speech",
            "/v1/audio/transcriptions",
        ),
        header_name="vllm-mlx",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.VLLM_MLX,
        aliases=("vllmmlx", "vllm_mlx"),
        listed_owner="vllm-mlx",
        default_ports=(8000,),
        guards=VLLM_MLX_GUARDS,
        native_anthropic=NativeAnthropic(),
        metrics=VLLM_METRICS,
    ),
    Profile(
        name="sglang",
        title="SGLang",
        prefixes=("sglang",),
        paths=(
            *_OPENAI_PATHS,
            "/health",
            "/metrics",
            "/version",
            "/generate",
            "/encode",
            "/v1/rerank",
            "/v1/score",
            "/tokenize",
            "/detokenize",
            "/classify",
            "/v1/audio/transcriptions",
            "/v1/chat/completions/vision",
        ),
        header_name="sglang",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.SGLANG,
        listed_owner="sglang",
        default_ports=(30000,),
        guards=SGLANG_GUARDS,
        metrics=SGLANG_METRICS,
    ),
    Profile(
        name="litellm",
        title="LiteLLM",
        prefixes=("litellm",),
        paths=(
            *_OPENAI_PATHS,
            *_OPENAI_MEDIA_PATHS,
            "/",
            "/health",
            "/health/readiness",
            "/health/liveness",
            "/chat/completions",
            "/completions",
            "/embeddings",
            "/models",
            "/rerank",
            "/v1/messages",
        ),
        header_name="litellm",
        health_path="/health/liveliness",
        models_path="/v1/models",
        details=DetailSource.LITELLM,
        default_ports=(4000,),
        open_paths=LITELLM_OPEN,
        forward_client_auth=True,
        metrics=LITELLM_METRICS,
        name_patterns=HOSTED,
    ),
    Profile(
        name="llamacpp",
        title="llama.cpp",
        prefixes=("llamacpp", "llama-cpp", "llama_cpp"),
        paths=(
            *_OPENAI_PATHS,
            "/completion",
            "/embedding",
            "/tokenize",
            "/detokenize",
            "/infill",
            "/apply-template",
            "/v1/rerank",
            "/rerank",
            "/v1/messages",
        ),
        header_name="llamacpp",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.LLAMACPP,
        details=DetailSource.LLAMACPP,
        aliases=("llama.cpp",),
        listed_owner="llamacpp",
        default_ports=(8080, 8001),
        guards=LLAMACPP_GUARDS,
        native_anthropic=NativeAnthropic(limitations=frozenset({"no_documents", "no_server_tools"})),
        loaded_at=LoadedSource.LLAMACPP,
        first_byte_timeout=LOADING_SECONDS,
        metrics=LLAMACPP_METRICS,
    ),
    Profile(
        name="lemonade",
        title="Lemonade",
        prefixes=("lemonade",),
        paths=(
            *_OPENAI_PATHS,
            "/api/v1/health",
            "/api/v1/stats",
            "/api/v1/system-info",
            "/api/v1/models",
            "/api/v1/chat/completions",
            "/api/v1/completions",
            "/api/v1/embeddings",
            "/api/v1/responses",
            "/api/v1/reranking",
        ),
        header_name="lemonade",
        health_path="/api/v1/health",
        models_path="/api/v1/models",
        list_format=ListFormat.LEMONADE,
        listed_owner="lemonade",
        default_ports=(8000, 13305),
        guards=LEMONADE_GUARDS,
        loaded_at=LoadedSource.LEMONADE,
        first_byte_timeout=LOADING_SECONDS,
        version_path="/api/v1/health",
        metrics=LLAMACPP_METRICS,
    ),
    Profile(
        name="lmdeploy",
        title="LMDeploy",
        prefixes=("lmdeploy",),
        paths=(
            "/health",
            "/v1/models",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/encode",
            "/generate",
            "/pooling",
            "/is_sleeping",
        ),
        header_name="lmdeploy",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.LMDEPLOY,
        listed_owner="lmdeploy",
        default_ports=(23333,),
        guards=LMDEPLOY_GUARDS,
        metrics=LMDEPLOY_METRICS,
    ),
    Profile(
        name="omlx",
        title="oMLX",
        prefixes=("omlx",),
        paths=(
            *_OPENAI_PATHS,
            "/health",
            "/v1/models/status",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/rerank",
            "/v1/audio/speech",
            "/v1/audio/transcriptions",
        ),
        header_name="omlx",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.OMLX,
        details=DetailSource.OMLX,
        listed_owner="omlx",
        default_ports=(8000,),
        guards=OMLX_GUARDS,
        native_anthropic=NativeAnthropic(),
        loaded_at=LoadedSource.OMLX,
        first_byte_timeout=LOADING_SECONDS,
        metrics=OMLX_METRICS,
    ),
    Profile(
        name="docker-model-runner",
        title="Docker Model Runner",
        prefixes=("dmr", "docker-model-runner"),
        paths=tuple(
            f"/engines{engine}{path}"
            for engine in ("", "/llama.cpp", "/vllm")
            for path in (*_OPENAI_PATHS, "/v1/images/generations", "/rerank", "/score")
        ),
        header_name="docker-model-runner",
        health_path="/engines/v1/models",
        models_path="/engines/v1/models",
        list_format=ListFormat.DOCKER_MODEL_RUNNER,
        details=DetailSource.DOCKER_MODEL_RUNNER,
        listed_owner="docker",
        default_ports=(12434,),
        guards=DMR_GUARDS,
        native_anthropic=NativeAnthropic(path="/anthropic/v1/messages"),
        loaded_at=LoadedSource.DOCKER_MODEL_RUNNER,
        first_byte_timeout=LOADING_SECONDS,
        metrics=LLAMACPP_METRICS,
    ),
)

PROFILES: dict[str, Profile] = {}
# URL prefix -> profile name.
PREFIXES: dict[str, str] = {}
# Every spelling of a type -> profile name.
_TYPE_SPELLINGS: dict[str, str] = {}


def register(profile: Profile) -> None:
    """Make a kind known by its name, prefixes and aliases; the first to claim a spelling keeps it."""
    PROFILES[profile.name] = profile
    _TYPE_SPELLINGS[profile.name] = profile.name
    for prefix in profile.prefixes:
        PREFIXES.setdefault(prefix, profile.name)
    for spelling in (*profile.prefixes, *profile.aliases):
        _TYPE_SPELLINGS.setdefault(spelling, profile.name)


for _profile in _ALL:
    register(_profile)

# What an endpoint of type auto is treated as until it has been detected.
FALLBACK = PROFILES["openai-compatible"]
OPENAI_FAMILY = frozenset({"openai", "openai-compatible"})
# An endpoint registered as OpenAI-compatible (or not yet detected) may be any of these in truth.
DISGUISES = (
    "ollama", "lm-studio", "vllm", "vllm-mlx", "sglang", "llamacpp", "lemonade", "lmdeploy", "omlx",
    "docker-model-runner",
)  # fmt: skip


def parse_backend_type(text: str) -> str | None:
    """The canonical type name for any spelling (case, alias, prefix), `auto` too; None when unknown."""
    folded = text.strip().lower()
    return AUTO if folded == AUTO else _TYPE_SPELLINGS.get(folded)


def profile_for(backend_type: str) -> Profile:
    """The profile of a canonical type name; the OpenAI-compatible one for `auto` and anything unknown."""
    return PROFILES.get(backend_type, FALLBACK)


def prefix_accepts(prefix_profile: str, backend_type: str) -> bool:
    """Whether an endpoint of `backend_type` serves the provider prefix of profile `prefix_profile`.

    The OpenAI prefixes take every kind, since all speak OpenAI's API; the others only their own. `auto`
    endpoints whose kind is not known yet are taken by the OpenAI prefixes only.
    """
    if prefix_profile in OPENAI_FAMILY:
        return True
    return prefix_profile == backend_type
