"""Where the answers of each kind of server say what they took: tokens, times, why they ended. (pure)

The same paths hold for a whole JSON answer and for the objects of a stream, where the last ones tell: usage and
finish reason may come in different objects, so each metric is the last one found. Sources: the servers' own API
references, as of 2026-11.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Metric(StrEnum):
    """What an answer may tell of itself: the names of debug log fields after `provider_`. Times are in ms."""

    MODEL = "model"
    FINISH_REASON = "finish_reason"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    TOTAL_TOKENS = "total_tokens"
    CACHED_TOKENS = "cached_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    TTFT_MS = "ttft_ms"
    TOTAL_MS = "total_ms"
    LOAD_MS = "load_ms"
    PROMPT_MS = "prompt_ms"
    GENERATION_MS = "generation_ms"
    TOKENS_PER_SECOND = "tokens_per_second"


class Reading(NamedTuple):
    """One place of a metric: keys and list indices from the top, and what a number there is multiplied by."""

    metric: Metric
    path: tuple[str | int, ...]
    scale: float = 1.0


Metrics = tuple[Reading, ...]

_NANOSECONDS = 1e-6
_SECONDS = 1e3


def _read(metric: Metric, path: str, scale: float = 1.0) -> Reading:
    steps = tuple(int(step) if step.isdigit() else step for step in path.split("."))
    return Reading(metric, steps, scale)


# Of several places of one metric the first that holds a usable value counts.
OPENAI_METRICS: Metrics = (
    _read(Metric.MODEL, "model"),
    _read(Metric.FINISH_REASON, "choices.0.finish_reason"),
    _read(Metric.PROMPT_TOKENS, "usage.prompt_tokens"),
    _read(Metric.COMPLETION_TOKENS, "usage.completion_tokens"),
    _read(Metric.TOTAL_TOKENS, "usage.total_tokens"),
    _read(Metric.CACHED_TOKENS, "usage.prompt_tokens_details.cached_tokens"),
    _read(Metric.REASONING_TOKENS, "usage.completion_tokens_details.reasoning_tokens"),
    # The Responses API: whole, and in the `response.completed` event of a stream.
    _read(Metric.MODEL, "response.model"),
    _read(Metric.FINISH_REASON, "response.status"),
    *(
        reading
        for top in ("usage", "response.usage")
        for reading in (
            _read(Metric.PROMPT_TOKENS, f"{top}.input_tokens"),
            _read(Metric.COMPLETION_TOKENS, f"{top}.output_tokens"),
            _read(Metric.CACHED_TOKENS, f"{top}.input_tokens_details.cached_tokens"),
            _read(Metric.REASONING_TOKENS, f"{top}.output_tokens_details.reasoning_tokens"),
        )
    ),
    _read(Metric.TOTAL_TOKENS, "response.usage.total_tokens"),
)  # fmt: skip
# Where a kind speaks Anthropic's Messages API: usage is in the first event's message and in the last delta.
ANTHROPIC_METRICS: Metrics = (
    _read(Metric.MODEL, "message.model"),
    _read(Metric.FINISH_REASON, "stop_reason"),
    _read(Metric.FINISH_REASON, "delta.stop_reason"),
    _read(Metric.PROMPT_TOKENS, "message.usage.input_tokens"),
    _read(Metric.CACHED_TOKENS, "usage.cache_read_input_tokens"),
    _read(Metric.CACHED_TOKENS, "message.usage.cache_read_input_tokens"),
)
OLLAMA_METRICS: Metrics = (
    *OPENAI_METRICS, *ANTHROPIC_METRICS,
    _read(Metric.FINISH_REASON, "done_reason"),
    _read(Metric.PROMPT_TOKENS, "prompt_eval_count"),
    _read(Metric.COMPLETION_TOKENS, "eval_count"),
    _read(Metric.TOTAL_MS, "total_duration", _NANOSECONDS),
    _read(Metric.LOAD_MS, "load_duration", _NANOSECONDS),
    _read(Metric.PROMPT_MS, "prompt_eval_duration", _NANOSECONDS),
    _read(Metric.GENERATION_MS, "eval_duration", _NANOSECONDS),
)  # fmt: skip
# `/api/v0` tells `stats` in seconds; `/api/v1/chat` has its own names, streamed inside `result`.
LM_STUDIO_METRICS: Metrics = (
    *OPENAI_METRICS, *ANTHROPIC_METRICS,
    _read(Metric.TTFT_MS, "stats.time_to_first_token", _SECONDS),
    _read(Metric.GENERATION_MS, "stats.generation_time", _SECONDS),
    _read(Metric.TOKENS_PER_SECOND, "stats.tokens_per_second"),
    _read(Metric.MODEL, "model_instance_id"),
    _read(Metric.MODEL, "result.model_instance_id"),
    *(
        reading
        for top in ("stats", "result.stats")
        for reading in (
            _read(Metric.PROMPT_TOKENS, f"{top}.input_tokens"),
            _read(Metric.COMPLETION_TOKENS, f"{top}.total_output_tokens"),
            _read(Metric.REASONING_TOKENS, f"{top}.reasoning_output_tokens"),
            _read(Metric.TTFT_MS, f"{top}.time_to_first_token_seconds", _SECONDS),
            _read(Metric.LOAD_MS, f"{top}.model_load_time_seconds", _SECONDS),
        )
    ),
    _read(Metric.TOKENS_PER_SECOND, "result.stats.tokens_per_second"),
)  # fmt: skip
VLLM_METRICS: Metrics = (
    *OPENAI_METRICS, *ANTHROPIC_METRICS,
    _read(Metric.TTFT_MS, "metrics.time_to_first_token_ms"),
    _read(Metric.GENERATION_MS, "metrics.generation_time_ms"),
    _read(Metric.TOKENS_PER_SECOND, "metrics.tokens_per_second"),
)  # fmt: skip
# `/generate` puts what it took beside the text; the finish reason there is an object.
SGLANG_METRICS: Metrics = (
    *OPENAI_METRICS,
    _read(Metric.REASONING_TOKENS, "usage.reasoning_tokens"),
    _read(Metric.FINISH_REASON, "meta_info.finish_reason.type"),
    _read(Metric.PROMPT_TOKENS, "meta_info.prompt_tokens"),
    _read(Metric.COMPLETION_TOKENS, "meta_info.completion_tokens"),
    _read(Metric.CACHED_TOKENS, "meta_info.cached_tokens"),
    _read(Metric.TOTAL_MS, "meta_info.e2e_latency", _SECONDS),
    _read(Metric.TTFT_MS, "metrics.time_to_first_token_ms"),
    _read(Metric.GENERATION_MS, "metrics.generation_time_ms"),
)
# llama-server, also inside Lemonade and Docker Model Runner: `timings` on every API, counts on `/completion`.
LLAMACPP_METRICS: Metrics = (
    *OPENAI_METRICS, *ANTHROPIC_METRICS,
    _read(Metric.FINISH_REASON, "stop_type"),
    _read(Metric.PROMPT_TOKENS, "tokens_evaluated"),
    _read(Metric.COMPLETION_TOKENS, "tokens_predicted"),
    _read(Metric.PROMPT_TOKENS, "timings.prompt_n"),
    _read(Metric.COMPLETION_TOKENS, "timings.predicted_n"),
    _read(Metric.CACHED_TOKENS, "timings.cache_n"),
    _read(Metric.PROMPT_MS, "timings.prompt_ms"),
    _read(Metric.TTFT_MS, "timings.prompt_ms"),
    _read(Metric.GENERATION_MS, "timings.predicted_ms"),
    _read(Metric.TOKENS_PER_SECOND, "timings.predicted_per_second"),
)  # fmt: skip
LITELLM_METRICS: Metrics = (*OPENAI_METRICS, *ANTHROPIC_METRICS)
LMDEPLOY_METRICS: Metrics = (
    *OPENAI_METRICS,
    _read(Metric.FINISH_REASON, "meta_info.finish_reason.type"),
    _read(Metric.PROMPT_TOKENS, "meta_info.prompt_tokens"),
    _read(Metric.COMPLETION_TOKENS, "meta_info.completion_tokens"),
)
OMLX_METRICS: Metrics = (*OPENAI_METRICS, *ANTHROPIC_METRICS)
COMPATIBLE_METRICS: Metrics = (
    *OPENAI_METRICS,
    _read(Metric.TTFT_MS, "metrics.time_to_first_token"),
    _read(Metric.TOTAL_MS, "metrics.total_time"),
)
