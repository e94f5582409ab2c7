"""PROFILES: one frozen record for each kind of inference server. (pure)

A profile holds only what the product reads. Paths are those the kind itself serves, without any base path
of an endpoint's URL. Sources: the public API references of the projects, as of 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

AUTO = "auto"


class ListFormat(StrEnum):
    """Whose shape a model listing has."""

    OLLAMA = "ollama"
    LM_STUDIO = "lmstudio"
    OPENAI = "openai"
    VLLM = "vllm"
    VLLM_MLX = "vllm-mlx"
    SGLANG = "sglang"
    LMDEPLOY = "lmdeploy"
    LLAMACPP = "llamacpp"
    LEMONADE = "lemonade"
    OMLX = "omlx"
    DOCKER_MODEL_RUNNER = "docker-model-runner"


class DetailSource(StrEnum):
    """Where a kind tells of its models beyond the list."""

    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    LITELLM = "litellm"
    LEMONADE = "lemonade"
    OMLX = "omlx"
    DOCKER_MODEL_RUNNER = "docker-model-runner"


@dataclass(frozen=True, slots=True)
class Guard:
    """Requests that change a backend's state or reveal its configuration.

    `path` begins anywhere in the path that will be sent, decoded and case-folded, and guards all below it too; `*`
    also crosses slashes. `method` is `*` or GET, POST, DELETE or OPTIONS (HEAD is judged as GET, PUT
    and PATCH as POST, unknown ones as all). `own_key_only` guards count only where the endpoint's own key is used.
    """

    method: str
    path: str
    own_key_only: bool = False


@dataclass(frozen=True, slots=True)
class NativeAnthropic:
    """Where a kind speaks the Anthropic Messages API itself, and what it cannot do there."""

    path: str = "/v1/messages"
    limitations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What we know of one kind of inference server. One object each: compared and hashed by identity."""

    name: str
    title: str
    prefixes: tuple[str, ...]
    header_name: str  # the spelling of X-Olla-Backend-Type
    health_path: str
    models_path: str
    list_format: ListFormat = ListFormat.OPENAI
    details: DetailSource | None = None
    aliases: tuple[str, ...] = ()
    default_ports: tuple[int, ...] = ()
    # What only this kind writes as `owned_by` of its models, by which it is detected.
    listed_owner: str = ""
    # What the kind answers, for requests on /olla/proxy that name no kind.
    paths: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    # When not empty, whatever matches none of these is guarded as well.
    open_paths: tuple[str, ...] = ()
    guard_status_501: bool = False  # Ollama's clients know 501 from other proxies
    native_anthropic: NativeAnthropic | None = None
    forward_client_auth: bool = False

    def serves(self, path: str) -> bool:
        """Whether the kind is known to answer a decoded path, with any base path before it."""
        return any(path == known or (len(known) > 1 and path.endswith(known)) for known in self.paths)


_OPENAI_PATHS = (
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
)  # fmt: skip
_OPENAI_MEDIA_PATHS = (
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/audio/speech",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/moderations",
)  # fmt: skip
_VLLM_PATHS = (
    *_OPENAI_PATHS, "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/messages", "/health", "/metrics",
    "/version", "/tokenize", "/detokenize", "/rerank", "/score", "/pooling", "/classify",
    "/get_tokenizer_info",
)  # fmt: skip


def _any(*paths: str) -> tuple[Guard, ...]:
    return tuple(Guard("*", path) for path in paths)


def _post(*paths: str) -> tuple[Guard, ...]:
    return tuple(Guard("POST", path) for path in paths)


