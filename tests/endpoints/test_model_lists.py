"""Model listings of several servers, whole and damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.listed import ListedModel
from endpoints.model_lists import ModelListError, is_listed, parse_model_list, parse_patterns
from endpoints.profiles import ListFormat

OLLAMA, OPENAI = ListFormat.OLLAMA, ListFormat.OPENAI


def parse(list_format, document) -> list[ListedModel]:
    return parse_model_list(list_format, json.dumps(document).encode())


def test_it_reads_an_ollama_listing():
    models = parse(OLLAMA, {"models": [{
        "name": "llama3.2:latest", "model": "llama3.2",
        "modified_at": "2026-05-04T17:37:44.706015396-07:00",
        "size": 3825819519, "digest": "fe938a131f40e6f6d40083c9f0f430a515233eb2edaa6d72eb85c50d64f2300e",
        "details": {"format": "gguf", "family": "llama", "families": None, "parameter_size": "7B",
                    "quantization_level": "Q4_0"},
    }]})  # fmt: skip
    assert models == [
        ListedModel(
            name="llama3.2:latest",
            digest="fe938a131f40e6f6d40083c9f0f430a515233eb2edaa6d72eb85c50d64f2300e",
            size_bytes=3825819519,
            family="llama",
            parameter_size="7B",
            quantization="Q4_0",
            modified_at=1777941464.706015,
            file_format="gguf",
        )
    ]


def test_it_reads_a_vllm_listing():
    models = parse(ListFormat.VLLM, {"object": "list", "data": [{
        "id": "Qwen/Qwen3-8B", "object": "model", "created": 1750000000, "owned_by": "vllm",
        "root": "Qwen/Qwen3-8B", "parent": None, "max_model_len": 40960, "permission": [{"id": "modelperm-1"}],
    }]})  # fmt: skip
    assert models == [ListedModel(name="Qwen/Qwen3-8B", context_length=40960, modified_at=1750000000.0)]


def test_it_reads_a_litellm_listing():
    """As LiteLLM 1.106.2 answers; `/model/info` has more, but not every key may ask for it."""
    models = parse(OPENAI, {"object": "list", "data": [{
        "id": "mock-gpt", "object": "model", "created": 1677610602, "owned_by": "openai", "mode": "chat",
        "max_input_tokens": 4096, "max_output_tokens": 16384,
    }]})  # fmt: skip
    assert [(each.name, each.context_length, each.model_type) for each in models] == [("mock-gpt", 4096, "llm")]


@pytest.mark.parametrize("list_format", [ListFormat.LM_STUDIO, OPENAI])
def test_it_reads_an_lm_studio_listing(list_format):
    models = parse(list_format, {"object": "list", "data": [{
        "id": "qwen2-vl-7b-instruct", "object": "model", "type": "vlm", "publisher": "mlx-community",
        "arch": "qwen2_vl", "compatibility_type": "mlx", "quantization": "4bit", "state": "not-loaded",
        "max_context_length": 32768,
    }]})  # fmt: skip
    assert models == [
        ListedModel(
            name="qwen2-vl-7b-instruct", family="qwen2_vl", quantization="4bit", context_length=32768,
            model_type="vlm", state="not-loaded", owner="mlx-community",
            file_format="mlx",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "capabilities"),
    [
        ({"type": "llm"}, ()),
        ({"type": "llm", "capabilities": []}, ("chat",)),
        ({"type": "llm", "capabilities": ["tool_use"]}, ("chat", "tools")),
        ({"type": "vlm", "capabilities": ["tool_use"]}, ("chat", "vision", "tools")),
        ({"type": "embeddings"}, ("embeddings",)),
    ],
)
def test_it_knows_what_lm_studio_says_of_a_model_as_a_whole(entry, capabilities):
    (model,) = parse(ListFormat.LM_STUDIO, {"data": [{"id": "m", **entry}]})
    assert model.capabilities == capabilities


def test_it_reads_a_lemonade_listing():
    models = parse(ListFormat.LEMONADE, {"object": "list", "data": [
        {"id": "Qwen2.5-VL-7B-NPU", "object": "model", "created": 1750000000, "owned_by": "lemonade",
         "checkpoint": "amd/Qwen2.5-VL", "recipe": "oga-npu", "downloaded": True, "labels": ["hot", "vision"]},
        {"id": "Qwen3-0.6B-GGUF", "owned_by": "lemonade", "checkpoint": "unsloth/Qwen3-0.6B-GGUF:Q4_0",
         "recipe": "llamacpp", "downloaded": False, "labels": ["reasoning", "tool-calling"]},
        {"id": "plain", "owned_by": "me", "recipe": "else"},
    ]})  # fmt: skip
    assert models == [
        ListedModel(
            "Qwen2.5-VL-7B-NPU", owner="amd", checkpoint="amd/Qwen2.5-VL", recipe="oga-npu", file_format="onnx",
            state="available", model_type="vlm", modified_at=1750000000.0,
        ),
        ListedModel(
            "Qwen3-0.6B-GGUF", owner="unsloth", checkpoint="unsloth/Qwen3-0.6B-GGUF:Q4_0", recipe="llamacpp",
            file_format="gguf", capabilities=("chat", "tools", "reasoning"),
        ),
        ListedModel("plain", owner="me", recipe="else"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("list_format", "own", "file_format"),
    [
        (ListFormat.VLLM, "vllm", ""), (ListFormat.SGLANG, "sglang", ""), (ListFormat.LMDEPLOY, "lmdeploy", ""),
        (ListFormat.VLLM_MLX, "vllm-mlx", "mlx"), (ListFormat.VLLM_MLX, "vllm", "mlx"),
        (ListFormat.LLAMACPP, "llamacpp", "gguf"), (ListFormat.DOCKER_MODEL_RUNNER, "docker", "gguf"),
        (ListFormat.OMLX, "omlx", "mlx"), (OPENAI, "organization_owner", ""),
    ],
)  # fmt: skip
def test_it_takes_a_servers_own_name_for_no_owner(list_format, own, file_format):
    models = parse(list_format, {"data": [{"id": "a", "owned_by": own}, {"id": "b", "owned_by": "someone"}]})
    assert [(m.owner, m.file_format) for m in models] == [("", file_format), ("someone", file_format)]


def test_it_reads_states_of_a_llamacpp_router():
    models = parse(ListFormat.LLAMACPP, {"data": [
        {"id": "a", "status": {"value": "loaded"}}, {"id": "b", "status": {"value": "unloaded"}},
        {"id": "c", "status": {"value": "odd"}}, {"id": "d", "status": "loaded"},
    ]})  # fmt: skip
    assert [m.state for m in models] == ["loaded", "not-loaded", "", ""]


@pytest.mark.parametrize("list_format", [OPENAI, ListFormat.LLAMACPP])
def test_it_reads_a_llamacpp_listing_whatever_its_meta(list_format):
    models = parse(list_format, {
        "models": [{"name": "m.gguf", "size": ""}],
        "data": [{"id": "m.gguf", "owned_by": "llamacpp", "created": 1750000000,
                  "meta": {"vocab_type": True, "n_ctx_train": 131072, "size": 4912898304,
                           "n_params": 8030261312}}],
    })  # fmt: skip
    assert [(m.name, m.context_length, m.size_bytes) for m in models] == [("m.gguf", 131072, 4912898304)]
    assert models[0].parameter_size == "8b"


@pytest.mark.parametrize("value", [None, 1.5, True, [], {}, "x" * 1000, -3, 2**70, "\x00"])
@pytest.mark.parametrize(
    ("list_format", "key", "document"),
    [
        (OLLAMA, "models", {"name": "m", "details": {}, "size": 1, "modified_at": 1, "digest": "d"}),
        (OPENAI, "data", {"id": "m", "owned_by": "o", "created": 1, "max_model_len": 1, "meta": {}, "type": "t"}),
    ],
)
def test_it_drops_a_field_of_the_wrong_type_and_keeps_the_model(list_format, key, document, value):
    odd = {name: text if text == "m" else value for name, text in document.items()}
    (model,) = parse(list_format, {key: [odd]})
    assert model.name == "m"


def test_it_skips_entries_that_are_no_models():
    entries: list[object] = [
        None,
        3,
        "m",
        [],
        {},
        {"id": ""},
        {"id": "  "},
        {"id": 7},
        {"id": "x" * 501},
        {"id": "a\nb"},
        {"id": "ok"},
    ]
    assert [m.name for m in parse(OPENAI, {"data": entries})] == ["ok"]


def test_it_keeps_a_name_that_comes_twice_once():
    models = parse(OPENAI, {"data": [{"id": "a", "owned_by": "first"}, {"id": "b"}, {"id": "a", "owned_by": "x"}]})
    assert [(m.name, m.owner) for m in models] == [("a", "first"), ("b", "")]


@pytest.mark.parametrize("list_format", list(ListFormat))
def test_it_reads_capabilities(list_format):
    if list_format is ListFormat.LEMONADE:  # has labels instead
        return
    entry = {"id": "m", "name": "m", "capabilities": ["vision", 3, "", "x" * 41, "function-calling", "completion"]}
    (model,) = parse(list_format, {"data": [entry], "models": [entry]})
    assert model.capabilities == ("chat", "vision", "tools")


def test_it_reads_capabilities_given_as_yes_and_no():
    words = {"completion_chat": True, "function_calling": True, "vision": False, "fine_tuning": "no"}
    (model,) = parse(OPENAI, {"data": [{"id": "m", "capabilities": words}]})
    assert model.capabilities == ("chat", "tools")


def test_it_takes_null_and_empty_lists_as_no_models():
    assert parse(OLLAMA, {"models": None}) == parse(OLLAMA, {"models": []}) == []


def test_it_takes_a_bare_list_and_a_byte_order_mark():
    assert [m.name for m in parse_model_list(OPENAI, b'\xef\xbb\xbf[{"id": "a"}]')] == ["a"]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b"3", b'"x"', b'{"data": 3}', b'{"error": "Unexpected endpoint"}', b'{"data": [',
     b'{"data": ["\xff"]}', b"[" * 100_000],
)  # fmt: skip
def test_it_refuses_what_is_no_listing(body):
    with pytest.raises(ModelListError):
        parse_model_list(OPENAI, body)


words = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
keys = words | st.sampled_from(
    ["data", "models", "id", "name", "details", "meta", "created", "modified_at", "size", "capabilities", "type",
     "labels", "checkpoint", "recipe", "status", "families", "owned_by", "n_params", "max_model_len", "downloaded"]
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=10
)
entries = st.lists(st.dictionaries(keys, values, max_size=8) | scalars, max_size=5)
listings = st.fixed_dictionaries({"data": entries, "models": entries})


@given(st.sampled_from(list(ListFormat)), values | listings)
def test_it_raises_nothing_else_on_any_json(list_format, document):
    check_only_expected(list_format, json.dumps(document).encode("utf-8", "surrogatepass"))


@given(st.sampled_from(list(ListFormat)), st.binary())
def test_it_raises_nothing_else_on_any_bytes(list_format, body):
    check_only_expected(list_format, body)


def check_only_expected(list_format, body):
    try:
        models = parse_model_list(list_format, body)
    except ModelListError:
        return
    for model in models:
        model.name.encode()
        assert model.name.strip() == model.name != ""
        assert model.modified_at is None or model.modified_at > 0


@pytest.mark.parametrize(
    ("name", "include", "exclude", "listed"),
    [
        ("llama3", (), (), True),
        ("llama3", ("*",), (), True),
        ("Llama3", ("llama*",), (), True),
        ("llama3", ("LLAMA*",), (), True),
        ("qwen2.5-coder", ("qwen*coder",), (), True),
        ("qwen2.5", ("qwen*coder",), (), False),
        ("ollama/phi", ("ollama/*",), (), True),
        ("phi", ("llama*", "phi"), (), True),
        ("phi-4", ("phi",), (), False),
        ("llama-embed", ("llama*",), ("*embed*",), False),
        ("llama-embed", (), ("*EMBED*",), False),
    ],
)
def test_it_filters_names(name, include, exclude, listed):
    assert is_listed(name, include, exclude) is listed


def test_it_reads_patterns_one_a_line():
    assert parse_patterns(" llama* \n\n*coder\r\n") == ("llama*", "*coder")
