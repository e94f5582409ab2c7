"""Recognising that a prompt did not fit the model's window, and saying so in words clients recover from.

Coding agents act on two wordings only: on "input length and `max_tokens` exceed context limit: I + M > L" they
send the request again with a smaller `max_tokens`, on "prompt is too long: I tokens > L maximum" they compact
the conversation. Any other wording makes them repeat the same request. Backends tell an overflow by a code in
the best case and by prose in all others, so this module is the one place that judges an error by its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SCANNED = 4000
"""Characters of a backend's message that are searched; longer messages repeat the prompt."""

_CODES = frozenset(
    {
        "context_length_exceeded",
        "exceed_context_size_error",
        "model_context_window_exceeded",
        "string_above_max_length",
    }
)
_OTHER_FAILURES = frozenset({401, 402, 403, 404, 405, 408, 429})

_WORDINGS = re.compile(
    r"maximum (?:context|model|prompt|input) length|exceeds? (?:the )?(?:available |maximum |model'?s? )*context"
    r"|context (?:size|length|window)[^.]{0,60}exceed|exceed[^.]{0,60}context (?:size|length|window|limit)"
    r"|longer than the (?:model'?s? )?(?:maximum )?(?:context|model) length|larger than the max context size"
    r"|(?:greater|more) than the context length|overflows the context|context the overflows"
    r"|context length of only|reached context length|prompt (?:is )?too long|input token count[^.]{0,40}exceeds"
    r"|tokens exceed the configured limit|contextwindowexceeded",
    re.IGNORECASE,
)


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


_N = r"(?:at least )?(\d{1,12})"
_LIMITS = _compile(
    rf"(?:maximum |model'?s? )?(?:context|model|prompt) (?:length|window|limit|size)"
    rf"(?: is| of)?(?: only)? ?\(?=? ?{_N}",
    rf"context limit: \d+ \+ \d+ > {_N}",
    rf"tokens > {_N} maximum",
    rf"(?:configured|token) limit of {_N}",
    rf"max(?:imum)? context (?:size|window)(?: is| of)? ?\(?{_N}",
    rf"context window of {_N}",
    rf"maximum number of tokens allowed \({_N}",
)
_INPUTS = _compile(
    rf"context limit: {_N} \+",
    rf"prompt (?:is )?too long:? {_N} tokens",
    rf"{_N} (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)",
    rf"{_N} input tokens",
    rf"(?:messages|request|prompt|input)"
    rf"(?: resulted in| has| contains| \(length| \(| length \(|, length) ?{_N}(?! output)",
    rf"input token count (?:of |\(){_N}",
    rf"the first {_N} tokens",
)
_OUTPUTS = _compile(
    rf"context limit: \d+ \+ {_N}",
    rf"{_N} (?:tokens )?(?:in|for) the completion",
    rf"requested {_N} output tokens",
    rf"max_(?:completion_)?tokens'? is too large: {_N}",
)
_TOTALS = _compile(rf"requested a total of {_N}", rf"for a total of {_N}", rf"requested (?:tokens \()?{_N}")


@dataclass(frozen=True, slots=True)
class OverflowFacts:
    """What is known of the request that overflowed; `counted` says that `input_tokens` is not an estimate."""

    input_tokens: int = 0
    max_tokens: int = 0
    context_length: int | None = None
    counted: bool = False


def is_overflow(status: int, message: str, codes: tuple[str, ...] = ()) -> bool:
    """Whether a backend's answer means that prompt, or prompt plus answer, exceeds the model's window."""
    if status in _OTHER_FAILURES or status < 400:
        return False
    return any(code in _CODES for code in codes) or _WORDINGS.search(message[:MAX_SCANNED]) is not None


def describe_overflow(status: int, message: str, codes: tuple[str, ...], facts: OverflowFacts) -> str:
    """The message a client recovers from, or "" when the failure is not an overflow."""
    if not is_overflow(status, message, codes):
        return ""
    text = message[:MAX_SCANNED]
    limit = _first(_LIMITS, text) or facts.context_length
    asked = _first(_OUTPUTS, text) or facts.max_tokens
    prompt = _find_prompt(text, asked, facts)
    if not limit:
        return f"prompt is too long: {message}"
    return build_overflow_message(prompt, asked, limit)


def build_overflow_message(prompt: int, asked: int, limit: int) -> str:
    """One of the two wordings, from the numbers."""
    if prompt < limit < prompt + asked:
        return (
            f"input length and `max_tokens` exceed context limit: {prompt} + {asked} > {limit}, "
            "decrease input length or `max_tokens` and try again"
        )
    # The prompt alone must read as more than the limit, or the client's own arithmetic ends in a loop.
    return f"prompt is too long: {max(prompt, limit + 1)} tokens > {limit} maximum"


def _find_prompt(text: str, asked: int, facts: OverflowFacts) -> int:
    """The prompt's tokens: as the backend says, else its total less what was asked for, else what we know."""
    found = _first(_INPUTS, text)
    if found:
        return found
    if facts.counted:
        return facts.input_tokens
    total = _first(_TOTALS, text)
    return total - asked if total and total > asked else facts.input_tokens


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        found = pattern.search(text)
        if found:
            return int(found[1])
    return None
