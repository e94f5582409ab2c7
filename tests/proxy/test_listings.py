"""Model lists, field by field, as the clients of each API read them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from endpoints.health import OperatorState, Status
from endpoints.snapshot import Alias, ListedModel, build_snapshot
from proxy.errors import OllaError
from proxy.listings import build_catalogue, ollama_tags, openai_list
from proxy.model_query import choose_entries, parse_query, write_models
from proxy.native_lists import FORMATS, docker_model_runner, lemonade, lm_studio_v0, lm_studio_v1, vllm
from proxy.unified_list import build_unified, find_entry, unified_item, unified_list
from tests.proxy.builders import NOW, make_endpoint, make_snapshot, make_view

LLAMA = ListedModel(
    "llama3:latest", digest="sha256:ab", size_bytes=42, family="llama", parameter_size="8B", quantization="Q4_0",
    context_length=8192, capabilities=("chat", "tools"), modified_at=1_700_000_000.9, owner="meta",
)  # fmt: skip
A = make_endpoint("a", models=[LLAMA, "zephyr"], priority=200)
B = make_endpoint("b", "vllm", models=[ListedModel("LLAMA3:LATEST", capabilities=("vision",), state="loaded")])


def test_it_makes_one_entry_of_equal_names() -> None:
    entries = build_catalogue(make_snapshot(B, A), "proxy", make_view())
    assert [(entry.name, [e.name for e, _ in entry.sources]) for entry in entries] == [
        ("llama3:latest", ["a", "b"]), ("zephyr", ["a"]),
    ]  # fmt: skip


def test_it_lists_only_what_the_prefix_serves() -> None:
    snapshot = make_snapshot(A, B)
    assert [entry.name for entry in build_catalogue(snapshot, "vllm", make_view())] == ["LLAMA3:LATEST"]
    assert len(build_catalogue(snapshot, "openai", make_view())) == 2
    assert build_catalogue(snapshot, "sglang", make_view()) == []
    assert build_catalogue(snapshot, "nonsense", make_view()) == []


@pytest.mark.parametrize(
    ("change", "available"),
    [({}, True), ({"status": Status.BUSY}, True), ({"status": Status.OFFLINE}, False),
     ({"state": OperatorState.DRAINING}, False)],
)  # fmt: skip
def test_it_knows_which_models_can_be_used(change: dict[str, object], available: bool) -> None:
    snapshot = make_snapshot(replace(A, **change))  # type: ignore[arg-type]
    assert [entry.available for entry in build_catalogue(snapshot, "proxy", make_view())] == [available] * 2
    demoted = make_view(demoted={A.id: NOW})
    assert not any(entry.available for entry in build_catalogue(snapshot, "proxy", demoted))


def test_it_writes_openais_list() -> None:
    entries = build_catalogue(make_snapshot(A), "proxy", make_view())
    assert openai_list(entries) == {
        "object": "list",
        "data": [
            {"id": "llama3:latest", "object": "model", "created": 1_700_000_000, "owned_by": "meta",
            "permission": [],
             "root": "llama3:latest", "parent": None},
            {"id": "zephyr", "object": "model", "created": 0, "owned_by": "olla", "permission": [],
            "root": "zephyr",
             "parent": None},
        ],
    }  # fmt: skip


def test_it_writes_ollamas_tags() -> None:
    first, second = ollama_tags(build_catalogue(make_snapshot(A), "ollama", make_view()))["models"]
    assert first == {
        "name": "llama3:latest", "model": "llama3:latest", "modified_at": "2023-11-14T22:13:20Z", "size": 42,
        "digest": "sha256:ab",
        "details": {
            "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "8B",
            "quantization_level": "Q4_0",
        },
    }  # fmt: skip
    assert second["modified_at"] == "1970-01-01T00:00:00Z"
    assert second["size"] == 0
    assert second["details"]["families"] is None


DIGEST = "0123456789abcdef" * 4
OLLAMA = make_endpoint(
    "o",
    models=[
        ListedModel(
            "llama3.1:8b", digest=DIGEST, size_bytes=4_920_753_328, family="llama", parameter_size="8.0B",
            quantization="Q4_K_M", context_length=131072, capabilities=("chat", "tools"), state="loaded",
            modified_at=1_700_000_000.0, file_format="gguf",
        ),
        ListedModel("nomic-embed-text:latest", capabilities=("embeddings",)),
    ],
    priority=200,
)  # fmt: skip
STUDIO = make_endpoint("s", "lm-studio", models=[ListedModel("meta-llama-3.1-8b-instruct", owner="lmstudio")])
VLLM = make_endpoint("v", "vllm", models=["meta-llama/Llama-3.1-8B-Instruct"], status=Status.OFFLINE)
ALIAS = Alias(
    "llama-8b", ("llama3.1:8b", "meta-llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"), one_model=True
)
FLEET = build_snapshot(1, NOW, [OLLAMA, STUDIO, VLLM], [ALIAS])


def test_it_writes_the_unified_list_with_where_each_model_is() -> None:
    embed, llama = unified_list(build_unified(FLEET, make_view()), NOW)["data"][::-1]
    assert llama == {
        "id": "llama-8b", "object": "model", "owned_by": "olla", "created": 1_700_000_000,
        "olla": {
            "family": "llama", "variant": "", "parameter_size": "8b", "quantization": "q4km", "type": "llm",
            "aliases": ["llama3.1:8b", "meta-llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"],
            "availability": [
                {"endpoint": "o", "type": "ollama", "name": "llama3.1:8b", "status": "healthy", "state": "loaded"},
                {"endpoint": "s", "type": "lm-studio", "name": "meta-llama-3.1-8b-instruct", "status": "healthy",
                 "state": "available"},
                {"endpoint": "v", "type": "vllm", "name": "meta-llama/Llama-3.1-8B-Instruct", "status": "offline",
                 "state": "unavailable"},
            ],
            "capabilities": ["chat", "tools"], "max_context_length": 131072,
        },
    }  # fmt: skip
    assert embed["id"] == "nomic-embed-text:latest"
    assert "max_context_length" not in embed["olla"]


@pytest.mark.parametrize(("now", "usable"), [(NOW - 1, True), (NOW, False), (NOW + 60, True)])
def test_it_calls_no_model_available_in_a_window_of_maintenance(now: float, usable: bool) -> None:
    kept = make_endpoint("w", models=[ListedModel("m", state="loaded")], maintenance=(NOW, NOW + 60))
    snapshot, view = make_snapshot(kept), make_view(now=now, prober_seen=now)
    entry = build_catalogue(snapshot, "proxy", view)[0]
    assert entry.available is usable
    item = unified_item(build_unified(snapshot, view)[0], now)
    assert item["olla"]["availability"][0]["state"] == ("loaded" if usable else "unavailable")
    assert item["loaded_endpoints"] == (["w"] if usable else [])


def test_it_tells_all_of_one_model() -> None:
    entries = build_unified(FLEET, make_view())
    for name in ("LLAMA-8b", "llama3.1:8b", "meta-llama/llama-3.1-8b-instruct"):
        assert find_entry(entries, name) is entries[0]
    item = unified_item(entries[0], NOW)
    assert item["endpoints"] == ["o", "s", "v"]
    assert item["loaded_endpoints"] == ["o"]
    assert (item["parameter_count"], item["total_disk_size"]) == (8_000_000_000, "4.58 GB")
    assert find_entry(entries, "nomic-embed-text") is entries[1]
    assert find_entry(entries, "nobody") is None


def test_it_lists_an_alias_of_different_models_beside_them() -> None:
    snapshot = build_snapshot(1, NOW, [OLLAMA, STUDIO], [Alias("any", ("llama3.1:8b", "nomic-embed-text"))])
    assert [entry.name for entry in build_unified(snapshot, make_view())] == [
        "any", "llama3.1:8b", "meta-llama-3.1-8b-instruct", "nomic-embed-text:latest",
    ]  # fmt: skip


def ids(query: dict[str, str]) -> list[str]:
    return [e.name for e in choose_entries(build_unified(FLEET, make_view()), parse_query(query))]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["llama-8b", "nomic-embed-text:latest"]), ({"type": "llm"}, ["llama-8b"]),
        ({"type": "embeddings"}, ["nomic-embed-text:latest"]), ({"type": "vlm"}, []),
        ({"capability": "embedding"}, ["nomic-embed-text:latest"]),
        ({"capability": "function_calling"}, ["llama-8b"]),
        ({"family": "LLAMA"}, ["llama-8b"]), ({"endpoint": "s"}, ["llama-8b"]), ({"endpoint": "nobody"}, []),
        ({"endpoint": "o", "type": "embeddings"}, ["nomic-embed-text:latest"]),
        ({"available": "true"}, ["llama-8b", "nomic-embed-text:latest"]), ({"available": "false"}, []),
    ],
)  # fmt: skip
def test_it_filters(query: dict[str, str], expected: list[str]) -> None:
    assert ids(query) == expected


def test_it_hides_what_cannot_be_used_unless_told() -> None:
    entries = build_unified(make_snapshot(VLLM, STUDIO), make_view())
    shown = {
        key: [e.name for e in choose_entries(entries, parse_query(dict([key.split("=")] if key else [])))]
        for key in ("", "include_unavailable=true", "include_unavailable=1", "available=false")
    }
    assert shown == {
        "": ["meta-llama-3.1-8b-instruct"],
        "include_unavailable=true": ["meta-llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"],
        "include_unavailable=1": ["meta-llama-3.1-8b-instruct"],
        "available=false": ["meta-llama/Llama-3.1-8B-Instruct"],
    }


def test_it_tells_guesses_apart_and_filters_by_them() -> None:
    models = [
        ListedModel("org/Llama-3.1-8B-Vision-Instruct"), ListedModel("told-vision", capabilities=("tools",)),
        ListedModel("plain"),
    ]  # fmt: skip
    snapshot = build_snapshot(1, 0.0, [make_endpoint("a", "vllm", models=models)])
    entries = build_unified(snapshot, make_view())
    by_id = {each["id"]: each["olla"] for each in unified_list(entries, 0.0)["data"]}
    guessed = by_id["org/Llama-3.1-8B-Vision-Instruct"]
    assert (guessed["capabilities"], guessed.get("max_context_length")) == ([], None)
    assert guessed["guessed"] == {"capabilities": ["chat", "vision"], "max_context_length": 131072}
    assert [name for name, each in by_id.items() if "guessed" in each] == ["org/Llama-3.1-8B-Vision-Instruct"]
    chosen = choose_entries(entries, parse_query({"capability": "vision"}))
    assert [entry.name for entry in chosen] == ["org/Llama-3.1-8B-Vision-Instruct"]
    # Clients that read other shapes take what is there for told.
    assert [each["max_model_len"] for each in vllm(entries)["data"]] == [None] * 3


@pytest.mark.parametrize("query", [{"format": "xml"}, {"type": "x"}, {"capability": "x"}, {"available": "yes"}])
def test_it_refuses_values_that_mean_nothing(query: dict[str, str]) -> None:
    with pytest.raises(OllaError) as raised:
        parse_query(query)
    assert raised.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("format_name", "names"),
    [
        ("openai", ["llama-8b", "nomic-embed-text:latest"]),
        ("ollama", ["llama3.1:8b", "nomic-embed-text:latest"]),
        ("lm-studio", ["meta-llama-3.1-8b-instruct"]),
        ("LMSTUDIO", ["meta-llama-3.1-8b-instruct"]),
        ("vllm", ["meta-llama/Llama-3.1-8B-Instruct", "nomic-embed-text:latest"]),
    ],
)
def test_it_writes_each_model_under_its_name_at_the_kind(format_name: str, names: list[str]) -> None:
    query = parse_query({"format": format_name})
    document = write_models(build_unified(FLEET, make_view()), query, make_view(), NOW)
    items = document.get("data") or document["models"]
    assert [each.get("id") or each["name"] for each in items] == names


@pytest.mark.parametrize("format_name", sorted(FORMATS))
def test_it_writes_every_format(format_name: str) -> None:
    document = FORMATS[format_name](build_unified(FLEET, make_view()))
    items = document.get("data") or document["models"]
    assert len(items) == 2
    if format_name != "ollama":
        assert all(each["object"] == "model" for each in items)


def test_it_writes_lm_studios_lists() -> None:
    entries = build_catalogue(make_snapshot(OLLAMA), "proxy", make_view())
    assert lm_studio_v0(entries)["data"][0] == {
        "id": "llama3.1:8b", "object": "model", "type": "llm", "publisher": "meta", "arch": "llama",
        "compatibility_type": "gguf", "quantization": "Q4_K_M", "state": "loaded", "max_context_length": 131072,
        "capabilities": ["tool_use"],
    }  # fmt: skip
    first, second = lm_studio_v1(entries)["models"]
    assert first == {
        "type": "llm", "publisher": "meta", "key": "llama3.1:8b", "display_name": "llama3.1:8b",
        "architecture": "llama", "quantization": {"name": "Q4_K_M", "bits_per_weight": None},
        "size_bytes": 4_920_753_328, "params_string": "8B",
        "loaded_instances": [{"id": "llama3.1:8b", "config": {"context_length": 131072}}],
        "max_context_length": 131072, "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": True}, "description": None,
    }  # fmt: skip
    assert second["type"] == "embedding"
    assert second.keys().isdisjoint({"capabilities", "architecture", "description"})


def test_it_tells_the_context_a_model_was_loaded_with() -> None:
    model = ListedModel("m", state="loaded", context_length=32768, memory_context=4096)
    entries = build_catalogue(
        make_snapshot(make_endpoint("l", "lm-studio", models=[model])), "lmstudio", make_view()
    )
    assert lm_studio_v0(entries)["data"][0]["loaded_context_length"] == 4096
    [listed] = lm_studio_v1(entries)["models"]
    assert listed["loaded_instances"] == [{"id": "m", "config": {"context_length": 4096}}]


def test_it_writes_lemonades_and_dockers_lists() -> None:
    model = ListedModel(
        "Qwen3", owner="unsloth", checkpoint="unsloth/Qwen3-GGUF", recipe="llamacpp",
        capabilities=("chat", "tools"), modified_at=7.5, size_bytes=381_000_000, context_length=40960,
    )  # fmt: skip
    entries = build_catalogue(
        make_snapshot(make_endpoint("l", "lemonade", models=[model])), "lemonade", make_view()
    )
    assert lemonade(entries)["data"] == [
        {"id": "Qwen3", "object": "model", "created": 7, "owned_by": "unsloth", "checkpoint": "unsloth/Qwen3-GGUF",
         "recipe": "llamacpp", "size": 0.38, "max_context_window": 40960, "downloaded": True, "suggested": False,
         "labels": ["tool-calling"]}
    ]  # fmt: skip
    assert docker_model_runner(entries) == {
        "object": "list", "data": [{"id": "Qwen3", "object": "model", "created": 7, "owned_by": "docker"}],
    }  # fmt: skip
