"""Aliases, strategies, rules and traces: each row of the decision tables."""

from __future__ import annotations

from typing import Any

import pytest

from endpoints.health import OperatorState, Status
from endpoints.rules import Condition, ConditionField, Fallback, Operator, Rule, RuleAction, Strategy
from endpoints.snapshot import Alias, EndpointRecord, ListedModel, Snapshot, build_snapshot
from proxy.errors import ErrorCode
from proxy.listings import build_catalogue
from proxy.routing import Action, Plan, Refresh, route
from proxy.sieve import DropReason, LiveView
from proxy.tracing import trace
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_view


def snapshot_of(*endpoints: EndpointRecord, aliases: Any = (), rules: Any = ()) -> Snapshot:
    return build_snapshot(1, NOW, endpoints, aliases, rules)


UP = make_endpoint("up", models=["have", "other"])
DOWN = make_endpoint("down", models=["gone"], status=Status.OFFLINE)
FLEET = snapshot_of(UP, DOWN)
STRICT = Plan()
COMPATIBLE, NONE, ALL = Fallback.COMPATIBLE_ONLY, Fallback.NONE, Fallback.ALL


def optimistic(fallback: Fallback) -> Plan:
    return Plan(Strategy.OPTIMISTIC, fallback)


def discovery(fallback: Fallback, refresh: Refresh) -> Plan:
    return Plan(Strategy.DISCOVERY, fallback, refresh)


@pytest.mark.parametrize(
    ("plan", "model", "action", "reason", "code"),
    [
        (STRICT, "have", "routed", "model_found", None),
        (STRICT, "none", "rejected", "model_not_found", 404),
        (STRICT, "gone", "rejected", "model_unavailable", 503),
        (optimistic(NONE), "have", "routed", "model_found", None),
        (optimistic(NONE), "none", "rejected", "model_not_found", 404),
        (optimistic(NONE), "gone", "rejected", "model_unavailable_no_fallback", 503),
        (optimistic(COMPATIBLE), "none", "rejected", "model_not_found", 404),
        (optimistic(COMPATIBLE), "gone", "rejected", "model_unavailable_compatible_only", 503),
        (optimistic(ALL), "none", "fallback", "model_not_found_fallback", None),
        (optimistic(ALL), "gone", "fallback", "all_healthy_fallback", None),
        (discovery(NONE, Refresh.OFF), "have", "routed", "model_found_no_refresh", None),
        (discovery(NONE, Refresh.OFF), "gone", "rejected", "model_unavailable_no_refresh", 503),
        (discovery(ALL, Refresh.OFF), "none", "rejected", "model_unavailable_no_refresh", 503),
        (discovery(NONE, Refresh.FAILED), "none", "rejected", "discovery_failed_no_fallback", 503),
        (discovery(COMPATIBLE, Refresh.FAILED), "none", "rejected", "discovery_failed_compatible_only", 503),
        (discovery(ALL, Refresh.FAILED), "none", "fallback", "discovery_failed_all_fallback", None),
        (discovery(NONE, Refresh.DONE), "none", "rejected", "model_unavailable_after_discovery", 503),
        (discovery(COMPATIBLE, Refresh.DONE), "gone", "rejected", "model_unavailable_after_discovery", 503),
        (discovery(ALL, Refresh.DONE), "none", "fallback", "all_healthy_after_discovery", None),
    ],
)  # fmt: skip
def test_it_follows_each_row_of_the_strategy_table(
    plan: Plan, model: str, action: str, reason: str, code: int | None
) -> None:
    decision = route(FLEET, make_inbound(model=model), make_view(), plan)
    assert (decision.action, decision.reason) == (action, reason)
    assert decision.strategy == plan.strategy
    if code is None:
        assert decision.candidates == (UP,)
    else:
        assert decision.code is not None
        assert decision.code is (ErrorCode.MODEL_NOT_FOUND if code == 404 else ErrorCode.MODEL_UNAVAILABLE)


def test_it_asks_for_a_refresh_first_when_the_discovery_strategy_may() -> None:
    plan = discovery(ALL, Refresh.POSSIBLE)
    assert route(FLEET, make_inbound(model="none"), make_view(), plan).refresh
    assert not route(FLEET, make_inbound(model="have"), make_view(), plan).refresh


