"""What a profile is: the words and records that describe one kind of inference server. (pure)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from endpoints.answer_metrics import OPENAI_METRICS, Metrics
from endpoints.name_patterns import OPEN_MODELS, NamePatterns

AUTO = "auto"
FIRST_BYTE_SECONDS = 300.0
LOADING_SECONDS = 900.0  # a large model read from a slow disk, and the queue before it


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
    OMLX = "omlx"
    DOCKER_MODEL_RUNNER = "docker-model-runner"


class LoadedSource(StrEnum):
    """Where a kind that loads models on demand tells which are in memory."""

    OLLAMA = "ollama"
    LM_STUDIO = "lmstudio"
    LLAMACPP = "llamacpp"
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
    loaded_at: LoadedSource | None = None  # None: its models are always in memory, or nobody can tell
    version_path: str = ""  # where it answers {"version": "..."}
    # Seconds to wait for a first answer byte where neither the endpoint nor the settings say.
    first_byte_timeout: float = FIRST_BYTE_SECONDS
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
    # Where its answers, whole or streamed, say what they took.
    metrics: Metrics = OPENAI_METRICS
    # What its models' names suggest where it says nothing of them.
    name_patterns: NamePatterns = OPEN_MODELS

    def serves(self, path: str) -> bool:
        """Whether the kind is known to answer a decoded path, with any base path before it."""
        return any(path == known or (len(known) > 1 and path.endswith(known)) for known in self.paths)
