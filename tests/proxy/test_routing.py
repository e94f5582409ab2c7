"""Who may answer a request, who never may, and what is said when nobody can."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import ROUTABLE, OperatorState, Status
from endpoints.profiles import PREFIXES, PROFILES, prefix_accepts
from endpoints.rules import (
    RULE_STRATEGIES,
    Condition,
    ConditionField,
    Fallback,
    Operator,
    Rule,
    RuleAction,
    Strategy,
    choose_rule,
)
from endpoints.snapshot import EMPTY, UNIVERSAL, Alias, EndpointRecord, build_snapshot
from proxy.errors import ErrorCode
from proxy.guards import is_guarded
from proxy.routing import Action, Decision, Plan, Refresh, route, rule_facts
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
    [("/api/ps", ["a"]), ("/tokenize", ["b"]), ("/base/v1/api/ps", ["a"]), ("/v1/images/variations", ["c"]),
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
HELD = [DropReason.BREAKER_OPEN, DropReason.RESTING, DropReason.RATE_LIMITED]
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


# With rules and aliases

TAGS = ("red", "blue")
tags = st.frozensets(st.sampled_from(TAGS))
conditions = st.lists(
    st.sampled_from([
        Condition(ConditionField.MODEL, Operator.GLOB, "llama*"),
        Condition(ConditionField.HEADER, Operator.IS, "blue", "x-team"),
        Condition(ConditionField.HEADER, Operator.IS_NOT, "blue", "x-team"),
    ]),
    max_size=2,
).map(tuple)  # fmt: skip
a_rule = st.builds(
    Rule,
    name=st.sampled_from(["one", "two"]),
    action=st.sampled_from(list(RuleAction)),
    conditions=conditions,
    tags=tags,
    endpoint_ids=st.frozensets(st.integers(1, 6), max_size=2),
    model=st.sampled_from(["llama3", "fast", "nowhere"]),
    strategy=st.sampled_from(list(RULE_STRATEGIES)),
    fallback=st.sampled_from(["", *Fallback]),
    percentage=st.sampled_from([0, 1, 50, 99, 100]),
)
tagged_fleets = st.tuples(fleets, st.lists(tags, min_size=6, max_size=6)).map(
    lambda pair: [replace(each, tags=pair[1][number]) for number, each in enumerate(pair[0])]
)
an_alias = st.builds(
    Alias,
    name=st.sampled_from(["fast", "LLAMA3", "slow"]),
    targets=st.lists(st.sampled_from([*MODELS, "fast", "slow", "nowhere"]), max_size=3).map(tuple),
)
plans = st.builds(
    Plan,
    strategy=st.sampled_from(list(RULE_STRATEGIES)),
    fallback=st.sampled_from(list(Fallback)),
    refresh=st.sampled_from(list(Refresh)),
    loaded_first=st.booleans(),
)


@given(
    tagged_fleets, st.lists(a_rule, max_size=2), st.lists(an_alias, max_size=2),
    st.sampled_from([*MODELS, "LLAMA3", "fast", "Slow", "other"]),
    st.sampled_from([[], [(b"x-team", b"blue")], [(b"x-team", b"red"), (b"x-team", b"Blue")], [(b"x-team", b"")]]),
    plans, st.dictionaries(st.integers(1, 6), st.sampled_from(HELD)), st.sampled_from([0.0, 0.5, 0.999]),
)  # fmt: skip
def test_rules_and_aliases_let_nobody_answer_who_may_not(
    fleet: list[EndpointRecord],
    rules: list[Rule],
    aliases: list[Alias],
    model: str,
    headers: list[tuple[bytes, bytes]],
    plan: Plan,
    held: dict[int, DropReason],
    dice: float,
) -> None:
    snapshot = build_snapshot(1, NOW, fleet, aliases, rules)
    inbound = make_inbound(model=model, headers=headers)
    view = make_view(held_out=held, dice=dice)
    decision = route(snapshot, inbound, view, plan)
    rule = choose_rule(snapshot.rules, rule_facts(inbound))
    assert decision.rule is rule or decision.code is ErrorCode.NO_ENDPOINTS
    if rule is not None and rule.action is RuleAction.REJECT and fleet:
        assert decision.code is ErrorCode.FORBIDDEN_BY_RULE
    wanted = rule.model if rule is not None and rule.action is RuleAction.REWRITE_MODEL else model
    alias = snapshot.aliases.get(wanted.casefold())
    for each in decision.candidates:
        assert is_usable(each, view)
        if rule is not None and rule.action is RuleAction.RESTRICT:
            assert rule.names(each.id, each.tags)
        if decision.action is Action.FALLBACK:
            assert decision.sent_names == {}
            continue
        sent = decision.sent_names.get(each.id, model)
        assert sent in {listed.name for listed in each.models} or f"{sent}:latest" in each.model_names.values()
        if decision.strategy is Strategy.ALIAS:
            assert alias is not None
            has = [target for target in alias.targets if target.casefold() in each.model_names]
            # A name without its implied tag is left to the endpoint, which reads it the same.
            assert each.model_names[has[0].casefold()] in (sent, f"{sent}:latest")
        else:
            assert wanted.casefold() in each.model_names
    assert len({each.id for each in decision.candidates}) == len(decision.candidates)


# Names nobody tried


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        ("\u0130stanbul", "i\u0307stanbul", True),  # the Turkish capital I with a dot, as case folding writes it
        ("\u0130stanbul", "\u0130STANBUL", True), ("\u0130stanbul", "istanbul", False),
        ("stra\u00dfe", "STRASSE", True), ("STRASSE", "stra\u00dfe", True), ("stra\u00dfe", "strase", False),
        ("\uff51wen", "QWEN", False), ("\uff51wen", "\uff31WEN", True),  # full width is another letter
        ("\u212alm", "klm", True), ("m\u0301", "\u1e3f", False), ("model\u200b", "model", False),
        ("\ufb01n", "FIN", True), ("a:LATEST", "A", True), ("a b", "A  B", False), ("m\x00", "m", False),
    ],
)  # fmt: skip
def test_it_folds_letters_as_unicode_says_and_no_further(listed: str, asked: str, found: bool) -> None:
    decision = decide(make_endpoint(models=[listed]), model=asked)
    assert (decision.action is Action.ROUTED) is found
    if found and not listed.endswith("LATEST"):
        assert decision.sent_names.get(decision.candidates[0].id, asked) == listed


@pytest.mark.parametrize("length", [500, 10_000, 1_000_000])
def test_it_judges_a_name_of_any_length(length: int) -> None:
    name = "\u00df" * length
    snapshot = make_snapshot(make_endpoint(models=[name]))
    assert route(snapshot, make_inbound(model=name.upper()), make_view()).action is Action.ROUTED
    lost = route(snapshot, make_inbound(model=name + "x"), make_view())
    assert lost.code is ErrorCode.MODEL_NOT_FOUND
    assert len(lost.message) < 400
    assert length <= 512 or not snapshot.settled  # no room for what nobody asks twice


@pytest.mark.parametrize("percentage", [-1, 0, 100, 101])
def test_a_share_at_or_beyond_the_ends_is_all_or_nothing(percentage: int) -> None:
    split = Rule("split", RuleAction.SPLIT, percentage=percentage, endpoint_ids=frozenset({A.id}))
    snapshot = build_snapshot(1, NOW, [A, B], rules=[split])
    for dice in (0.0, 0.5, 0.9999999):
        decision = route(snapshot, make_inbound(model="llama3"), make_view(dice=dice))
        assert [each.name for each in decision.tiers[0]] == (["a"] if percentage >= 100 else ["b"])


def test_the_first_of_equal_rules_is_the_one() -> None:
    twins = [Rule("twin", RuleAction.REJECT, message="first"), Rule("twin", RuleAction.REJECT, message="second")]
    decision = route(build_snapshot(1, NOW, [A], rules=twins), make_inbound(model="llama3"), make_view())
    assert (decision.message, decision.rule) == ("first", twins[0])


def header_condition(operator: Operator, value: str, header: str = "X-Team") -> Condition:
    return Condition(ConditionField.HEADER, operator, value, header)


@pytest.mark.parametrize(
    ("condition", "sent", "holds"),
    [
        (header_condition(Operator.IS, ""), [], False), (header_condition(Operator.IS, ""), [b""], True),
        (header_condition(Operator.IS_NOT, ""), [], True), (header_condition(Operator.GLOB, "*"), [b""], True),
        (header_condition(Operator.GLOB, "*"), [], False), (header_condition(Operator.NOT_GLOB, "*"), [], True),
        (header_condition(Operator.IS, "blue"), [b"red", b"BLUE"], True),
        (header_condition(Operator.IS_NOT, "blue"), [b"red", b"blue"], False),
        (header_condition(Operator.IS, "", ""), [b""], False),
        (header_condition(Operator.IS, "\xe9"), [b"\xc9"], True),
        (header_condition(Operator.IS, "blue"), [b"blue, red"], False),
    ],
)  # fmt: skip
def test_it_judges_headers_that_are_empty_absent_or_repeated(
    condition: Condition, sent: list[bytes], holds: bool
) -> None:
    snapshot = build_snapshot(1, NOW, [A], rules=[Rule("no", RuleAction.REJECT, (condition,))])
    inbound = make_inbound(model="llama3", headers=[(b"x-team", value) for value in sent])
    assert (route(snapshot, inbound, make_view()).code is ErrorCode.FORBIDDEN_BY_RULE) is holds
