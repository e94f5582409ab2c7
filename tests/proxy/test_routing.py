"""Who may answer a request, who never may, and what is said when nobody can."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import ROUTABLE, OperatorState, Status
from endpoints.profiles import PREFIXES, PROFILES, prefix_accepts
from endpoints.rules import Condition, ConditionField, Operator, Rule, RuleAction
from endpoints.snapshot import EMPTY, UNIVERSAL, EndpointRecord, build_snapshot
from proxy.errors import ErrorCode
from proxy.guards import is_guarded
from proxy.routing import Action, Decision, route
from proxy.sieve import DropReason, is_usable
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_snapshot, make_view

A = make_endpoint("a", "ollama", models=["llama3:latest", "qwen3:8b"])
B = make_endpoint("b", "vllm", models=["Qwen/Qwen3-8B", "llama3"])
C = make_endpoint("c", "openai-compatible", models=["gpt-4o"])


def down(endpoint: EndpointRecord, status: Status = Status.OFFLINE) -> EndpointRecord:
    return replace(endpoint, status=status)


def names(decision: Decision) -> list[str]:
    return [each.name for each in decision.candidates]


def decide(*endpoints: EndpointRecord, target: str = "/v1/chat/completions", **request: object) -> Decision:
    return route(make_snapshot(*endpoints), make_inbound(target, **request), make_view())  # type: ignore[arg-type]


# Models


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("llama3", ["a", "b"]), ("llama3:latest", ["a", "b"]), ("LLAMA3", ["a", "b"]), ("qwen/qwen3-8b", ["b"]),
        ("QWEN3:8B", ["a"]), ("gpt-4o", ["c"]), ("  gpt-4o ", ["c"]),
    ],
)  # fmt: skip
def test_it_takes_every_endpoint_that_has_the_model(model: str, expected: list[str]) -> None:
    decision = decide(A, B, C, model=model)
    assert names(decision) == expected
    assert (decision.action, decision.strategy, decision.reason) == (Action.ROUTED, "strict", "model_found")


@pytest.mark.parametrize("model", ["gpt-5", "llama3:8b", "qwen3", "llama", ":latest", "latest"])
def test_it_rejects_a_model_nobody_has(model: str) -> None:
    decision = decide(A, B, C, model=model)
    assert decision.action is Action.REJECTED
    assert (decision.code, decision.reason) == (ErrorCode.MODEL_NOT_FOUND, "model_not_found")
    assert "/olla/proxy/v1/models" in decision.message


@pytest.mark.parametrize("status", sorted(set(Status) - ROUTABLE))
def test_it_says_unavailable_when_all_that_have_the_model_are_down(status: Status) -> None:
    decision = decide(down(A, status), down(B, status), C, model="llama3")
    assert (decision.code, decision.reason) == (ErrorCode.MODEL_UNAVAILABLE, "model_unavailable")


def test_it_says_not_found_for_an_unknown_model_even_when_all_are_down() -> None:
    assert decide(down(A), down(B), model="gpt-5").code is ErrorCode.MODEL_NOT_FOUND


def test_it_says_no_healthy_endpoints_when_nothing_was_ever_learnt() -> None:
    decision = decide(down(make_endpoint("new", status=Status.UNKNOWN)), model="llama3")
    assert (decision.code, decision.reason) == (ErrorCode.NO_HEALTHY_ENDPOINTS, "no_healthy_endpoints")
    assert decide(make_endpoint("new"), model="llama3").code is ErrorCode.MODEL_NOT_FOUND


def test_it_keeps_a_provider_route_to_its_kind() -> None:
    assert names(decide(A, B, model="llama3", prefix="ollama")) == ["a"]
    assert names(decide(A, B, model="llama3", prefix="vllm")) == ["b"]
    assert names(decide(A, B, model="llama3", prefix="openai")) == ["a", "b"]
    assert decide(down(A), B, model="llama3", prefix="ollama").code is ErrorCode.MODEL_UNAVAILABLE
    assert decide(A, B, model="gpt-4o", prefix="vllm").code is ErrorCode.MODEL_NOT_FOUND


def test_it_shortens_a_model_name_in_messages() -> None:
    assert len(decide(A, model="m" * 5000).message) < 400


# Without a model


def test_it_takes_every_endpoint_of_the_prefix_without_a_model() -> None:
    assert names(decide(A, B, C, target="/v1/models", method="GET")) == ["a", "b", "c"]
    decision = decide(A, B, C, target="/api/ps", method="GET", prefix="ollama")
    assert (names(decision), decision.strategy, decision.reason) == (["a"], "", "")


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/api/ps", ["a"]), ("/tokenize", ["b"]), ("/base/v1/api/ps", ["a"]), ("/v1/images/generations", ["c"]),
     ("/nobody/knows", ["a", "b", "c"])],
)  # fmt: skip
def test_it_picks_kinds_that_know_the_path_and_widens_when_none_does(target: str, expected: list[str]) -> None:
    assert names(decide(A, B, C, target=target)) == expected


def test_it_does_not_widen_to_other_kinds_when_the_right_one_is_down() -> None:
    assert decide(down(A), B, C, target="/api/ps", method="GET").code is ErrorCode.NO_HEALTHY_ENDPOINTS


def test_it_narrows_the_holders_of_a_model_by_the_path_too() -> None:
    assert names(decide(A, B, target="/tokenize", model="llama3")) == ["b"]
    assert names(decide(A, B, target="/api/chat", model="llama3")) == ["a"]


@pytest.mark.parametrize("prefix", [UNIVERSAL, *PREFIXES])
def test_it_says_404_when_nothing_of_the_kind_is_configured(prefix: str) -> None:
    for snapshot in (EMPTY, make_snapshot()):
        decision = route(snapshot, make_inbound(prefix=prefix), make_view())
        assert (decision.action, decision.code) == (Action.REJECTED, ErrorCode.NO_ENDPOINTS)


@pytest.mark.parametrize("prefix", [UNIVERSAL, "ollama"])
def test_it_says_503_when_all_of_the_kind_are_down(prefix: str) -> None:
    fleet = [down(make_endpoint(f"e{number}")) for number in range(9)]
    decision = decide(*fleet, target="/api/ps", method="GET", prefix=prefix)
    assert decision.code is ErrorCode.NO_HEALTHY_ENDPOINTS
    kind = "Ollama " if prefix == "ollama" else ""
    assert decision.message == f"None of the 9 {kind}endpoints can take requests now: 9 offline."


def test_it_tells_a_client_how_many_are_out_and_why_but_names_nobody() -> None:
    fleet = [
        make_endpoint("secret-1", id=1, status=Status.RATE_LIMITED),
        make_endpoint("secret-2", id=2, state=OperatorState.DRAINING),
        make_endpoint("secret-3", id=3, maintenance=(NOW - 1, NOW + 1)),
        make_endpoint("secret-4", id=4),
        make_endpoint("secret-5", id=5),
        make_endpoint("secret-6", id=6),
    ]
    held = {5: DropReason.BREAKER_OPEN, 6: DropReason.RESTING}
    view = make_view(demoted={4: NOW}, held_out=held)
    decision = route(make_snapshot(*fleet), make_inbound("/api/ps", method="GET"), view)
    assert decision.code is ErrorCode.NO_HEALTHY_ENDPOINTS
    assert decision.message == (
        "None of the 6 endpoints can take requests now: "
        "1 asked for a rest, 1 draining, 2 failing, 1 in maintenance, 1 rate limited."
    )


# States


@pytest.mark.parametrize("state", sorted(set(OperatorState) - {OperatorState.ACTIVE}))
def test_it_sends_nothing_to_an_endpoint_the_operator_took_out(state: OperatorState) -> None:
    assert decide(replace(A, state=state), target="/api/ps").code is ErrorCode.NO_HEALTHY_ENDPOINTS


@pytest.mark.parametrize(
    ("checked", "seen", "usable"), [(10, 20, False), (20, 20, False), (21, 20, True), (None, 20, False),
    (None, None, True)]
)  # fmt: skip
def test_it_believes_a_failure_seen_here_until_a_newer_check(
    checked: float | None, seen: float | None, usable: bool
) -> None:
    endpoint = replace(A, last_checked=checked)
    view = make_view(demoted={A.id: seen} if seen is not None else {})
    assert is_usable(endpoint, view) is usable


def test_it_sends_nothing_to_a_demoted_endpoint() -> None:
    view = make_view(demoted={A.id: NOW})
    decision = route(make_snapshot(A, B), make_inbound(model="llama3"), view)
    assert names(decision) == ["b"]


@pytest.mark.parametrize(
    ("overdue", "prober_gone", "stale"),
    [(16, 16, True), (14, 16, False), (16, 14, False), (1000, 1000, True), (-5, 1000, False)],
)
def test_it_tries_an_endpoint_of_stale_status_last(overdue: float, prober_gone: float, stale: bool) -> None:
    old = replace(A, next_check=NOW - overdue)
    view = make_view(prober_seen=NOW - prober_gone)
    decision = route(make_snapshot(old, B), make_inbound(model="llama3"), view)
    tiers = [[each.name for each in tier] for tier in decision.tiers]
    assert tiers == ([["b"], ["a"]] if stale else [["a", "b"]])


def test_it_tries_stale_endpoints_when_there_are_no_others() -> None:
    old = replace(A, next_check=NOW - 99)
    assert names(route(make_snapshot(old), make_inbound(model="llama3"), make_view(prober_seen=0))) == ["a"]


def test_it_never_tries_a_stale_endpoint_that_was_down() -> None:
    old = replace(A, next_check=NOW - 9999, status=Status.OFFLINE)
    decision = route(make_snapshot(old), make_inbound(model="llama3"), make_view(prober_seen=0))
    assert decision.code is ErrorCode.MODEL_UNAVAILABLE


# Guards


def test_it_refuses_what_every_endpoint_guards() -> None:
    for model in (None, "llama3", "unknown"):
        decision = decide(A, target="/api/pull", model=model)
        assert decision.code is ErrorCode.NOT_SUPPORTED
        assert "OLLA_OPEN_GUARDED_PATHS=ollama" in decision.message
    assert decide(B, target="/sleep").code is ErrorCode.FORBIDDEN_PATH


def test_it_refuses_what_the_holders_of_the_model_guard() -> None:
    assert decide(A, B, target="/api/pull", model="qwen3:8b").code is ErrorCode.NOT_SUPPORTED


def test_it_leaves_guarded_endpoints_out() -> None:
    assert names(decide(A, B, target="/api/pull")) == ["b"]
    assert names(decide(A, B, target="/sleep", model="llama3")) == ["a"]


@pytest.mark.parametrize("opened", [("ollama",), ("*",)])
def test_it_routes_guarded_paths_an_operator_opened(opened: tuple[str, ...]) -> None:
    decision = route(make_snapshot(A), make_inbound("/api/pull"), make_view(opened_guards=opened))
    assert names(decision) == ["a"]


@pytest.mark.parametrize(("preserve", "expected"), [(True, ErrorCode.NOT_SUPPORTED), (False, None)])
def test_it_judges_the_path_that_will_be_sent(preserve: bool, expected: ErrorCode | None) -> None:
    endpoint = make_endpoint(url="http://gpu.local/api", preserve_path=preserve)
    assert decide(endpoint, target="/pull").code is expected
    assert decide(endpoint, target="/api/pull").code is ErrorCode.NOT_SUPPORTED


@pytest.mark.parametrize(
    "target",
    ["/v1/images/generations", "//v1//images/generations", "/V1/Images/x", "/v1%2fimages/x", "/v1;a/images/x"],
)
def test_it_applies_a_rule_to_a_path_in_every_spelling(target: str) -> None:
    no_images = Condition(ConditionField.PATH, Operator.GLOB, "/v1/images/*")
    snapshot = build_snapshot(1, NOW, [C], rules=[Rule("no images", RuleAction.REJECT, (no_images,))])
    assert route(snapshot, make_inbound(target), make_view()).code is ErrorCode.FORBIDDEN_BY_RULE
    assert route(snapshot, make_inbound("/v1/embeddings"), make_view()).action is Action.ROUTED


def test_it_says_who_is_full_when_all_have_used_up_their_minute() -> None:
    view = make_view(held_out={A.id: DropReason.RATE_LIMITED})
    for model in (None, "llama3"):
        decision = route(make_snapshot(A), make_inbound("/api/chat", model=model), view)
        assert decision.code is ErrorCode.RATE_LIMITED


# Everything at once

MODELS = ["llama3", "llama3:latest", "Qwen/Qwen3", "qwen/qwen3", "gpt-4o"]
TARGETS = [
    "/v1/chat/completions",
    "/api/chat",
    "/api/pull",
    "/sleep",
    "/key/generate",
    "/x",
    "/v1/models",
    "/slots/1",
]
fleets = st.lists(
    st.builds(
        make_endpoint,
        name=st.sampled_from("abcdef"),
        kind=st.sampled_from(sorted(PROFILES)),
        id=st.integers(1, 6),
        models=st.lists(st.sampled_from(MODELS), max_size=3),
        status=st.sampled_from(list(Status)),
        state=st.sampled_from(list(OperatorState)),
        priority=st.integers(0, 2),
        next_check=st.sampled_from([NOW - 60, NOW + 5]),
        last_checked=st.sampled_from([None, NOW - 10, NOW - 1]),
        uses_own_key=st.booleans(),
        url=st.sampled_from(["http://h.local", "http://h.local/api", "http://h.local/base/v1"]),
        preserve_path=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda each: each.id,
)


@given(
    fleets, st.sampled_from([UNIVERSAL, *PREFIXES]), st.sampled_from(TARGETS),
    st.none() | st.sampled_from([*MODELS, "LLAMA3", "other"]), st.sampled_from(["GET", "POST", "DELETE"]),
    st.dictionaries(st.integers(1, 6), st.sampled_from([NOW - 20, NOW - 5, NOW])),
    st.sampled_from([NOW - 60, NOW]),
)  # fmt: skip
def test_it_never_returns_an_endpoint_that_may_not_answer(
    fleet: list[EndpointRecord],
    prefix: str,
    target: str,
    model: str | None,
    method: str,
    demoted: dict[int, float],
    prober_seen: float,
) -> None:
    snapshot, view = make_snapshot(*fleet), make_view(demoted=demoted, prober_seen=prober_seen)
    inbound = make_inbound(target, prefix=prefix, model=model, method=method)
    decision = route(snapshot, inbound, view)
    chosen = decision.candidates
    assert bool(chosen) is (decision.action is Action.ROUTED)
    assert (decision.code is None) is (decision.action is Action.ROUTED)
    for each in chosen:
        assert each.status in ROUTABLE
        assert each.state is OperatorState.ACTIVE
        assert each.id not in demoted or (each.last_checked or 0) > demoted[each.id]
        assert prefix == UNIVERSAL or prefix_accepts(PREFIXES[prefix], each.backend_type)
        assert model is None or model.casefold() in each.model_names
        assert not is_guarded(each.profile, method, inbound.path, own_key=each.uses_own_key)
    for tier in decision.tiers:
        assert len({each.is_stale(view.now, view.prober_seen) for each in tier}) == 1
        assert [each.id for each in tier] == [each.id for each in snapshot.endpoints if each in tier]
    if prefix == UNIVERSAL and not fleet:
        assert decision.code is ErrorCode.NO_ENDPOINTS
