"""What the demo backend says, and how it is cut into tokens. (pure)

The same prompt, model and seed always give the same words, so that tests and a second look agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

_TOKEN = re.compile(r"\s*\S{1,12}|\s+$")
_COUNT = re.compile(r"\bcount\b.*?\b(\d{1,4})\b", re.IGNORECASE | re.DOTALL)
_SUM = re.compile(r"(-?\d{1,9})\s*([-+*x])\s*(-?\d{1,9})")

# (words to look for, answers to choose from). The first row with a word of the prompt wins.
_TOPICS: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (
        frozenset({"hello", "hi", "hey", "hallo", "greetings"}),
        (
            "Hello! I would gladly help, if only there were a model behind me.",
            "Hello to you too! You reached me through the proxy, so the road works.",
        ),
    ),
    (
        frozenset({"haiku", "poem", "verse"}),
        (
            "One door, many rooms.\nA request knocks, a GPU wakes,\nand words start to fall.",
            "Quiet fans at dawn.\nThe queue is empty and yet\na token drips through.",
        ),
    ),
    (
        frozenset({"sky", "blue", "light"}),
        (
            "Air scatters short wavelengths of sunlight far more than long ones, so blue reaches your eye from "
            "every side. At sunset the light crosses more air and mostly red is left.",
        ),
    ),
    (
        frozenset({"python", "code", "program", "function"}),
        (
            "Here is a small one:\n\n```python\ndef greet(name: str) -> str:\n"
            '    return f"Hello, {name}!"\n```\n\nIt takes a name and returns a greeting.',
        ),
    ),
    (
        frozenset({"proxy", "olla", "failover", "balancer"}),
        (
            "A proxy in front of inference servers picks a healthy one that has the model, streams its answer, "
            "and tries another when a connection cannot be made.",
        ),
    ),
)
_OPENINGS = ("A fair question.", "Let me think aloud.", "Here is a short answer.", "Gladly.")
_BODIES = (
    "A real model would now weigh what it knows about {topic} and choose its words one after another. I choose "
    "mine from a small list, but they travel the same way: token by token, as soon as each is ready.",
    "About {topic} I only know that you asked. What you can see here is the path of the answer: the proxy chose "
    "an endpoint, kept the connection open, and passes every piece on as it comes.",
    "If {topic} matters to you, register a real inference server next to me. Until then I fill the stream with "
    "believable sentences, at the pace I was told to keep.",
)
_COMMON_WORDS = """
about after again also because before between could does from give have into just like make more most much only
other please should some such tell than that their them then there these they this those very want well were what
when where which while will with would write your explain describe short story
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def pick(seed: str, count: int) -> int:
    """A number below `count` that depends on nothing but `seed`."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % count


def cut_tokens(text: str) -> list[str]:
    """The text as the pieces a stream sends; joined they are the text."""
    return _TOKEN.findall(text)


def count_tokens(value: Any) -> int:
    """Roughly how many tokens the strings inside a JSON value have."""
    if isinstance(value, str):
        return len(cut_tokens(value))
    if isinstance(value, dict):
        return sum(count_tokens(each) for each in value.values())
    if isinstance(value, list):
        return sum(count_tokens(each) for each in value)
    return 0


def read_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list (OpenAI's content parts)."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict)).strip()
    return ""


def last_prompt(messages: Iterable[Any]) -> str:
    """The text of the last user message."""
    spoken = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    return read_text(spoken[-1].get("content")) if spoken else ""


def build_reply(prompt: str, speaker: str, model: str, seed: object = 0) -> str:
    """What the backend called `speaker` answers to `prompt`, always saying that it is a demo."""
    label = f'[demo backend "{speaker}", model {model}: no real model is running] '
    return label + _answer(prompt, f"{seed}|{model}|{prompt}")


def _answer(prompt: str, seed: str) -> str:
    if (match := _COUNT.search(prompt)) is not None:
        return ", ".join(str(number) for number in range(1, int(match[1]) + 1)) + "."
    if (match := _SUM.search(prompt)) is not None:
        return f"{match[1]} {match[2]} {match[3]} = {_calculate(int(match[1]), match[2], int(match[3]))}."
    words = re.findall(r"[\w'-]+", prompt.lower())
    for keywords, answers in _TOPICS:
        if keywords.intersection(words):
            return answers[pick(seed, len(answers))]
    body = _BODIES[pick(seed, len(_BODIES))].format(topic=_topic(words))
    return f"{_OPENINGS[pick(seed + '|opening', len(_OPENINGS))]} {body}"


def _calculate(left: int, operator: str, right: int) -> int:
    if operator == "+":
        return left + right
    return left - right if operator == "-" else left * right


def _topic(words: list[str]) -> str:
    telling = [word for word in words if len(word) > 3 and word not in _COMMON]
    return f'"{max(telling, key=len)}"' if telling else "that"
