"""The words used of models."""

from __future__ import annotations

import pytest

from endpoints.listed import (
    Capability,
    ListedModel,
    fold_tag,
    judge_type,
    parse_capabilities,
    parse_model_type,
    parse_state,
    tell_capabilities,
)
from proxy import capabilities


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ([], ()),
        (["completion", "tools", "insert", "vision", "thinking"],
         ("chat", "vision", "tools", "reasoning", "infill")),
        (["embedding"], ("embeddings",)),
        (["Tool_Use", "tool-calling", "function calling"], ("tools",)),
        (["completion", "multimodal"], ("chat", "vision")),
        (["nonsense", ""], ()),
    ],
)  # fmt: skip
def test_it_reads_capabilities(words: list[str], meant: tuple[str, ...]) -> None:
    assert parse_capabilities(words) == meant


def test_its_words_are_those_requests_are_judged_by() -> None:
    asked = {capabilities.TOOLS, capabilities.VISION, capabilities.EMBEDDINGS}
    assert asked <= {each.value for each in Capability}


def test_it_reads_types_and_states() -> None:
    assert [parse_model_type(word) for word in ("llm", "VLM", "embedding", "audio_transcription", "model")] == [
        "llm", "vlm", "embeddings", "audio", "",
    ]  # fmt: skip
    assert [parse_state(word) for word in ("loaded", "not-loaded", "unloaded", "downloaded", "odd")] == [
        "loaded", "not-loaded", "not-loaded", "available", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "judged"),
    [
        (ListedModel("m", model_type="vlm", capabilities=("embeddings",)), "vlm"),
        (ListedModel("m", capabilities=("chat", "vision")), "vlm"),
        (ListedModel("m", capabilities=("chat",)), "llm"),
        (ListedModel("m", capabilities=("rerank",)), "rerank"),
        (ListedModel("nomic-Embed-text"), "embeddings"),
        (ListedModel("all-minilm", family="bert"), "embeddings"),
        (ListedModel("llama3"), ""),
    ],
)
def test_it_judges_what_a_model_is_for(model: ListedModel, judged: str) -> None:
    assert judge_type(model) == judged


def test_it_tells_what_a_type_implies_where_nothing_is_said() -> None:
    assert tell_capabilities(ListedModel("m", model_type="vlm")) == ("chat", "vision")
    assert tell_capabilities(ListedModel("m", model_type="vlm", capabilities=("tools",))) == ("tools",)
    assert tell_capabilities(ListedModel("m")) == ()


def test_it_folds_the_implied_tag() -> None:
    assert [fold_tag(name) for name in (" Llama3:Latest", "llama3", "llama3:8b", "latest")] == [
        "llama3", "llama3", "llama3:8b", "latest",
    ]  # fmt: skip