_OLLAMA_GUARDS = _any(
    "/api/create*", "/api/push*", "/api/pull*", "/api/delete*", "/api/copy*", "/api/blobs*",
    "/api/signout*", "/api/me", "/api/user", "/api/experimental",
)  # fmt: skip
_LM_STUDIO_GUARDS = _any(
    "/api/v1/models/load*", "/api/v1/models/unload*", "/api/v1/models/download*", "/api/v0/models/load*",
    "/api/v0/models/unload*", "/api/v0/models/download*",
)  # fmt: skip
_VLLM_GUARDS = _any(
    "/sleep*", "/wake_up*", "/is_sleeping*", "/v1/load_lora_adapter*", "/v1/unload_lora_adapter*",
    "/reset_*", "/start_profile*", "/stop_profile*", "/collective_rpc*", "/server_info*", "/update_weight*",
    "/start_weight*", "/finish_weight*", "/scale_elastic_ep*", "/is_scaling_elastic_ep*", "/init_weight*",
    "/pause", "/resume", "/is_paused", "/abort_requests*",
)  # fmt: skip
_SGLANG_GUARDS = _any(
    "/flush_cache*", "/update_weight*", "/load_lora_adapter*", "/unload_lora_adapter*", "/start_profile*",
    "/stop_profile*", "/release_memory_occupation*", "/resume_memory_occupation*", "/init_weights*",
    "/destroy_weights*", "/send_weights*", "/weights_checker*", "/hicache*", "/set_trace_level*", "/get_weights*",
    "/get_server_info*", "/server_info*", "/set_internal_state*", "/get_internal_state*",
    "/configure_logging*", "/start_expert_distribution*", "/stop_expert_distribution*",
    "/dump_expert_distribution*", "/open_session*", "/close_session*", "/abort_request*", "/clear_hicache*",
    "/pause_generation*", "/continue_generation*", "/slow_down*", "/freeze_gc*",
)  # fmt: skip
# /slots shows other people's prompts; from /unload on they are llama-swap's, often put before llama.cpp.
_LLAMACPP_GUARDS = (
    *_post("/props", "/lora-adapters"),
    *_any("/slots", "/models/load", "/models/unload", "/exit", "/unload", "/api/models/unload", "/logs",
          "/api/events", "/upstream"),
)  # fmt: skip
_LEMONADE_GUARDS = tuple(
    Guard("*", f"/{version}/{action}")
    for version in ("api/v0", "api/v1", "v0", "v1")
    for action in ("pull", "load", "unload", "delete", "install", "uninstall", "params", "log-level", "halt")
) + _any("/internal")
# What manages a LiteLLM proxy, which is often registered as merely OpenAI-compatible.
_KEY_MANAGEMENT = (
    "/key", "/user", "/team", "/model", "/organization", "/customer", "/end_user", "/budget", "/spend", "/global",
    "/config", "/credentials", "/cache", "/sso", "/invitation", "/guardrails", "/policies", "/mcp", "/v1/mcp",
    "/get/config", "/v1/model/info", "/v2/model/info", "/vector_store", "/routes", "/settings", "/debug",
)  # fmt: skip
_OPENAI_GUARDS = (
    Guard("DELETE", "*", own_key_only=True),
    *(
        Guard("*", path, own_key_only=True)
        for path in (
            *_KEY_MANAGEMENT,
            "/files", "/uploads", "/fine_tuning", "/fine-tuning", "/batches", "/assistants", "/threads",
            "/organization", "/vector_stores", "/containers", "/evals", "/webhooks", "/conversations", "/projects",
        )
    ),
    # Lists what others asked and were answered.
    Guard("GET", "/chat/completions", own_key_only=True),
)  # fmt: skip
_LITELLM_OPEN = (
    "/", "/health", "/health/readiness", "/health/liveness", "/health/liveliness", "/v2/rerank",
    *(f"/{way}/*{call}" for way in ("engines", "openai/deployments")
      for call in ("/chat/completions", "/completions", "/embeddings")),
    *(
        f"{prefix}{path}"
        for prefix in ("", "/v1")
        for path in (
            "/chat/completions", "/completions", "/embeddings", "/models", "/models/*", "/images/generations",
            "/images/edits", "/images/variations", "/audio/speech", "/audio/transcriptions",
            "/audio/translations", "/moderations", "/rerank", "/responses",
            "/messages", "/messages/count_tokens", "/realtime",
        )
    ),
)  # fmt: skip
_DMR_GUARDS = (
    *_any("/models/create", "/models/*/push", "/models/prune", "/models/load", "/models/package",
          "/engines/unload", "/_configure", "/engines/df", "/engines/requests"),
    Guard("POST", "/models"),
    Guard("DELETE", "*"),
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
        ),
        header_name="ollama",
        health_path="/",
        models_path="/api/tags",
        list_format=ListFormat.OLLAMA,
        details=DetailSource.OLLAMA,
        default_ports=(11434,),
        guards=_OLLAMA_GUARDS,
        guard_status_501=True,
        native_anthropic=NativeAnthropic(limitations=frozenset({"token_counting_404"})),
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
        guards=_LM_STUDIO_GUARDS,
        native_anthropic=NativeAnthropic(),
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
        guards=_OPENAI_GUARDS,
        forward_client_auth=True,
    ),
    Profile(
        name="openai",
        title="OpenAI",
        prefixes=(),
        paths=(*_OPENAI_PATHS, *_OPENAI_MEDIA_PATHS),
        header_name="openai",
        health_path="/v1/models",
        models_path="/v1/models",
        guards=_OPENAI_GUARDS,
        forward_client_auth=True,
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
        guards=_VLLM_GUARDS,
        native_anthropic=NativeAnthropic(limitations=frozenset({"no_token_counting"})),
    ),
    Profile(
        name="vllm-mlx",
        title="vLLM-MLX",
        prefixes=("vllm-mlx",),
        paths=(*_OPENAI_PATHS, "/health", "/v1/messages"),
        header_name="vllm-mlx",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.VLLM_MLX,
        aliases=("vllmmlx", "vllm_mlx"),
        listed_owner="vllm-mlx",
        default_ports=(8000,),
        guards=_VLLM_GUARDS,
        native_anthropic=NativeAnthropic(),
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
            "/v1/chat/completions/vision",
        ),
        header_name="sglang",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.SGLANG,
        listed_owner="sglang",
        default_ports=(30000,),
        guards=_SGLANG_GUARDS,
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
        open_paths=_LITELLM_OPEN,
        forward_client_auth=True,
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
        default_ports=(8080,),
        guards=_LLAMACPP_GUARDS,
        native_anthropic=NativeAnthropic(),
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
        details=DetailSource.LEMONADE,
        listed_owner="lemonade",
        default_ports=(8000,),
        guards=_LEMONADE_GUARDS,
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
        ),
        header_name="lmdeploy",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.LMDEPLOY,
        listed_owner="lmdeploy",
        default_ports=(23333,),
        guards=_any(
            "/sleep*", "/wakeup*", "/update_weights*", "/abort_request*", "/distserve", "/terminate", "/nodes"
        ),
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
        ),
        header_name="omlx",
        health_path="/health",
        models_path="/v1/models",
        list_format=ListFormat.OMLX,
        details=DetailSource.OMLX,
        listed_owner="omlx",
        default_ports=(8000,),
        guards=_any("/v1/models/*/load", "/v1/models/*/unload", "/admin", "/api"),
        native_anthropic=NativeAnthropic(),
    ),
    Profile(
        name="docker-model-runner",
        title="Docker Model Runner",
        prefixes=("dmr", "docker-model-runner"),
        paths=tuple(f"/engines{engine}{path}" for engine in ("", "/llama.cpp", "/vllm") for path in _OPENAI_PATHS),
        header_name="docker-model-runner",
        health_path="/engines/v1/models",
        models_path="/engines/v1/models",
        list_format=ListFormat.DOCKER_MODEL_RUNNER,
        details=DetailSource.DOCKER_MODEL_RUNNER,
        listed_owner="docker",
        default_ports=(12434,),
        guards=_DMR_GUARDS,
        native_anthropic=NativeAnthropic(path="/anthropic/v1/messages"),
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
DISGUISES = ("ollama", "lm-studio", "vllm", "sglang", "llamacpp", "lemonade", "lmdeploy", "docker-model-runner")


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
