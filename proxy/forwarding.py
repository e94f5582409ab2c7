"""THE STORY: a request is routed, tried at one endpoint after another, judged and answered.

    forward     route -> try -> answer
    may_retry   the one place that decides whether a failure is tried elsewhere

Failures before the client has a byte may be hidden by another endpoint; after that they are told honestly
(`proxy.relay`). A client that leaves cancels the story at whatever point it is, and is nobody's failure.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from endpoints import loading, reports, tasks
from endpoints.conf import conf
from endpoints.rules import RuleAction
from endpoints.snapshot import EndpointRecord
from endpoints.transport import (
    Answer,
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
    TotalTimeout,
)
from proxy.answering import Prepared, is_small, prepare_relay
from proxy.errors import ErrorCode, OllaError
from proxy.headers import has_looped, header_text
from proxy.inbound import Inbound, RawHeaders
from proxy.live import live, plan
from proxy.relay import Ending, RelayResponse
from proxy.routing import Action, Decision, Refresh, route
from proxy.selection import Policy, choose_endpoint
from proxy.upstream import door, via_token

logger = logging.getLogger(__name__)

# What says that an endpoint is down, not that this machine or this one request is at fault.
_DOWN_REASONS = frozenset({
    NotConnectedReason.DNS, NotConnectedReason.REFUSED, NotConnectedReason.UNREACHABLE, NotConnectedReason.TLS,
    NotConnectedReason.TIMEOUT, NotConnectedReason.FORBIDDEN_ADDRESS,
})  # fmt: skip
_TIMEOUTS = (FirstByteTimeout, IdleTimeout, TotalTimeout)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer."""

    endpoint: EndpointRecord
    error: DoorError


async def forward(inbound: Inbound) -> RelayResponse:
    """Answer one request from the best endpoint that can. Raises OllaError when none did."""
    if has_looped(inbound.headers, via_token()):
        raise OllaError(ErrorCode.LOOP_DETECTED, "This request has passed here before: an endpoint points back.")
    decision = await _decide(inbound)
    if decision.action is Action.REJECTED:
        raise _rejection(decision)
    prepared = await _try_in_turn(inbound, decision)
    return prepare_relay(inbound, decision, prepared)


async def _decide(inbound: Inbound) -> Decision:
    """Route; when the strategy wants models read anew first, wait for that and route again."""
    decision = route(loading.current(), inbound, live.view(), plan())
    if not decision.refresh:
        return decision
    members = loading.current().by_prefix[inbound.prefix]
    fresh = await reports.discover_now([each.id for each in members], conf().discovery_miss_timeout)
    refresh = Refresh.DONE if fresh else Refresh.FAILED
    return route(loading.current(), inbound, live.view(), plan(refresh))


async def _try_in_turn(inbound: Inbound, decision: Decision) -> Prepared:
    """The first answer worth passing on; else the last one a backend gave; else OllaError."""
    tiers = [list(tier) for tier in decision.tiers]
    policy = _policy(decision)
    held: Prepared | None = None
    failure: Failure | None = None
    try:
        while any(tiers):
            choices = next(tier for tier in tiers if tier)
            endpoint = choose_endpoint(policy, choices, live.in_flight, live.next_cursor())
            choices.remove(endpoint)
            others_left = any(tiers)
            outcome = await _attempt(endpoint, inbound, decision.sent_names.get(endpoint.id))
            if isinstance(outcome, Failure):
                failure = outcome
                if not may_retry(outcome.error, inbound, others_left=others_left):
                    break
                continue
            if others_left and outcome.answer.status in endpoint.retry_statuses:
                _discard(held)
                held = outcome
                continue
            return outcome
        if held is not None:
            chosen, held = held, None
            return chosen
    finally:
        _discard(held)
    raise _exhausted(inbound, failure)


def may_retry(error: DoorError, inbound: Inbound, *, others_left: bool) -> bool:
    """Whether a failed attempt, of which no byte reached the client, is tried at another endpoint.

    No connection: nothing was sent, so yes. Died before the answer was whole: only what merely computes or
    reads. Out of time: no, for the work may be running.
    """
    if not others_left:
        return False
    if isinstance(error, NotConnected):
        return True
    if isinstance(error, NothingReceived | LostMidBody):
        return inbound.is_inference or inbound.method in ("GET", "HEAD")
    return False


