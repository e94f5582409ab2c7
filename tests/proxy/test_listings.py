"""Model lists, field by field, as the clients of each API read them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from endpoints.health import OperatorState, Status
from endpoints.snapshot import ListedModel
from proxy.listings import build_catalogue, ollama_tags, openai_list, unified_list
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


def test_it_writes_the_unified_list_with_where_each_model_is() -> None:
    entries = build_catalogue(make_snapshot(A, replace(B, status=Status.OFFLINE)), "proxy", make_view())
    first, second = unified_list(entries, NOW)["data"]
    assert first == {
        "id": "llama3:latest", "object": "model", "owned_by": "olla", "created": 1_700_000_000,
        "olla": {
            "family": "llama", "parameter_size": "8B", "quantization": "Q4_0",
            "aliases": ["LLAMA3:LATEST", "llama3:latest"],
            "availability": [
                {"endpoint": "a", "type": "ollama", "status": "healthy", "state": "available"},
                {"endpoint": "b", "type": "vllm", "status": "offline", "state": "unavailable"},
            ],
            "capabilities": ["chat", "tools", "vision"], "max_context_length": 8192,
        },
    }  # fmt: skip
    assert second["created"] == int(NOW)
    assert "max_context_length" not in second["olla"]


def test_it_shows_a_models_own_state_while_its_endpoint_is_up() -> None:
    (entry,) = unified_list(build_catalogue(make_snapshot(B), "proxy", make_view()), NOW)["data"]
    assert entry["olla"]["availability"][0]["state"] == "loaded"
