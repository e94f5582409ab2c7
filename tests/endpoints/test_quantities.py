"""Parameter counts and quantisations in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.quantities import (
    normalize_quantization,
    normalize_size,
    parse_count,
    spell_quantization,
    write_count,
)


@pytest.mark.parametrize(
    ("text", "size", "count"),
    [
        ("7B", "7b", 7_000_000_000), ("3.8B", "3.8b", 3_800_000_000), ("7", "7b", 7_000_000_000),
        (" 8.03 b ", "8b", 8_030_000_000), ("540M", "540m", 540_000_000), ("1500M", "1.5b", 1_500_000_000),
        ("136.73M", "137m", 136_730_000), ("8x7B", "8x7B", 0), ("", "", 0), ("big", "big", 0), ("0B", "0B", 0),
        ("0.6B", "0.6b", 600_000_000), ("0.35B", "350m", 350_000_000),
    ],
)  # fmt: skip
def test_it_reads_sizes(text: str, size: str, count: int) -> None:
    assert (normalize_size(text), parse_count(text)) == (size, count)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Q4_K_M", "q4km"), ("Q4_0", "q4"), ("q8_0", "q8"), ("FP16", "f16"), ("BF16", "bf16"), ("4bit", "4bit"),
        ("Q6_K_L", "q6_k_l"), ("IQ2_XXS", "iq2_xxs"), ("MOSTLY_Q4_K_M", "q4km"), ("AWQ-4BIT", "awq4"), ("", ""),
    ],
)  # fmt: skip
def test_it_shortens_quantisations(text: str, short: str) -> None:
    assert normalize_quantization(text) == short


@pytest.mark.parametrize(
    ("text", "spelled"), [("q4km", "Q4_K_M"), ("Q4_K_M", "Q4_K_M"), ("fp16", "F16"), ("4bit", "4bit"), ("", "")]
)
def test_it_spells_quantisations_as_ollama_does(text: str, spelled: str) -> None:
    assert spell_quantization(text) == spelled


@given(st.text())
def test_it_normalises_once_and_for_all(text: str) -> None:
    assert normalize_size(normalize_size(text)) == normalize_size(text)
    assert normalize_quantization(normalize_quantization(text)) == normalize_quantization(text)


@given(st.integers(min_value=1, max_value=10**13))
def test_it_writes_counts_that_can_be_read(count: int) -> None:
    assert normalize_size(write_count(count)) == write_count(count)
