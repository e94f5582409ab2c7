"""Lists put together from kept parts say the same as lists written anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from endpoints.listed import ListedModel
from endpoints.snapshot import Alias, build_snapshot
from proxy.list_parts import LocalList
from proxy.listings import CatalogueEntry, openai_list
from proxy.model_query import choose_entries, parse_query, write_models
from proxy.native_lists import FORMATS
from proxy.sieve import DropReason
from proxy.unified_list import build_unified
from tests.proxy.builders import NOW, make_endpoint, make_view

SAME = "0123456789abcdef" * 4
ENDPOINTS = [
    make_endpoint("a", models=[ListedModel("llama:8b", digest=SAME, state="loaded"), "nomic-embed-text"]),
    make_endpoint("b", "lm-studio", models=[ListedModel("org/llama", digest=SAME), "qwen2-vl"]),
    make_endpoint("c", "vllm", models=["org/only"]),
]
SNAPSHOT = build_snapshot(1, NOW, ENDPOINTS, [Alias("fast", ("llama:8b", "org/only"))])
VIEWS = [make_view(), make_view(held_out={ENDPOINTS[0].id: DropReason.RESTING}), make_view()]


@pytest.mark.parametrize("format_name", ["unified", *FORMATS])
def test_it_writes_what_would_be_written_anew_whoever_is_out(format_name: str) -> None:
    query = parse_query({"format": format_name, "include_unavailable": "true"})
    for view in VIEWS:
        entries = choose_entries(build_unified(SNAPSHOT, view), query)

        def write(some: Iterable[CatalogueEntry], view: Any = view) -> dict[str, Any]:
            return write_models(some, query, view, NOW)

        kept = LocalList(SNAPSHOT, f"models {format_name}", entries, write)
        assert msgspec.json.decode(kept.encode()) == write(entries)
        assert kept.count_missing() == 0


def test_it_writes_each_entry_once_a_snapshot() -> None:
    snapshot = build_snapshot(1, NOW, ENDPOINTS)
    written: list[str] = []

    def write(some: Iterable[CatalogueEntry]) -> dict[str, Any]:
        some = list(some)
        written.extend(entry.name for entry in some)
        return openai_list(some)

    entries = build_unified(snapshot, make_view())
    for _ in range(3):
        LocalList(snapshot, "openai", entries, write).encode()
    assert sorted(written) == sorted(entry.name for entry in entries)
