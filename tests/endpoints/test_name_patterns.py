"""What names suggest where servers say nothing: each pattern is reached, and embedding models do not chat."""

from __future__ import annotations

import pytest

from endpoints.name_patterns import EVERY_CHATS, HOSTED, OPEN_MODELS, Guess, guess
from endpoints.profiles import PROFILES, profile_for
from endpoints.rules import describe_bad_glob

ALL = {"open": OPEN_MODELS, "every": EVERY_CHATS, "hosted": HOSTED}


@pytest.mark.parametrize(
    ("kind", "name", "able", "context"),
    [
        ("vllm", "meta-llama/Llama-3.1-8B-Instruct", "chat", 131_072),
        ("vllm", "Qwen/Qwen2.5-VL-7B-Instruct", "chat vision", 32_768),
        ("sglang", "deepseek-ai/DeepSeek-R1", "chat reasoning", None),
        ("lmdeploy", "internlm/internlm2_5-7b-chat", "chat", 32_768),
        ("llamacpp", "qwen2.5-coder-32b-instruct-q4_k_m.gguf", "chat code", 32_768),
        ("docker-model-runner", "ai/smollm2", "", 8_192),
        ("omlx", "Qwen3-8B-4bit", "", 32_768),
        ("lemonade", "bge-reranker-v2-m3-GGUF", "rerank", None),
        ("vllm-mlx", "mlx-community/llava-1.5-7b-4bit", "chat vision", None),
        ("ollama", "llama3.2:3b", "chat", 131_072),
        ("ollama", "nomic-embed-text", "embeddings", None),
        ("lm-studio", "some-model", "chat", None),
        ("lm-studio", "codellama-7b-embedding", "embeddings", None),
        ("litellm", "anthropic/claude-sonnet-4-5", "chat vision tools", 200_000),
        ("openai-compatible", "gpt-4o-mini", "chat vision tools", 128_000),
        ("openai", "text-embedding-3-large", "embeddings", None),
        ("openai-compatible", "gpt-3.5-turbo-16k", "chat tools", 16_385),
        ("vllm", "MODEL-8K-CHAT", "chat", 8_192),
        ("vllm", "anything", "", None),
        ("vllm", "", "", None),
    ],
)
def test_it_guesses_by_the_name(kind, name, able, context):
    assert guess(profile_for(kind).name_patterns, name) == Guess(tuple(able.split()), context)


@pytest.mark.parametrize("which", sorted(ALL))
def test_it_has_no_pattern_that_never_counts(which):
    patterns = ALL[which]
    for glob, length in patterns.contexts:
        assert guess(patterns, example_of(glob)).context_length == length, glob
    for capability, globs in patterns.capabilities:
        for glob in globs:
            assert not describe_bad_glob(glob)
            assert capability in guess(patterns, example_of(glob)).capabilities, glob


def example_of(glob: str) -> str:
    """The shortest name a pattern is about."""
    for choice, letter in (
        ("[-_0-9]", "-"),
        ("[-_:]", "-"),
        ("[-_]", "-"),
        ("[-:]", "-"),
        ("[1-9]", "1"),
        ("[-/]", "/"),
    ):
        glob = glob.replace(choice, letter)
    return glob.replace("*", "")


def test_it_costs_little_however_long_the_name_is():
    assert guess(OPEN_MODELS, "a-" * 5_000) == Guess()


def test_every_table_is_some_kinds():
    assert {id(each.name_patterns) for each in PROFILES.values()} == {id(each) for each in ALL.values()}
