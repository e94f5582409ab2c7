"""The profiles agree with themselves and with what operators type."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from endpoints.answer_metrics import Metric
from endpoints.profiles import (
    AUTO,
    DISGUISES,
    FALLBACK,
    PREFIXES,
    PROFILES,
    Guard,
    NativeAnthropic,
    Profile,
    parse_backend_type,
    prefix_accepts,
    profile_for,
)
from translation.mode import Limitation

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ollama", "ollama"), (" Ollama ", "ollama"), ("LM-Studio", "lm-studio"), ("lmstudio", "lm-studio"),
        ("lm_studio", "lm-studio"), ("openai", "openai"), ("OPENAI", "openai"), ("openai-compatible",
        "openai-compatible"),
        ("openai_compatible", "openai-compatible"), ("llama.cpp", "llamacpp"), ("llama-cpp", "llamacpp"),
        ("llama_cpp", "llamacpp"), ("vllmmlx", "vllm-mlx"), ("vllm", "vllm"), ("dmr", "docker-model-runner"),
        ("Auto", AUTO), ("", None), ("gpt", None), ("anthropic", None),
    ],
)  # fmt: skip
def test_it_knows_a_type_in_every_spelling(text: str, kind: str | None) -> None:
    assert parse_backend_type(text) == kind


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("ollama", "ollama"), ("lmstudio", "lm-studio"), ("lm-studio", "lm-studio"), ("lm_studio", "lm-studio"),
        ("openai", "openai-compatible"), ("openai-compatible", "openai-compatible"), ("vllm", "vllm"),
        ("vllm-mlx", "vllm-mlx"), ("sglang", "sglang"), ("litellm", "litellm"), ("llamacpp", "llamacpp"),
        ("lemonade", "lemonade"), ("lmdeploy", "lmdeploy"), ("dmr", "docker-model-runner"), ("omlx", "omlx"),
    ],
)  # fmt: skip
def test_it_has_every_documented_prefix(prefix: str, kind: str) -> None:
    assert PREFIXES[prefix] == kind


@pytest.mark.parametrize(
    ("prefix", "accepted"),
    [
        ("ollama", {"ollama"}), ("lm_studio", {"lm-studio"}), ("vllm", {"vllm"}), ("lemonade", {"lemonade"}),
        ("omlx", {"omlx"}), ("openai", {*PROFILES, AUTO}), ("openai-compatible", {*PROFILES, AUTO}),
    ],
)  # fmt: skip
def test_it_scopes_a_prefix_to_its_kinds(prefix: str, accepted: set[str]) -> None:
    assert {kind for kind in [*PROFILES, AUTO] if prefix_accepts(PREFIXES[prefix], kind)} == accepted


def test_it_takes_an_unknown_type_for_openai_compatible() -> None:
    assert profile_for("nonsense") is profile_for(AUTO) is FALLBACK
    assert profile_for("ollama") is PROFILES["ollama"]


@pytest.mark.parametrize(
    ("kind", "path", "served"),
    [
        ("ollama", "/", True), ("ollama", "/api/chat", True), ("ollama", "/base/api/chat", True),
        ("ollama", "/rerank", False), ("vllm", "/v2/rerank", True), ("litellm", "/", True), ("vllm", "/", False),
        ("docker-model-runner", "/engines/llama.cpp/v1/chat/completions", True), ("ollama", "/api/chat/x", False),
    ],
)  # fmt: skip
def test_it_knows_which_paths_a_kind_serves(kind: str, path: str, served: bool) -> None:
    assert PROFILES[kind].serves(path) is served


@pytest.mark.parametrize("name", PROFILES)
def test_it_holds_together(name: str) -> None:
    profile = PROFILES[name]
    assert profile.name == name
    assert parse_backend_type(name) == name
    assert re.fullmatch(r"[a-z0-9-]+", profile.header_name)
    for path in (profile.health_path, profile.models_path, *profile.paths):
        assert path.startswith("/")
        assert path == path.lower()
    for guard in profile.guards:
        assert guard.path == guard.path.lower()
        assert guard.path.startswith("/") or guard.path == "*"
        assert guard.method in {"*", "GET", "POST", "DELETE"}
    assert not profile.prefixes or all(re.fullmatch(r"[a-z0-9_-]+", prefix) for prefix in profile.prefixes)
    assert profile.native_anthropic is None or profile.native_anthropic.path.endswith("/messages")


def test_it_gives_no_spelling_to_two_kinds() -> None:
    prefixes = [prefix for profile in PROFILES.values() for prefix in profile.prefixes]
    assert len(prefixes) == len(set(prefixes))
    assert set(DISGUISES) <= set(PROFILES)


def test_it_holds_nothing_that_no_code_reads() -> None:
    folders = [ROOT / name for name in ("endpoints", "proxy", "olla_site")]
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    held = {field.name for kind in (Profile, NativeAnthropic, Guard) for field in fields(kind)}
    assert {name for name in held if not re.search(rf"\.{name}\b", code)} == set()
    natives = [each.native_anthropic for each in PROFILES.values() if each.native_anthropic is not None]
    assert {word for each in natives for word in each.limitations} <= set(Limitation)


def test_it_is_one_object_a_kind() -> None:
    assert hash(PROFILES["ollama"]) == object.__hash__(PROFILES["ollama"])


@pytest.mark.parametrize("name", PROFILES)
def test_it_knows_where_answers_tell_tokens_and_why_they_ended(name: str) -> None:
    readings = PROFILES[name].metrics
    assert {Metric.PROMPT_TOKENS, Metric.COMPLETION_TOKENS, Metric.FINISH_REASON} <= {
        each.metric for each in readings
    }
    assert len(set(readings)) == len(readings)
    assert all(each.path and each.scale > 0 for each in readings)