def test_it_says_so_when_nobody_is_healthy_after_a_discovery() -> None:
    decision = route(snapshot_of(DOWN), make_inbound(model="none"), make_view(), discovery(ALL, Refresh.DONE))
    assert (decision.code, decision.reason) == (ErrorCode.NO_HEALTHY_ENDPOINTS, "no_healthy_after_discovery")


ALIAS = Alias("My-Model", ("first:8b", "second"))


def test_it_sends_each_endpoint_its_own_name_for_an_alias() -> None:
    one = make_endpoint("one", models=["second", "First:8b"])
    two = make_endpoint("two", models=["second"])
    three = make_endpoint("three", models=["third"])
    decision = route(snapshot_of(one, two, three, aliases=[ALIAS]), make_inbound(model="my-model"), make_view())
    assert decision.reason == 'alias "my-model" resolved to 2 endpoint(s)'
    assert decision.strategy == "alias"
    assert {each.name: decision.sent_names[each.id] for each in decision.candidates} == {
        "one": "First:8b", "two": "second",
    }  # fmt: skip


def test_it_takes_the_alias_before_a_model_of_that_name() -> None:
    own = make_endpoint("own", models=["m"])
    target = make_endpoint("target", models=["real"])
    decision = route(
        snapshot_of(own, target, aliases=[Alias("m", ("real",))]), make_inbound(model="m"), make_view()
    )
    assert decision.candidates == (target,)


def test_it_answers_503_when_an_aliass_targets_are_down_and_404_when_they_are_unknown() -> None:
    down = make_endpoint("down", models=["second"], status=Status.OFFLINE)
    decision = route(snapshot_of(down, UP, aliases=[ALIAS]), make_inbound(model="my-model"), make_view())
    assert (decision.code, decision.reason) == (ErrorCode.MODEL_UNAVAILABLE, "model_unavailable")
    decision = route(snapshot_of(UP, aliases=[ALIAS]), make_inbound(model="my-model"), make_view())
    assert decision.code is ErrorCode.MODEL_NOT_FOUND


def test_it_rewrites_a_name_of_other_case_to_the_endpoints_own() -> None:
    decision = route(snapshot_of(make_endpoint("a", models=["Qwen/Q"])), make_inbound(model="qwen/q"), make_view())
    assert list(decision.sent_names.values()) == ["Qwen/Q"]
    decision = route(
        snapshot_of(make_endpoint("a", models=["llama3:latest"])), make_inbound(model="llama3"), make_view()
    )
    assert decision.sent_names == {}


def test_it_lists_aliases_with_the_models() -> None:
    snapshot = snapshot_of(make_endpoint("a", models=["second"]), aliases=[ALIAS, Alias("lost", ("nowhere",))])
    entries = build_catalogue(snapshot, "proxy", make_view())
    assert [(entry.name, entry.available) for entry in entries] == [("My-Model", True), ("second", True)]


def test_it_prefers_endpoints_whose_model_can_do_what_is_asked() -> None:
    seeing = make_endpoint("seeing", models=[ListedModel("m", capabilities=("vision", "tools"))])
    blind = make_endpoint("blind", models=[ListedModel("m", capabilities=("completion",))])
    silent = make_endpoint("silent", models=["m"])
    body = b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}'
    decision = route(snapshot_of(seeing, blind, silent), make_inbound(body=body), make_view())
    assert {each.name for each in decision.candidates} == {"seeing", "silent"}
    decision = route(snapshot_of(blind), make_inbound(body=body), make_view())
    assert decision.candidates == (blind,)


def rule(action: RuleAction, *conditions: Condition, **fields: Any) -> Rule:
    return Rule("the rule", action, conditions, **fields)


WHEN_TEAM = Condition(ConditionField.HEADER, Operator.IS, "blue", "X-Team")
GPU = make_endpoint("gpu", models=["have"], tags=frozenset({"gpu"}))
CPU = make_endpoint("cpu", models=["have"], tags=frozenset({"cpu"}))


def decide(the_rule: Rule, view: LiveView | None = None, **fields: Any) -> Any:
    fields.setdefault("model", "have")
    fields.setdefault("headers", [(b"x-team", b"blue")])
    return route(snapshot_of(GPU, CPU, rules=[the_rule]), make_inbound(**fields), view or make_view())


