"""Why an answer ended, from OpenAI's words to Anthropic's."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import TranslationError
from .facts import ReplyFacts
from .json_text import Json
from .usage import Usage

_LENGTH = frozenset({"length", "max_tokens"})
_FAILED = frozenset({"abort", "aborted", "error", "cancelled"})
REFUSAL_DETAILS: dict[str, Json] = {"type": "refusal", "category": None, "explanation": None}


@dataclass(frozen=True, slots=True)
class Stop:
    """Anthropic's stop_reason, the sequence that stopped the model, and details of a refusal."""

    reason: str
    sequence: str | None = None
    details: dict[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known at the end of an answer."""

    finish: str
    matched_stop: str = ""
    has_tools: bool = False
    refused: bool = False
    usage: Usage | None = None


def choose_stop(ending: Ending, facts: ReplyFacts) -> Stop:
    """The stop reason; raises TranslationError (502) when the backend says that it failed."""
    if ending.finish in _FAILED:
        raise TranslationError(f"The backend ended the answer with {ending.finish!r}.", status=502)
    if facts.warm_up:
        return Stop("max_tokens")
    if ending.finish == "content_filter" or ending.refused:
        return Stop("refusal", details=REFUSAL_DETAILS)
    if ending.finish in _LENGTH:
        return Stop("model_context_window_exceeded" if _window_is_full(ending.usage, facts) else "max_tokens")
    # A backend that says "stop" after a tool call means the call; one that says "tool_calls" without any does not.
    if ending.has_tools:
        return Stop("tool_use")
    if ending.matched_stop and ending.matched_stop in facts.stop_sequences:
        return Stop("stop_sequence", sequence=ending.matched_stop)
    return Stop("end_turn")


def _window_is_full(usage: Usage | None, facts: ReplyFacts) -> bool:
    return usage is not None and facts.context_length is not None and usage.total >= facts.context_length