def _policy(decision: Decision) -> Policy:
    """The policy a rule names, or the setting."""
    rule = decision.rule
    return Policy(rule.policy if rule and rule.action is RuleAction.POLICY else conf().load_balancer)


async def _attempt(endpoint: EndpointRecord, inbound: Inbound, model: str | None) -> Prepared | Failure:
    """One try at one endpoint, under its own name for the model: in flight until its answer has ended."""
    live.open_attempt(endpoint)
    answer: Answer | None = None
    done = False
    try:
        answer = await door().send(endpoint, inbound, model)
        headers_at = time.monotonic()
        body = first = None
        if is_small(answer.headers, answer.status):
            body = await answer.read()
        elif inbound.is_inference:
            # Until the first chunk the client has no byte, and a backend that dies can be replaced.
            first = await anext(answer, b"")
        done = True
        return Prepared(endpoint, answer, body, first, headers_at)
    except DoorError as error:
        _note_failure(endpoint, error, inbound)
        return Failure(endpoint, error)
    finally:
        if not done:
            live.close_attempt(endpoint)
            if answer is not None:
                answer.abandon()


def _note_failure(endpoint: EndpointRecord, error: DoorError, inbound: Inbound) -> None:
    """Log it, and when the endpoint cannot be connected to, keep it out at once and tell the prober."""
    live.failures[endpoint.id] += 1
    logger.warning("%s: %s failed: %s (%s)", inbound.request_id, endpoint.name, error, type(error).__name__)
    if isinstance(error, NotConnected) and error.reason in _DOWN_REASONS:
        now = time.time()
        live.demote(endpoint, now)
        tasks.spawn(_report(endpoint, str(error), now), f"report {endpoint.name}")


async def _report(endpoint: EndpointRecord, reason: str, seen_at: float) -> None:
    outcome = await reports.report_unreachable(endpoint.id, reason, seen_at)
    if outcome is reports.ReportOutcome.SUPERSEDED:
        live.restore(endpoint.id)


def _discard(prepared: Prepared | None) -> None:
    if prepared is not None:
        live.close_attempt(prepared.endpoint)
        prepared.answer.abandon()


def _rejection(decision: Decision) -> OllaError:
    """The error of a request that no endpoint may answer, with the routing headers."""
    headers: RawHeaders = []
    if decision.strategy:
        headers = [
            (b"X-Olla-Routing-Strategy", decision.strategy.encode()),
            (b"X-Olla-Routing-Decision", decision.action.encode()),
            (b"X-Olla-Routing-Reason", header_text(decision.reason)),
        ]
    code = decision.code or ErrorCode.INTERNAL_ERROR
    return OllaError(code, decision.message, headers=tuple(headers))


def _exhausted(inbound: Inbound, failure: Failure | None) -> OllaError:
    """Nobody answered: what happened at the last endpoint tried."""
    if failure is None:
        return OllaError(ErrorCode.NO_HEALTHY_ENDPOINTS, "No endpoint could be tried.")
    error, name = failure.error, failure.endpoint.name
    seconds = time.monotonic() - inbound.started
    if isinstance(error, _TIMEOUTS) or getattr(error, "reason", None) is NotConnectedReason.TIMEOUT:
        code, hint = ErrorCode.UPSTREAM_TIMEOUT, "The endpoint may be loading the model; raise its timeouts."
    elif isinstance(error, NotConnected | NothingReceived):
        code, hint = ErrorCode.UPSTREAM_UNREACHABLE, "Is the server at its URL running?"
    else:
        code, hint = ErrorCode.UPSTREAM_INVALID, "Its answer was not usable HTTP."
    text = str(error).rstrip(".")
    return OllaError(code, f"Endpoint {name} failed after {seconds:.1f}s: {text}. {hint}", endpoint=name)


__all__ = ["Ending", "forward", "may_retry"]
