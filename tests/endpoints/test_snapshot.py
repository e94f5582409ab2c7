"""The snapshot prepares what routing asks, once and in a stable order."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from endpoints.health import OperatorState, Status
from endpoints.profiles import PREFIXES
from endpoints.snapshot import (
    EMPTY,
    UNIVERSAL,
    Alias,
    ListedModel,
    Snapshot,
    build_snapshot,
    fold_model,
    fold_names,
)
from tests.proxy.builders import NOW, make_endpoint, make_snapshot


def test_it_orders_endpoints_by_priority_then_name_whatever_order_they_come_in() -> None:
    fleet = [
        make_endpoint("b", id=1), make_endpoint("a", id=2), make_endpoint("z", id=3, priority=200),
        make_endpoint("a", id=4, priority=50),
    ]  # fmt: skip
    for _ in range(5):
        random.shuffle(fleet)
        assert [each.id for each in make_snapshot(*fleet).endpoints] == [3, 2, 1, 4]


def test_it_prepares_the_endpoints_of_every_prefix() -> None:
    ollama, vllm = make_endpoint("o", "ollama", id=1), make_endpoint("v", "vllm", id=2, status=Status.OFFLINE)
    snapshot = make_snapshot(ollama, vllm)
    assert set(snapshot.by_prefix) >= {UNIVERSAL, *PREFIXES}
    assert snapshot.by_prefix[UNIVERSAL] == (ollama, vllm)
    assert snapshot.by_prefix["openai"] == (ollama, vllm)
    assert snapshot.by_prefix["ollama"] == (ollama,)
    assert snapshot.by_prefix["vllm"] == (vllm,)
    assert snapshot.by_prefix["sglang"] == ()
    assert snapshot.by_id == {1: ollama, 2: vllm}


def test_it_prepares_the_endpoints_of_every_model() -> None:
    one = make_endpoint("one", "ollama", models=["Llama3:latest", "x"])
    two = make_endpoint("two", "vllm", models=["llama3"], status=Status.OFFLINE)
    snapshot = make_snapshot(one, two)
    assert holders(snapshot, UNIVERSAL, "llama3") == {"one": "Llama3:latest", "two": "llama3"}
    assert holders(snapshot, UNIVERSAL, "llama3:latest") == {"one": "Llama3:latest", "two": "llama3"}
    assert holders(snapshot, "vllm", "llama3") == {"two": "llama3"}
    assert ("vllm", "x") not in snapshot.by_model


def holders(snapshot: Snapshot, prefix: str, name: str) -> dict[str, str]:
    """The endpoints a name reaches, each with the name it would be sent."""
    return {each.name: each.model_names[name] for each in snapshot.by_model.get((prefix, name), ())}


def test_it_reaches_one_model_by_each_of_its_names() -> None:
    digest = "0123456789abcdef" * 4
    fleet = [
        make_endpoint("a", models=[ListedModel("llama3.1:8b", digest=digest), "other"]),
        make_endpoint("b", models=[ListedModel("mine:latest", digest=digest)]),
        make_endpoint("c", "vllm", models=["meta-llama/Llama-3.1-8B-Instruct"]),
    ]
    natives = {"a": "llama3.1:8b", "b": "mine:latest"}
    plain = build_snapshot(1, NOW, fleet)
    for name in ("llama3.1:8b", "mine:latest", "mine"):
        assert holders(plain, UNIVERSAL, name) == natives
    assert holders(plain, UNIVERSAL, "meta-llama/llama-3.1-8b-instruct").keys() == {"c"}
    alias = Alias("llama-8b", ("llama3.1:8b", "meta-llama/Llama-3.1-8B-Instruct"), one_model=True)
    joined = build_snapshot(1, NOW, fleet, [alias])
    for name in ("llama3.1:8b", "mine", "meta-llama/llama-3.1-8b-instruct", "llama-8b"):
        assert holders(joined, UNIVERSAL, name) == {**natives, "c": "meta-llama/Llama-3.1-8B-Instruct"}
    assert holders(joined, "ollama", "meta-llama/llama-3.1-8b-instruct") == natives
    assert [model.id for model in joined.catalogue.models] == ["llama-8b", "other"]


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ([], {}),
        (["A:8b"], {"a:8b": "A:8b"}),
        (["Llama3:latest"], {"llama3:latest": "Llama3:latest", "llama3": "Llama3:latest"}),
        (["llama3:latest", "llama3"], {"llama3:latest": "llama3:latest", "llama3": "llama3"}),
        (["llama3", "LLAMA3:LATEST"], {"llama3:latest": "LLAMA3:LATEST", "llama3": "llama3"}),
        (["X", "x"], {"x": "X"}),
    ],
)
def test_it_reaches_models_without_case_and_without_the_implied_tag(
    listed: list[str], names: dict[str, str]
) -> None:
    assert dict(fold_names(ListedModel(name) for name in listed)) == names


def test_it_folds_names() -> None:
    assert fold_model("  Qwen/Qwen3 ") == "qwen/qwen3"


def test_it_finds_aliases_without_case() -> None:
    alias = Alias("Fast", ("a", "b"))
    assert build_snapshot(1, NOW, [], [alias]).aliases["fast"] is alias


@pytest.mark.parametrize(
    ("state", "status", "accepts"),
    [
        (OperatorState.ACTIVE, Status.HEALTHY, True), (OperatorState.ACTIVE, Status.BUSY, True),
        (OperatorState.ACTIVE, Status.WARMING, True), (OperatorState.ACTIVE, Status.UNKNOWN, False),
        (OperatorState.ACTIVE, Status.RATE_LIMITED, False), (OperatorState.ACTIVE, Status.CONFIG_ERROR, False),
        (OperatorState.DRAINING, Status.HEALTHY, False), (OperatorState.DISABLED, Status.HEALTHY, False),
        (OperatorState.MAINTENANCE, Status.HEALTHY, False),
    ],
)  # fmt: skip
def test_it_takes_traffic_by_status_and_state(state: OperatorState, status: Status, accepts: bool) -> None:
    assert make_endpoint(state=state, status=status).takes_traffic(NOW) is accepts


@pytest.mark.parametrize(("now", "takes"), [(NOW - 1, True), (NOW, False), (NOW + 59, False), (NOW + 60, True)])
def test_it_takes_no_traffic_within_its_window(now: float, takes: bool) -> None:
    endpoint = make_endpoint(maintenance=(NOW, NOW + 60))
    assert endpoint.takes_traffic(now) is takes
    snapshot = make_snapshot(endpoint, make_endpoint("always"))
    assert snapshot.windowed == (endpoint,)


@pytest.mark.parametrize(
    ("next_check", "prober_seen", "stale"),
    [(-15.1, -15.1, True), (-15, -15, False), (-100, -1, False), (60, -1000, False), (-1000, 0, False)],
)
def test_it_is_stale_when_check_and_prober_are_both_long_gone(
    next_check: float, prober_seen: float, stale: bool
) -> None:
    endpoint = make_endpoint(next_check=NOW + next_check, check_interval=5.0)
    assert endpoint.is_stale(NOW, NOW + prober_seen) is stale


def test_it_cannot_be_changed() -> None:
    snapshot: Any = make_snapshot(make_endpoint())
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.endpoints = ()
    for mapping in (snapshot.by_prefix, snapshot.by_model, snapshot.by_id, snapshot.aliases):
        with pytest.raises(TypeError):
            mapping["x"] = ()


def test_it_starts_empty() -> None:
    assert EMPTY.endpoints == ()
    assert EMPTY.by_prefix.get(UNIVERSAL, ()) == ()
