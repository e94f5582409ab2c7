"""What the names of models suggest where their servers say nothing: capabilities and context lengths. (pure)

For people and filters only: nothing is routed by it, and listings tell it apart from what a server said. Patterns
are globs without regard to case over the whole name. They hold what is commonly known of model families as of
2026-11: hints, to be corrected where a model's card says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from endpoints.listed import Capability

# What such a model does excludes that it chats.
_ALONE = (Capability.EMBEDDINGS, Capability.RERANK)

Contexts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """Globs for each capability, and context lengths of which the first that matches counts."""

    capabilities: tuple[tuple[Capability, tuple[str, ...]], ...]
    contexts: Contexts = ()


@dataclass(frozen=True, slots=True)
class Guess:
    """What a name suggests; empty where it suggests nothing."""

    capabilities: tuple[str, ...] = ()
    context_length: int | None = None


@lru_cache(maxsize=16_384)
def guess(patterns: NamePatterns, name: str) -> Guess:
    """What the name of a model suggests."""
    folded = name.strip().casefold()
    able = {each for each, globs in patterns.capabilities if _compile(globs).match(folded)}
    alone = next((each for each in _ALONE if each in able), None)
    if able:  # what sees, reasons or writes code also chats
        able = {alone} if alone else able | {Capability.CHAT}
    context = next((length for glob, length in patterns.contexts if _compile((glob,)).match(folded)), None)
    return Guess(tuple(each.value for each in Capability if each in able), context)


@lru_cache(maxsize=512)
def _compile(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob.casefold()) for glob in globs))


_EMBEDDINGS = (Capability.EMBEDDINGS, ("*embed*", "*bge-m3*", "*all-minilm*", "*/e5-*"))
_RERANK = (Capability.RERANK, ("*rerank*",))
_VISION = (
    Capability.VISION,
    ("*llava*", "*vision*", "*minicpm-v*", "*[-_0-9]vl[-_:]*", "*[-_0-9]vl", "*-vlm*", "*internvl*",
     "*multimodal*"),
)  # fmt: skip
_CODE = (Capability.CODE, ("*code*", "*coder*", "*codestral*", "*devstral*"))
_REASONING = (Capability.REASONING, ("*deepseek-r1*", "*-thinking*", "*reasoning*", "*qwq*", "*magistral*"))
_CHAT = (Capability.CHAT, ("*[-_]instruct*", "*[-_]chat*", "*[-_]it", "*[-_]it[-_]*"))

_SIZES: Contexts = (
    ("*[-:]128k*", 131_072), ("*[-:]64k*", 65_536), ("*[-:]32k*", 32_768), ("*[-:]16k*", 16_384),
    ("*[-:]8k*", 8_192), ("*[-:]4k*", 4_096),
)  # fmt: skip
_FAMILIES: Contexts = (
    ("*llama-3.[1-9]*", 131_072), ("*llama3.[1-9]*", 131_072), ("*llama-3*", 8_192), ("*llama3*", 8_192),
    ("*tinyllama*", 2_048), ("*internlm2*", 32_768), ("*mixtral*", 32_768), ("*mistral*", 32_768),
    ("*qwen*", 32_768), ("*gemma-2*", 8_192), ("*gemma2*", 8_192), ("*phi-3*", 4_096), ("*smollm2*", 8_192),
)  # fmt: skip
_OPENAI: Contexts = (
    ("*gpt-5*", 400_000), ("*gpt-4.1*", 1_047_576), ("*gpt-4o*", 128_000), ("*gpt-4-turbo*", 128_000),
    ("*gpt-4-32k*", 32_768), ("*gpt-4*", 8_192), ("*gpt-3.5-turbo*", 16_385),
)  # fmt: skip

# Servers of open models, most of which name their models as their publishers do.
OPEN_MODELS = NamePatterns((_CHAT, _EMBEDDINGS, _RERANK, _VISION, _CODE, _REASONING), (*_SIZES, *_FAMILIES))
# Its names tell size and quantisation in place of "instruct"; what is no embedding model chats.
EVERY_CHATS = NamePatterns(
    ((Capability.CHAT, ("*",)), _EMBEDDINGS, _RERANK, _VISION, _CODE, _REASONING), (*_SIZES, *_FAMILIES)
)
_HOSTED_CHAT = ("*gpt-*", "*claude-*", "*gemini-*", "*command-*", "*[-/]o[1-9]-*")
_HOSTED_VISION = ("*gpt-4o*", "*gpt-4.1*", "*gpt-4-turbo*", "*gpt-5*", "*claude-*", "*gemini-*")
_HOSTED_TOOLS = (
    "*gpt-4*", "*gpt-5*", "*gpt-3.5-turbo*", "*claude-*", "*gemini-*", "*mistral-large*", "*mixtral*",
    "*command-r*",
)  # fmt: skip
# Services and gateways to them, under their vendors' names and with a provider before a slash.
HOSTED = NamePatterns(
    (
        (Capability.CHAT, (*_CHAT[1], *_HOSTED_CHAT)),
        (Capability.EMBEDDINGS, (*_EMBEDDINGS[1], "*voyage-*")),
        _RERANK,
        (Capability.VISION, (*_VISION[1], *_HOSTED_VISION)),
        (Capability.TOOLS, _HOSTED_TOOLS),
        _CODE,
        _REASONING,
    ),
    (*_OPENAI, ("*claude-2*", 100_000), ("*claude-*", 200_000), ("*gemini-*", 1_048_576), *_SIZES, *_FAMILIES),
)
