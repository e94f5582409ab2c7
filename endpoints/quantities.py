"""Parameter counts, quantisations and sizes in one spelling, whoever wrote them. (pure)"""

from __future__ import annotations

import re
from functools import lru_cache

_COUNT = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([bmBM]?)\s*")
_TENTHS = re.compile("0\\.[1-9][bB]")
_MILLION, _BILLION = 10**6, 10**9
_SIZE_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")

# As Ollama and LM Studio spell them -> the short spelling used here.
_QUANTIZATIONS = {
    "q2_k": "q2k",
    "q3_k_l": "q3kl", "q3_k_m": "q3km", "q3_k_s": "q3ks",
    "q4_k_m": "q4km", "q4_k_s": "q4ks", "q4_k_xl": "q4kxl",
    "q5_k_m": "q5km", "q5_k_s": "q5ks",
    "q6_k": "q6k",
    "q4_0": "q4", "q4_1": "q4_1", "q5_0": "q5", "q5_1": "q5_1", "q8_0": "q8",
    "f16": "f16", "fp16": "f16", "f32": "f32", "fp32": "f32", "bf16": "bf16",
    "gptq_4bit": "gptq4", "gptq-4bit": "gptq4", "awq_4bit": "awq4", "awq-4bit": "awq4",
    "int8": "int8", "int4": "int4", "mxfp4": "mxfp4", "nvfp4": "nvfp4",
}  # fmt: skip
_SPELLINGS = {
    "q2k": "Q2_K", "q3kl": "Q3_K_L", "q3km": "Q3_K_M", "q3ks": "Q3_K_S", "q4km": "Q4_K_M", "q4ks": "Q4_K_S",
    "q4kxl": "Q4_K_XL", "q5km": "Q5_K_M", "q5ks": "Q5_K_S", "q6k": "Q6_K", "q4": "Q4_0", "q4_1": "Q4_1",
    "q5": "Q5_0", "q5_1": "Q5_1", "q8": "Q8_0", "f16": "F16", "f32": "F32", "bf16": "BF16", "mxfp4": "MXFP4",
}  # fmt: skip


def parse_count(text: str) -> int:
    """The number of parameters meant by a text such as `8B`, `3.21 B`, `540M` or `7`; 0 when it cannot be told."""
    match = _COUNT.fullmatch(text)
    if match is None:
        return 0
    unit = _MILLION if match[2] in {"m", "M"} else _BILLION
    return round(float(match[1]) * unit)


def write_count(count: int) -> str:
    """A number of parameters as texts spell it: `8b`, `3.2b`, `540m`, `0.3m` below a million."""
    if count >= 999.5 * _MILLION:  # what would round to a thousand of them
        return f"{_shorten(count / _BILLION)}b"
    return f"{round(count / _MILLION) if count >= _MILLION else _shorten(count / _MILLION)}m"


_BYTES = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(i?)B\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int | None:
    """The bytes meant by a text such as `260.86MiB` or `4.9 GB`; None when it cannot be told."""
    match = _BYTES.fullmatch(text)
    if match is None:
        return None
    power = " KMGT".index(match[2].upper() or " ")
    return round(float(match[1]) * (1024 if match[3] else 1000) ** power) or None


def _shorten(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@lru_cache(maxsize=2048)
def normalize_size(text: str) -> str:
    """A parameter size in one spelling (`7B` and `7` are `7b`); a text that is none stays as it is."""
    if _TENTHS.fullmatch(text):  # half a billion is known as 0.5b, not as 500m
        return text.lower()
    count = parse_count(text)
    return write_count(count) if count else text


@lru_cache(maxsize=2048)
def normalize_quantization(text: str) -> str:
    """A quantisation in one spelling (`Q4_K_M` is `q4km`); one not in the table in lower case, otherwise whole."""
    folded = text.strip().lower().removeprefix("mostly_")
    return _QUANTIZATIONS.get(folded, folded)


def spell_quantization(text: str) -> str:
    """A quantisation as Ollama and LM Studio spell it; one they have no spelling for stays as it is."""
    return _SPELLINGS.get(normalize_quantization(text), text)


def write_size(count: float) -> str:
    """Bytes for people, in steps of 1024 with two decimals from 1 KB on: `4.58 GB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.2f} {_SIZE_UNITS[unit]}" if unit else f"{int(count)} B"