def test_it_restricts_prefers_and_splits_by_rule() -> None:
    tagged = {"tags": frozenset({"gpu"})}
    assert decide(rule(RuleAction.RESTRICT, WHEN_TEAM, **tagged)).candidates == (GPU,)
    assert decide(rule(RuleAction.RESTRICT, WHEN_TEAM, endpoint_ids=frozenset({CPU.id}))).candidates == (CPU,)
    assert decide(rule(RuleAction.PREFER, WHEN_TEAM, **tagged)).tiers == ((GPU,), (CPU,))
    split = rule(RuleAction.SPLIT, percentage=30, **tagged)
    assert decide(split, make_view(dice=0.29)).tiers == ((GPU,), (CPU,))
    assert decide(split, make_view(dice=0.31)).tiers == ((CPU,), (GPU,))


@pytest.mark.parametrize("percentage", [0, 1, 50, 99, 100])
def test_it_shares_requests_out_by_percentage(percentage: int) -> None:
    split = rule(RuleAction.SPLIT, percentage=percentage, tags=frozenset({"gpu"}))
    firsts = [decide(split, make_view(dice=number / 1000)).tiers[0][0] for number in range(1000)]
    assert firsts.count(GPU) == percentage * 10


@pytest.mark.parametrize("dice", [0.0, 0.999])
def test_a_share_whose_endpoints_are_out_is_answered_by_the_rest(dice: float) -> None:
    split = rule(RuleAction.SPLIT, percentage=50, tags=frozenset({"gpu"}))
    view = make_view(dice=dice, held_out={GPU.id: DropReason.BREAKER_OPEN})
    assert decide(split, view).tiers == ((CPU,),)
    gone = rule(RuleAction.SPLIT, percentage=50)
    assert set(decide(gone, make_view(dice=dice)).candidates) == {GPU, CPU}


def test_a_rule_whose_endpoints_are_all_deleted_refuses_and_says_so() -> None:
    gone = rule(RuleAction.RESTRICT, endpoint_ids=frozenset({987654}))
    requests: tuple[dict[str, Any], ...] = ({}, {"model": None, "target": "/v1/models", "method": "GET"})
    for request in requests:
        decision = decide(gone, **request)
        assert (decision.code, decision.reason) == (ErrorCode.FORBIDDEN_BY_RULE, "forbidden_by_rule")
        assert decision.message == "The routing rule 'the rule' allows only endpoints that no longer exist."
    assert decide(rule(RuleAction.RESTRICT)).code is ErrorCode.FORBIDDEN_BY_RULE
    elsewhere = decide(rule(RuleAction.RESTRICT, tags=frozenset({"gpu"})), model="other")
    assert elsewhere.code is not ErrorCode.FORBIDDEN_BY_RULE  # nobody has that model anyway
    assert set(decide(rule(RuleAction.PREFER)).candidates) == {GPU, CPU}


def test_it_refuses_by_rule_with_the_operators_words() -> None:
    decision = decide(rule(RuleAction.REJECT, WHEN_TEAM, message="Not for blue."))
    assert (decision.code, decision.message) == (ErrorCode.FORBIDDEN_BY_RULE, "Not for blue.")
    nobody = decide(rule(RuleAction.RESTRICT, WHEN_TEAM, tags=frozenset({"none"})))
    assert nobody.code is ErrorCode.FORBIDDEN_BY_RULE


def test_it_replaces_the_model_and_the_strategy_by_rule() -> None:
    decision = decide(rule(RuleAction.REWRITE_MODEL, WHEN_TEAM, model="have"), model="whatever")
    assert decision.action is Action.ROUTED
    assert decision.sent_names == {GPU.id: "have", CPU.id: "have"}
    decision = decide(rule(RuleAction.STRATEGY, WHEN_TEAM, strategy="optimistic", fallback="all"), model="none")
    assert (decision.action, decision.reason) == (Action.FALLBACK, "model_not_found_fallback")


