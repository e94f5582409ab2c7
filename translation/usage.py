"""Token counts of an answer, from OpenAI's words to Anthropic's."""

from __future__ import annotations

from dataclasses import dataclass

from .json_text import Json

# More is no count: floats, and with them every JavaScript client, lose its last digits.
_LARGEST = 2**53


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts as the backend reports them; None means it did not."""

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0  # part of prompt that came from a cache
    cache_written: int = 0  # part of prompt that was put into a cache
    reasoning: int = 0  # part of completion

    @property
    def total(self) -> int:
        """Prompt and answer together."""
        return (self.prompt or 0) + (self.completion or 0)


NO_USAGE = Usage()


def read_usage(value: Json) -> Usage | None:
    """Read an OpenAI `usage` object; None when there is none. A prompt of zero tokens counts as not reported."""
    if not isinstance(value, dict):
        return None
    prompt = _object(value.get("prompt_tokens_details"))
    completion = _object(value.get("completion_tokens_details"))
    return Usage(
        prompt=as_count(value.get("prompt_tokens")) or None,
        completion=as_count(value.get("completion_tokens")),
        cached=as_count(prompt.get("cached_tokens")) or 0,
        cache_written=as_count(prompt.get("cache_write_tokens")) or 0,
        reasoning=as_count(completion.get("reasoning_tokens")) or 0,
    )


def merge_usage(first: Usage | None, second: Usage) -> Usage:
    """The larger of each count: streams report cumulative values, and some repeat a zero."""
    if first is None:
        return second
    return Usage(
        prompt=_larger(first.prompt, second.prompt),
        completion=_larger(first.completion, second.completion),
        cached=max(first.cached, second.cached),
        cache_written=max(first.cache_written, second.cache_written),
        reasoning=max(first.reasoning, second.reasoning),
    )


def build_usage(usage: Usage) -> dict[str, Json]:
    """Anthropic's `usage`. Its three input counts add up to the prompt, so the cached part is taken out."""
    prompt = usage.prompt or 0
    cached = min(usage.cached, prompt)
    written = min(usage.cache_written, prompt - cached)
    built: dict[str, Json] = {
        "input_tokens": prompt - cached - written,
        "output_tokens": usage.completion or 0,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
    }
    if usage.reasoning:
        built["output_tokens_details"] = {"thinking_tokens": min(usage.reasoning, usage.completion or 0)}
    return built


def fill_usage(usage: Usage | None, prompt_tokens: int, answer_bytes: int) -> tuple[Usage, bool]:
    """Counts with the missing ones estimated (four bytes per token), and whether any was."""
    known = usage or NO_USAGE
    if known.prompt is not None and known.completion is not None:
        return known, False
    answer = max(1, answer_bytes // 4) if answer_bytes else 0
    filled = Usage(
        prompt=prompt_tokens if known.prompt is None else known.prompt,
        completion=answer if known.completion is None else known.completion,
        cached=known.cached,
        cache_written=known.cache_written,
        reasoning=known.reasoning,
    )
    return filled, True


def _larger(first: int | None, second: int | None) -> int | None:
    found = [count for count in (first, second) if count is not None]
    return max(found) if found else None


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def as_count(value: Json) -> int | None:
    """A number of tokens; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST else None
