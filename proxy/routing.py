"""Which endpoints may answer a request, and why. (pure)

    route(snapshot, inbound, view, policy) -> Decision

A Decision is routed (or fallen back) with its candidates in the tiers they are tried in, or rejected with the
error to answer. Reasons are the words the reference uses, since people grep for them. `proxy.tracing` tells the
whole story of a decision on demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from endpoints.rules import Fallback, Rule, RuleAction, RuleFacts, Strategy, choose_rule
from endpoints.snapshot import Alias, Snapshot, fold_model
from proxy.capabilities import needed_capabilities
from proxy.decision import Action as Action
from proxy.decision import Decision as Decision
from proxy.decision import Plan as Plan
from proxy.decision import Refresh as Refresh
from proxy.errors import ErrorCode
from proxy.guards import normalise_path
from proxy.inbound import Inbound
from proxy.refusals import describe_guarded, describe_nobody, describe_unavailable
from proxy.settled import Settled, may_settle, settle
from proxy.sieve import (
    AVAILABILITY,
    ELIGIBILITY,
    OF_HOLDERS,
    DropReason,
    Endpoints,
    LiveView,
    Question,
    find_favoured,
    find_stale,
    keep_unguarded,
    sift,
)


def route(snapshot: Snapshot, inbound: Inbound, view: LiveView, plan: Plan | None = None) -> Decision:
    """Judge one request against one snapshot."""
    members = snapshot.by_prefix.get(inbound.prefix, ())
    if not members:
        code, message = describe_nobody(inbound.prefix)
        return Decision(Action.REJECTED, code=code, message=message)
    rule = choose_rule(snapshot.rules, rule_facts(inbound)) if snapshot.rules else None
    if rule is not None and rule.action is RuleAction.REJECT:
        return Decision(
            Action.REJECTED, reason="forbidden_by_rule", rule=rule, code=ErrorCode.FORBIDDEN_BY_RULE,
            message=rule.message or f"The routing rule {rule.name!r} refuses this request.",
        )  # fmt: skip
    judge = _Judge(snapshot, inbound, view, _apply_to_plan(plan or Plan(), rule), rule, members)
    return judge.by_settled_model() if judge.model else judge.by_path()


def rule_facts(inbound: Inbound) -> RuleFacts:
    """What the conditions of rules are judged on."""
    headers: dict[str, list[str]] = {}
    for name, value in inbound.headers:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return RuleFacts(
        model=inbound.model or "",
        prefix=inbound.prefix,
        path=normalise_path(inbound.path),  # no spelling of a path slips by a rule
        headers=headers,
        client=inbound.client,
        capabilities=needed_capabilities(inbound),
    )


def _apply_to_plan(plan: Plan, rule: Rule | None) -> Plan:
    if rule is None or rule.action is not RuleAction.STRATEGY:
        return plan
    fallback = Fallback(rule.fallback) if rule.fallback else plan.fallback
    return replace(plan, strategy=Strategy(rule.strategy), fallback=fallback)


@dataclass(slots=True)
class _Judge:
    """One request under judgement."""

    snapshot: Snapshot
    inbound: Inbound
    view: LiveView
    plan: Plan
    rule: Rule | None
    members: Endpoints
    drops: dict[DropReason, int] = field(default_factory=dict)
    question: Question | None = None  # the last one put to the stages

    @property
    def model(self) -> str:
        """The model to look for: the client's, or what a rule puts in its place."""
        if self.rule is not None and self.rule.action is RuleAction.REWRITE_MODEL:
            return self.rule.model
        return self.inbound.model or ""

    def by_path(self) -> Decision:
        """A request that names no model: every endpoint whose kind knows the path."""
        question = self.question = Question(self.inbound, self.view, self.rule)
        eligible = sift(self.members, question, ELIGIBILITY, self.drops)
        if not eligible:
            return self._nobody_eligible(question)
        tiers = self._tiers(sift(eligible, question, AVAILABILITY, self.drops))
        if not tiers:
            return self._reject(*self._nobody_available(eligible))
        return Decision(Action.ROUTED, tiers=tiers, rule=self.rule, drops=self.drops)

    def by_settled_model(self) -> Decision:
        """As `by_model`: from what this snapshot has settled already, where that still holds."""
        if not may_settle(self.view, self.rule):
            return self.by_model()
        key = (
            self.inbound.prefix,
            self.inbound.method,
            self.inbound.path,
            self.inbound.model,
            needed_capabilities(self.inbound),
            self.view.opened_guards,
            self.plan,
            id(self.rule),
        )
        known: Settled | None = self.snapshot.settled.get(key)
        if known is not None and known.holds(self.view):
            return known.decision
        decision = self.by_model()
        settle(self.snapshot, key, decision, self.view)
        return decision

    def by_model(self) -> Decision:
        """A request that names a model: its alias' targets, or the endpoints that list it, by the strategy."""
        alias = self.snapshot.aliases.get(fold_model(self.model))
        names = resolve_alias(self.snapshot, self.inbound.prefix, alias) if alias else {}
        strategy = Strategy.ALIAS if names else self.plan.strategy
        if not names:
            names = native_names(self.snapshot, self.inbound.prefix, self.model)
        capabilities = needed_capabilities(self.inbound)
        question = self.question = Question(self.inbound, self.view, self.rule, names, capabilities)
        by_id = self.snapshot.by_id
        holders = tuple([by_id[each] for each in names])
        eligible = sift(holders, question, OF_HOLDERS, self.drops)
        if not eligible and not keep_unguarded(holders or self.members, question):
            self.drops.setdefault(DropReason.GUARDED_PATH, len(self.members))
            return self._nobody_eligible(question, holders)
        tiers = self._tiers(sift(eligible, question, AVAILABILITY, self.drops))
        if tiers:
            return self._routed(strategy, question, tiers)
        return self._missing(strategy, known=bool(eligible))

    def _routed(self, strategy: Strategy, question: Question, tiers: tuple[Endpoints, ...]) -> Decision:
        reason = "model_found"
        if strategy is Strategy.ALIAS:
            reason = f'alias "{self.model}" resolved to {sum(len(tier) for tier in tiers)} endpoint(s)'
        elif strategy is Strategy.DISCOVERY:
            reason = "model_found_no_refresh"
        names, asked = question.native_names or {}, self.inbound.model or ""
        as_asked = (asked, f"{asked}:latest")
        return Decision(
            Action.ROUTED,
            strategy,
            reason,
            tiers,
            {key: name for key, name in names.items() if name not in as_asked},
            self.rule,
            self.drops,
            loaded=find_loaded(tiers, names) if self.plan.loaded_first else frozenset(),
            native_names=names,
            capabilities=question.capabilities,
        )

    def _missing(self, strategy: Strategy, *, known: bool) -> Decision:
        """No endpoint that has the model can answer: what the strategy does then."""
        if strategy is Strategy.OPTIMISTIC:
            return self._optimistic(known=known)
        if strategy is Strategy.DISCOVERY:
            return self._discovery(known=known)
        return self._model_error(strategy, "model_unavailable" if known else "model_not_found", known=known)

    def _optimistic(self, *, known: bool) -> Decision:
        if self.plan.fallback is Fallback.ALL:
            return self._fall_back("all_healthy_fallback" if known else "model_not_found_fallback")
        reason = f"model_unavailable_{_FALLBACK_WORDS[self.plan.fallback]}" if known else "model_not_found"
        return self._model_error(self.plan.strategy, reason, known=known)

    def _discovery(self, *, known: bool) -> Decision:
        refresh, fallback = self.plan.refresh, self.plan.fallback
        if refresh is Refresh.POSSIBLE:
            return Decision(Action.REJECTED, self.plan.strategy, "discovery", rule=self.rule, refresh=True)
        if refresh is Refresh.OFF:
            return self._model_error(self.plan.strategy, "model_unavailable_no_refresh", known=True)
        if fallback is Fallback.ALL:
            failed = refresh is Refresh.FAILED
            return self._fall_back("discovery_failed_all_fallback" if failed else "all_healthy_after_discovery")
        if refresh is Refresh.FAILED:
            reason = f"discovery_failed_{_FALLBACK_WORDS[fallback]}"
        else:
            reason = "model_unavailable_after_discovery"
        return self._model_error(self.plan.strategy, reason, known=True)

    def _fall_back(self, reason: str) -> Decision:
        """Every endpoint of the route that takes requests, with the model name as the client wrote it."""
        question = self.question = Question(self.inbound, self.view, self.rule)
        eligible = sift(self.members, question, ELIGIBILITY, self.drops)
        tiers = self._tiers(sift(eligible, question, AVAILABILITY, self.drops))
        if tiers:
            return Decision(Action.FALLBACK, self.plan.strategy, reason, tiers, rule=self.rule, drops=self.drops)
        if self.plan.strategy is Strategy.DISCOVERY:
            reason = "no_healthy_after_discovery"
        return self._reject(*self._nobody_available(eligible), self.plan.strategy, reason)

    def _tiers(self, usable: Endpoints) -> tuple[Endpoints, ...]:
        """Preferred endpoints first, those whose status is too old to be believed last."""
        stale = find_stale(usable, self.view)
        fresh = _without(usable, stale)
        first = find_favoured(fresh, self.rule, self.view)
        return tuple(tier for tier in (first, _without(fresh, first), stale) if tier)

    def _reject(self, code: ErrorCode, message: str, strategy: str = "", reason: str = "") -> Decision:
        asked = self.question
        return Decision(
            Action.REJECTED, strategy, reason, rule=self.rule, drops=self.drops, code=code, message=message,
            native_names=asked.native_names if asked else None, capabilities=asked.capabilities if asked else (),
        )  # fmt: skip

    def _model_error(self, strategy: Strategy, reason: str, *, known: bool) -> Decision:
        shown = repr((self.inbound.model or self.model)[:200])
        if self.drops.get(DropReason.RATE_LIMITED):
            return self._reject(ErrorCode.RATE_LIMITED, _RATE_MESSAGE, strategy, "endpoint_rate_limited")
        if known:
            message = f"The model {shown} is known, but no endpoint that has it can take requests now."
            return self._reject(ErrorCode.MODEL_UNAVAILABLE, message, strategy, reason)
        if DropReason.RULE in self.drops:
            return self._reject(*self._fenced_off(f"for {shown}"), strategy, "forbidden_by_rule")
        if not any(each.model_names for each in self.members):
            usable = sift(self.members, Question(self.inbound, self.view), AVAILABILITY, {})
            if not usable:
                return self._reject(*self._nobody_available(self.members), strategy, "no_healthy_endpoints")
        listing = f"/olla/{self.inbound.prefix}/v1/models"
        message = f"No endpoint here has the model {shown}. See {listing} for what there is."
        return self._reject(ErrorCode.MODEL_NOT_FOUND, message, strategy, reason)

    def _nobody_eligible(self, question: Question, holders: Endpoints = ()) -> Decision:
        if DropReason.GUARDED_PATH in self.drops:
            return self._reject(*describe_guarded((holders or self.members)[0], question.inbound))
        return self._reject(*self._fenced_off("for this request"), reason="forbidden_by_rule")

    def _fenced_off(self, what: str) -> tuple[ErrorCode, str]:
        """A restrict rule left nobody. With its endpoints all gone it refuses: it may be there to keep data in."""
        rule = self.rule
        name = rule.name if rule else ""
        if rule is not None and not any(rule.names(each.id, each.tags) for each in self.snapshot.endpoints):
            message = f"The routing rule {name!r} allows only endpoints that no longer exist."
        else:
            message = f"The routing rule {name!r} leaves no endpoint {what}."
        return ErrorCode.FORBIDDEN_BY_RULE, message

    def _nobody_available(self, endpoints: Endpoints) -> tuple[ErrorCode, str]:
        if self.drops.get(DropReason.RATE_LIMITED):
            return ErrorCode.RATE_LIMITED, _RATE_MESSAGE
        return describe_unavailable(endpoints, self.inbound.prefix, self.view)


