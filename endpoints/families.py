"""Which family a model belongs to and which variant it is, read off its name. (pure)

For people and filters only: nothing is routed by it. A family the server itself names is taken as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Families whose names look like another's with a variant.
_WHOLE = ("nomic-bert", "deepseek-coder-v2", "kimi")
_DELIMITER = "[-_.:]"
_START = "(?:.*/)?"
_END = "(?![a-z])"
_REST = f"{_DELIMITER}?(.*)"
_NUMBER = r"(\d+(?:\.\d+)?)"
_NUMBERED = "phi|llama|gemma|qwen|mistral|glm|granite|nemotron|exaone|kimi|minimax|hunyuan|olmo|internlm|smollm"
# In order; the first group is the family, the second the variant.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(mistral|mixtral){_REST}",
        rf"(llama|gemma|phi|qwen)[-_]?{_NUMBER}",
        rf".*/({_NUMBERED}){_DELIMITER}?{_NUMBER}?{_END}",
        r"(codellama|starcoder|vicuna|falcon|yi)[-_]?(\d+b?)",
        rf"{_START}(gpt-oss){_END}{_REST}",
        rf"{_START}gpt{_DELIMITER}?(2|j|neox){_END}",
        rf"{_START}(deepseek){_END}{_REST}",
        rf"{_START}(devstral|magistral|codestral|ministral){_END}{_REST}",
        rf"{_START}(glm|granite|exaone|olmo|internlm|smollm){_DELIMITER}?{_NUMBER}{_END}",
        rf"{_START}(kimi|nemotron|hunyuan|minimax|seed-oss|command-r){_END}{_REST}",
        rf"{_START}(forge){_END}{_REST}",
    )
)
_FAMILY_OF = {"devstral": "mistral", "magistral": "mistral", "codestral": "mistral", "ministral": "mistral"}
_FIRST_WORDS = (
    "llama", "gemma", "phi", "qwen", "mistral", "mixtral", "yi", "deepseek", "codellama", "starcoder", "vicuna",
    "falcon", "gpt2", "gptj", "gptneox", "bloom", "opt", "mpt",
)  # fmt: skip
_PUBLISHERS = {
    "llama": "meta", "codellama": "meta", "opt": "meta", "gemma": "google", "phi": "microsoft",
    "mistral": "mistral", "mixtral": "mistral", "qwen": "alibaba", "yi": "01-ai", "deepseek": "deepseek",
    "deepseek-coder-v2": "deepseek", "starcoder": "bigcode", "falcon": "tii", "vicuna": "lmsys",
    "bloom": "bigscience", "gpt2": "openai", "gpt-oss": "openai", "gptj": "eleutherai", "gptneox": "eleutherai",
    "glm": "zai-org", "kimi": "moonshotai", "granite": "ibm", "nemotron": "nvidia", "exaone": "lg-ai",
    "hunyuan": "tencent", "minimax": "minimax", "seed-oss": "bytedance", "olmo": "allenai",
    "internlm": "internlm", "smollm": "huggingfacetb", "command-r": "cohere", "forge": "tensorfoundry",
}  # fmt: skip


@lru_cache(maxsize=16_384)
def judge_family(name: str) -> tuple[str, str]:
    """Family and variant of a model by its name; empty texts where they cannot be told."""
    folded = name.strip().lower()
    last = folded.rpartition("/")[2]
    for whole in _WHOLE:
        if last == whole or (last.startswith(whole) and last[len(whole)] in "-_:/."):
            return whole, ""
    for pattern in _PATTERNS:
        match = pattern.match(folded)
        if match is not None:
            return _read_match(match)
    word = re.split(r"[-_:/]", folded, maxsplit=1)[0]
    return next(((family, "") for family in _FIRST_WORDS if word.startswith(family)), ("", ""))


def _read_match(match: re.Match[str]) -> tuple[str, str]:
    if match.re.groups == 1:  # gpt-2, gpt-j, gpt-neox
        return f"gpt{match[1]}", ""
    family, variant = match[1], (match[2] or "").lstrip("-_.:")
    return _FAMILY_OF.get(family, family), variant


def judge_publisher(name: str, family: str) -> str:
    """Who made a model: what stands before the first slash of its name, else who makes its family."""
    publisher, slash, _ = name.partition("/")
    return publisher if slash and publisher else _PUBLISHERS.get(family, "")
