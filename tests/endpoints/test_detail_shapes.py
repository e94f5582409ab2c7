"""What kinds tell beyond the list: added where it fits, ignored where it is nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.asking import Reply
from endpoints.detail_shapes import SOURCES, add_llamacpp_props, add_ollama_show
from endpoints.detection import SIGNATURE_PATHS, judge
from endpoints.listed import ListedModel
from endpoints.profiles import PROFILES, DetailSource
from endpoints.quantities import parse_bytes

MODELS = (ListedModel("m"), ListedModel("ai/n:latest", context_length=7, state="loaded", capabilities=("chat",)))


def test_it_has_an_adder_for_every_source() -> None:
    assert {*SOURCES, DetailSource.OLLAMA} == set(DetailSource)  # Ollama tells of each model by itself
    assert {each.details for each in PROFILES.values()} == {*DetailSource, None}


keys = st.sampled_from(
    ["models", "data", "name", "model_name", "model_info", "id", "tags", "config", "loaded", "modalities",
     "vision",
     "default_generation_settings", "n_ctx", "chat_template_caps", "supports_tools", "all_models_loaded",
     "model_loaded", "owned_by", "version", "arch", "capabilities", "size", "mode", "general.architecture"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(["m", "ai/n", "chat", "x" * 999, "\ud800"])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
)


@given(st.sampled_from(list(SOURCES)), documents)
def test_it_keeps_every_model_whatever_is_told(source: DetailSource, document: Any) -> None:
    told = SOURCES[source][1](MODELS, document)
    assert [each.name for each in told] == ["m", "ai/n:latest"]
    assert told[1].context_length == 7
    assert told[1].capabilities == ("chat",)


@given(st.dictionaries(st.sampled_from(SIGNATURE_PATHS), documents, max_size=4))
def test_it_judges_a_kind_by_any_answers(answers: dict[str, Any]) -> None:
    replies = {path: Reply(200, {}, encode(document), True, 1.0) for path, document in answers.items()}
    assert judge(replies) in {"", *PROFILES}


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()


@given(documents)
def test_it_takes_any_show_answer(document: Any) -> None:
    assert add_ollama_show(MODELS[1], document).context_length == 7


@pytest.mark.parametrize(
    ("props", "capabilities", "model_type"),
    [
        ({"modalities": {"vision": True}}, (), "vlm"),
        ({"modalities": {"vision": True}, "chat_template_caps": {"supports_tools": True}},
         ("chat", "vision", "tools"), "vlm"),
        ({"chat_template_caps": {"supports_tools": False}}, ("chat",), ""),
        ({"chat_template_caps": {}}, (), ""),
    ],
)  # fmt: skip
def test_it_says_what_llamacpp_says_as_a_whole_only(
    props: dict[str, Any], capabilities: tuple[str, ...], model_type: str
) -> None:
    document = {"default_generation_settings": {"n_ctx": 4096}, **props}
    (model,) = add_llamacpp_props((ListedModel("m", context_length=131072),), document)
    assert (model.capabilities, model.model_type, model.context_length) == (capabilities, model_type, 4096)


def test_it_tells_nothing_of_several_models_from_one_servers_properties() -> None:
    assert add_llamacpp_props(MODELS, {"default_generation_settings": {"n_ctx": 1}}) == MODELS


@pytest.mark.parametrize(
    ("text", "size"), [("260.86MiB", 273531535), ("4.9 GB", 4_900_000_000), ("7B", 7), ("", None), ("0B", None)]
)
def test_it_reads_sizes_in_bytes(text: str, size: int | None) -> None:
    assert parse_bytes(text) == size