def test_it_takes_the_first_matching_rule_only() -> None:
    first = rule(RuleAction.RESTRICT, WHEN_TEAM, tags=frozenset({"gpu"}))
    second = rule(RuleAction.REJECT)
    snapshot = snapshot_of(GPU, CPU, rules=[first, second])
    assert route(snapshot, make_inbound(model="have", headers=[(b"x-team", b"blue")]), make_view()).candidates == (
        GPU,
    )
    assert route(snapshot, make_inbound(model="have"), make_view()).code is ErrorCode.FORBIDDEN_BY_RULE


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition(ConditionField.MODEL, Operator.GLOB, "HAV*"), True),
        (Condition(ConditionField.MODEL, Operator.NOT_GLOB, "hav*"), False),
        (Condition(ConditionField.MODEL, Operator.IS_NOT, "x"), True),
        (Condition(ConditionField.PREFIX, Operator.IS, "proxy"), True),
        (Condition(ConditionField.PATH, Operator.GLOB, "*/chat/*"), True),
        (Condition(ConditionField.HEADER, Operator.IS, "red", "x-team"), False),
        (Condition(ConditionField.HEADER, Operator.IS_NOT, "red", "x-absent"), True),
        (Condition(ConditionField.CLIENT_NETWORK, Operator.IS, "10.0.0.0/8"), True),
        (Condition(ConditionField.CLIENT_NETWORK, Operator.IS_NOT, "10.0.0.0/8"), False),
        (Condition(ConditionField.CLIENT_NETWORK, Operator.IS, "not a network"), False),
        (Condition(ConditionField.CAPABILITY, Operator.IS, "tools"), True),
        (Condition(ConditionField.CLIENT_KEY, Operator.IS, "k"), False),
    ],
)  # fmt: skip
def test_it_judges_each_condition(condition: Condition, holds: bool) -> None:
    body = b'{"model":"have","tools":[{}],"messages":[]}'
    refused = decide(rule(RuleAction.REJECT, condition), body=body, client="10.2.3.4", model=None)
    assert (refused.action is Action.REJECTED) is holds


def test_it_holds_out_what_is_live_and_answers_429_when_only_the_rate_stops_it() -> None:
    for reason in (DropReason.BREAKER_OPEN, DropReason.RESTING, DropReason.RATE_LIMITED):
        decision = route(snapshot_of(GPU, CPU), make_inbound(model="have"), make_view(held_out={GPU.id: reason}))
        assert decision.candidates == (CPU,)
        assert decision.drops == {reason: 1}
    both = {GPU.id: DropReason.RATE_LIMITED, CPU.id: DropReason.RATE_LIMITED}
    decision = route(snapshot_of(GPU, CPU), make_inbound(model="have"), make_view(held_out=both))
    assert decision.code is ErrorCode.RATE_LIMITED


def test_it_traces_everyone_from_the_same_stages() -> None:
    drained = make_endpoint("drained", models=["have"], state=OperatorState.DRAINING)
    foreign = make_endpoint("foreign", kind="vllm", models=["have"])
    snapshot = snapshot_of(UP, DOWN, GPU, drained, foreign)
    inbound = make_inbound(prefix="ollama", model="have")
    view = make_view(demoted={GPU.id: NOW})
    decision = route(snapshot, inbound, view)
    told = trace(snapshot, inbound, view, decision)
    assert {each.endpoint.name: each.dropped for each in told.considered} == {
        "up": None, "down": DropReason.MODEL_MISSING, "gpu": DropReason.SEEN_FAILING,
        "drained": DropReason.OPERATOR_STATE, "foreign": DropReason.OTHER_KIND,
    }  # fmt: skip
    assert [each.endpoint.name for each in told.considered if each.order] == ["up"]
    assert [each.endpoint for each in told.considered if each.dropped is None] == list(decision.candidates)


# -------------------------------------------------------------------------------------------- maintenance windows

KEPT_OUT = make_endpoint("window", models=["have"], maintenance=(NOW, NOW + 60))


@pytest.mark.parametrize(("now", "kept"), [(NOW - 1, True), (NOW, False), (NOW + 59, False), (NOW + 60, True)])
def test_it_keeps_to_a_window_without_a_new_snapshot(now, kept):
    decision = route(snapshot_of(KEPT_OUT), make_inbound(model="have"), make_view(now=now, prober_seen=now))

    assert (decision.action is Action.ROUTED) is kept
    assert decision.drops.get(DropReason.OPERATOR_STATE, 0) == int(not kept)


def test_it_says_that_an_endpoint_is_in_maintenance():
    decision = route(snapshot_of(KEPT_OUT), make_inbound(), make_view())

    assert decision.code is ErrorCode.NO_HEALTHY_ENDPOINTS
    assert decision.message == "The only endpoint cannot take requests now: in maintenance."