def _without(endpoints: Endpoints, others: Endpoints) -> Endpoints:
    if not others:
        return endpoints
    if len(others) == len(endpoints):
        return ()
    out = {each.id for each in others}
    return tuple([each for each in endpoints if each.id not in out])


_FALLBACK_WORDS = {Fallback.NONE: "no_fallback", Fallback.COMPATIBLE_ONLY: "compatible_only"}
_RATE_MESSAGE = "Every endpoint that could answer has used up its requests for this minute."


def resolve_alias(snapshot: Snapshot, prefix: str, alias: Alias) -> dict[int, str]:
    """By endpoint id, the first target of an alias that each endpoint of the prefix has, in snapshot order."""
    found: dict[int, str] = {}
    for target in alias.targets:
        for endpoint_id, name in native_names(snapshot, prefix, target).items():
            found.setdefault(endpoint_id, name)
    return {each.id: found[each.id] for each in snapshot.by_prefix.get(prefix, ()) if each.id in found}


def find_loaded(tiers: tuple[Endpoints, ...], names: Mapping[int, str]) -> frozenset[int]:
    """The candidates that have the model in memory, when others of them would have to load it; else none."""
    ready = frozenset(each.id for tier in tiers for each in tier if names.get(each.id, "") not in each.cold)
    return ready if len(ready) < sum(len(tier) for tier in tiers) else frozenset()


def native_names(snapshot: Snapshot, prefix: str, model: str) -> dict[int, str]:
    """By endpoint id, its own spelling of a model, for the endpoints of the prefix that list it."""
    folded = fold_model(model)
    return {each.id: each.model_names[folded] for each in snapshot.by_model.get((prefix, folded), ())}
