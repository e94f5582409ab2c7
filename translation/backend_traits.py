"""What the backend chosen for a request can read, as far as translation must know.

The caller starts from `traits_for(kind, model)` and overrides single fields from the endpoint's row or from
what probing found out (`dataclasses.replace`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum


class InlineSystem(StrEnum):
    """What becomes of a `role: system` turn inside the conversation; most chat templates refuse one."""

    USER = "user"  # user text in a reminder tag, at the same place
    MERGE = "merge"  # appended to the system prompt
    KEEP = "keep"  # a system message at the same place


class ThinkingHistory(StrEnum):
    """How earlier thinking blocks are sent back to the model."""

    DROP = "drop"
    REASONING_CONTENT = "reasoning_content"  # DeepSeek's field; it refuses tool loops without it
    REASONING = "reasoning"  # newer vLLM
    THINK_TAGS = "think_tags"


class Prefill(StrEnum):
    """What a trailing assistant turn means to the backend."""

    PLAIN = "plain"  # an ordinary turn, so the model answers anew: a warning says so
    CONTINUE_FLAGS = "continue_flags"  # continued when two flags ask for it (vLLM, SGLang)
    NATIVE = "native"  # continued as it stands (llama.cpp)


class BrokenPair(StrEnum):
    """What becomes of a tool call without result, or a result without call."""

    REFUSE = "refuse"
    MEND = "mend"  # an error result is made up; a stray result becomes user text


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """Facts of one backend; the defaults suit an OpenAI-compatible server of unknown make."""

    max_tokens_field: str = "max_tokens"
    max_stop_sequences: int = 0  # 0: as many as the client likes
    sampling: bool = True  # temperature and top_p are accepted
    top_k: bool = False
    vision: bool = True
    image_urls: bool = True  # fetches images itself
    pdf_files: bool = False  # reads `file` parts with a PDF inside
    strict_tools: bool = True
    parallel_flag: bool = True  # knows parallel_tool_calls
    tool_name_limit: int = 0  # 0: names are not shortened
    structured_output: bool = True
    efforts: tuple[str, ...] = ()  # reasoning_effort values, weakest first; empty: the field is unknown
    thinking_switch: bool = False  # chat_template_kwargs.enable_thinking
    thinking_history: ThinkingHistory = ThinkingHistory.DROP
    think_tags: bool = False  # the model writes <think>...</think> into its text
    inline_system: InlineSystem = InlineSystem.USER
    prefill: Prefill = Prefill.PLAIN
    stream_usage: bool = True  # knows stream_options.include_usage
    continuous_usage: bool = False  # knows stream_options.continuous_usage_stats
    unanswered_calls: BrokenPair = BrokenPair.REFUSE
    stray_results: BrokenPair = BrokenPair.REFUSE
    results_in_call_order: bool = False
    empty_content: bool = False  # "" instead of null beside tool calls
    forward_user: bool = False  # a hash of metadata.user_id as `user`


DEFAULT_TRAITS = BackendTraits()
_EFFORTS = ("low", "medium", "high")
_LOCAL = BackendTraits(top_k=True, thinking_switch=True)
_VLLM = replace(_LOCAL, efforts=_EFFORTS, prefill=Prefill.CONTINUE_FLAGS, continuous_usage=True)
_OPENAI = BackendTraits(max_stop_sequences=4, pdf_files=True, tool_name_limit=64)

_BY_KIND = {
    "ollama": BackendTraits(top_k=True, image_urls=False),
    "llamacpp": replace(_LOCAL, image_urls=False, prefill=Prefill.NATIVE),
    "lmstudio": BackendTraits(top_k=True, image_urls=False),
    "vllm": _VLLM,
    "vllm-mlx": _LOCAL,
    "sglang": _VLLM,
    "lmdeploy": _LOCAL,
    "omlx": _LOCAL,
    "docker-model-runner": replace(_LOCAL, image_urls=False),
    "lemonade": BackendTraits(top_k=True, image_urls=False),
    "openai": _OPENAI,
}
_ALIASES = {"lm-studio": "lmstudio", "dmr": "docker-model-runner", "llama.cpp": "llamacpp"}

# Hosted reasoning models refuse max_tokens and sampling parameters.
_HOSTED_REASONING = re.compile(r"^(?:o\d|gpt-5)", re.IGNORECASE)
_NEEDS_REASONING_BACK = re.compile(r"deepseek", re.IGNORECASE)


def traits_for(kind: str, model: str = "", *, thinks: bool | None = None) -> BackendTraits:
    """The traits of a backend kind, sharpened by the model's name and, when known, by whether it can think."""
    name = kind.lower()
    traits = _BY_KIND.get(_ALIASES.get(name, name), DEFAULT_TRAITS)
    short = model.rsplit("/", 1)[-1]
    if name == "openai" and _HOSTED_REASONING.match(short):
        traits = replace(traits, max_tokens_field="max_completion_tokens", sampling=False, efforts=_EFFORTS)
    if name == "ollama" and thinks:
        # Ollama answers 400 when a model that cannot think gets the field.
        traits = replace(traits, efforts=("none", *_EFFORTS))
    if thinks is False:
        traits = replace(traits, efforts=(), thinking_switch=False)
    if _NEEDS_REASONING_BACK.search(short):
        traits = replace(traits, thinking_history=ThinkingHistory.REASONING_CONTENT)
    return traits
