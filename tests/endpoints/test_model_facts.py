"""Families, variants and the facts of a model from all its listings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.families import judge_family, judge_publisher
from endpoints.listed import ListedModel
from endpoints.model_facts import merge_facts


@pytest.mark.parametrize(
    ("name", "family", "variant"),
    [
        ("llama3.1:8b", "llama", "3.1"), ("meta-llama/Llama-3.1-8B-Instruct", "llama", "3.1"),
        ("mistral:7b", "mistral", "7b"), ("mixtral-8x7b", "mixtral", "8x7b"), ("qwen2.5-coder:7b", "qwen", "2.5"),
        ("Qwen/Qwen3-8B", "qwen", "3"), ("deepseek-r1:8b", "deepseek", "r1:8b"), ("phi4", "phi", "4"),
        ("deepseek-coder-v2:16b", "deepseek-coder-v2", ""), ("deepseek-coder:6.7b", "deepseek", "coder:6.7b"),
        ("moonshotai/Kimi-K2", "kimi", ""), ("kimi/deepseek-v3", "deepseek", "v3"), ("gpt-oss:20b", "gpt-oss",
        "20b"), ("gpt-neox-20b", "gptneox", ""), ("gpt-j", "gptj", ""), ("devstral:24b", "mistral", "24b"),
        ("granite3.1-dense", "granite", "3.1"), ("zai-org/GLM-4.5", "glm", "4.5"), ("starcoder2-15b", "starcoder",
        "2"), ("vicuna-13b", "vicuna", "13b"), ("command-r-plus", "command-r", "plus"), ("forge", "forge", ""),
        ("kimichef-70b", "", ""), ("gptx-70b", "", ""), ("granitehybrid", "", ""), ("nomic-bert", "nomic-bert",
        ""), ("optimus", "opt", ""), ("unknown", "", ""), ("", "", ""),
    ],
)  # fmt: skip
def test_it_reads_family_and_variant_off_a_name(name: str, family: str, variant: str) -> None:
    assert judge_family(name) == (family, variant)


@given(st.text())
def test_it_reads_any_name(name: str) -> None:
    family, variant = judge_family(name)
    assert family or not variant


def test_it_knows_publishers() -> None:
    assert judge_publisher("org/model", "llama") == "org"
    assert judge_publisher("llama3", "llama") == "meta"
    assert judge_publisher("x", "") == ""


def test_it_merges_what_each_listing_knows() -> None:
    facts = merge_facts(
        (
            ListedModel("meta-llama/Llama-3.1-8B", context_length=131072, capabilities=("chat",)),
            ListedModel(
                "llama3.1:8b", family="llama", parameter_size="8.0B", quantization="Q4_K_M", size_bytes=5,
                context_length=8192, capabilities=("tools", "chat"), digest="d",
                file_format="gguf", modified_at=7.0,
            ),
            ListedModel("other", size_bytes=2),
        )
    )  # fmt: skip
    assert (facts.family, facts.variant, facts.publisher) == ("llama", "", "meta-llama")
    assert (facts.parameter_size, facts.parameter_count, facts.quantization) == ("8b", 8_000_000_000, "q4km")
    assert (facts.context_length, facts.total_size, facts.digest, facts.file_format) == (131072, 7, "d", "gguf")
    assert (facts.capabilities, facts.model_type, facts.modified_at) == (("chat", "tools"), "llm", 7.0)


def test_it_leaves_empty_what_nobody_tells() -> None:
    facts = merge_facts((ListedModel("thing"),))
    assert (facts.family, facts.parameter_count, facts.context_length, facts.model_type) == ("", 0, None, "")
