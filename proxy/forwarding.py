"""THE STORY: a request is routed, tried at one endpoint after another, judged and answered.

    forward     route -> try -> answer
    may_retry   the one place that decides whether a failure is tried elsewhere

Failures before the client has a byte may be hidden by another endpoint; after that they are told honestly
(`proxy.relay`). A client that leaves cancels the story at whatever point it is, and is nobody's failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from endpoints import loading, reports, tasks
from endpoints.conf import conf
from endpoints.health import parse_retry_after
from endpoints.rules import RuleAction
from endpoints.snapshot import EndpointRecord
from endpoints.transport import (
    Answer,
    CutHead,
    DoorError,
    LostMidBody,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
)
from proxy.answering import Dialect, Prepared, UnfitError, as_it_came
from proxy.attempts import Attempt, Verdict, judge_status
from proxy.errors import ErrorCode, OllaError
from proxy.headers import has_looped, header_text
from proxy.inbound import Inbound, RawHeaders, get_header
from proxy.live import live, plan
from proxy.provider_metrics import UsageReader, read_usage_of
from proxy.queueing import QueueError, Slot
from proxy.relay import Ending, RelayResponse
from proxy.routing import Action, Decision, Plan, Refresh, route
from proxy.selection import Policy, choose_endpoint, keep_loaded
from proxy.steering import obey
from proxy.stickiness import Visit, start_visit
from proxy.upstream import door, failure_code, failure_word, via_token

logger = logging.getLogger(__name__)

# What says that an endpoint is down, not that this machine or this one request is at fault.
_DOWN_REASONS = frozenset({
    NotConnectedReason.DNS, NotConnectedReason.REFUSED, NotConnectedReason.UNREACHABLE, NotConnectedReason.TLS,
    NotConnectedReason.TIMEOUT, NotConnectedReason.FORBIDDEN_ADDRESS,
})  # fmt: skip
_HINTS = {
    ErrorCode.UPSTREAM_TIMEOUT: "The endpoint may be loading the model; its timeouts can be raised in the admin.",
    ErrorCode.UPSTREAM_UNREACHABLE: "Is the server at its URL running?",
    ErrorCode.UPSTREAM_INVALID: "Its answer was not usable HTTP.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer."""

    endpoint: EndpointRecord
    error: DoorError | UnfitError


async def forward(inbound: Inbound, dialect: Dialect = as_it_came) -> RelayResponse:
    """Answer one request from the best endpoint that can, put to each in `dialect`. Raises OllaError."""
    refuse_loop(inbound)
    decision = await _decide(inbound)
    if decision.action is Action.REJECTED:
        raise _rejection(decision)
    # A session is not moved by an operator who looks at one endpoint.
    visit = Visit(live.sticky, None) if decision.pinned else start_visit(live.sticky, inbound)
    try:
        decision, prepared = await _try_in_turn(inbound, decision, visit, dialect)
    finally:
        inbound.record.sticky = visit.outcome
    _note_answer(inbound, decision, prepared)
    extra = visit.headers()
    if prepared.attempt.waited:
        extra.append((b"X-Olla-Queue-Wait", b"%dms" % round(prepared.attempt.waited * 1000)))
    try:
        return prepared.rendering.present(decision, prepared, extra)
    except BaseException:
        _discard(prepared)  # nobody else would give its place and connection back
        raise


def _note_answer(inbound: Inbound, decision: Decision, prepared: Prepared) -> None:
    """Note whose answer goes to the client, and under which name the model was asked for."""
    record, endpoint = inbound.record, prepared.attempt.endpoint
    record.decision = decision
    record.answered = prepared.attempt.note
    record.answer_status = prepared.status
    record.reader = prepared.reader
    record.sent_model = decision.sent_names.get(endpoint.id) or inbound.model


def refuse_loop(inbound: Inbound) -> None:
    """Refuse what has passed here before. Raises OllaError(loop_detected)."""
    if has_looped(inbound.headers, via_token()):
        raise OllaError(ErrorCode.LOOP_DETECTED, "This request has passed here before: an endpoint points back.")


async def _decide(inbound: Inbound) -> Decision:
    """Route; when the strategy wants models read anew first, wait for that and route again."""
    decision = _route(inbound, plan())
    if not decision.refresh:
        return decision
    members = loading.current().by_prefix[inbound.prefix]
    fresh = await reports.discover_now([each.id for each in members], conf().discovery_miss_timeout)
    refresh = Refresh.DONE if fresh else Refresh.FAILED
    return _route(inbound, plan(refresh))


def _route(inbound: Inbound, asked: Plan) -> Decision:
    """Route by what is known now. Raises OllaError for an operator's order that cannot be obeyed."""
    snapshot, view = loading.current(), live.view()
    decision = route(snapshot, inbound, view, asked)
    if inbound.order is not None:
        decision = obey(snapshot, inbound, view, decision)
    inbound.record.decision = decision
    return decision


async def _try_in_turn(
    inbound: Inbound, decision: Decision, visit: Visit, dialect: Dialect
) -> tuple[Decision, Prepared]:
    """The first answer worth passing on; else the last one a backend gave; else OllaError.

    With it comes the decision that led there: a new one when none of the first one's endpoints could answer.
    """
    tiers = [list(tier) for tier in decision.tiers]
    tried: set[int] = set()
    held: Prepared | None = None
    failure: Failure | None = None
    try:
        while any(tiers):
            if held is not None and not _have_room(tiers):
                break  # waiting in line while holding a place could block others that do the same
            attempt = await _take_place(tiers, decision, visit, inbound)
            if attempt is None:
                continue
            inbound.record.attempts.append(attempt.note)
            tried.add(attempt.endpoint.id)
            outcome = await _attempt(attempt, inbound, decision.sent_names.get(attempt.endpoint.id), dialect)
            if not any(tiers) and _wants_another(outcome):
                decision, tiers = _look_again(inbound, decision, tried)
            if isinstance(outcome, Failure):
                failure = outcome
                if not may_retry(outcome.error, inbound, others_left=any(tiers)):
                    break
                continue
            _heed_rest(outcome)
            if any(tiers) and _wants_another(outcome):
                _discard(held)
                held = outcome
                continue
            return decision, outcome
        if held is not None:
            chosen, held = held, None
            return decision, chosen
    finally:
        _discard(held)
    raise _exhausted(inbound, failure)


Tiers = list[list[EndpointRecord]]


def _wants_another(outcome: Prepared | Failure) -> bool:
    """Whether another endpoint's answer would be better, if it may be asked for."""
    return isinstance(outcome, Failure) or outcome.status in outcome.attempt.endpoint.retry_statuses


def _look_again(inbound: Inbound, decision: Decision, tried: set[int]) -> tuple[Decision, Tiers]:
    """Who can answer now and was not tried: endpoints come back while a request waits for others."""
    if decision.pinned:
        return decision, []
    again = route(loading.current(), inbound, live.view(), plan())
    tiers = [[each for each in tier if each.id not in tried] for tier in again.tiers]
    if not any(tiers):
        return decision, []
    return replace(again, sent_names={**decision.sent_names, **again.sent_names}), tiers


async def _take_place(tiers: Tiers, decision: Decision, visit: Visit, inbound: Inbound) -> Attempt | None:
    """A place at the best endpoint that has room, which leaves the tiers; when none has, a wait in line.

    The session's endpoint comes first, else the policy chooses, from those that have the model in memory while
    these are not too busy. Raises OllaError(queue_full).
    """
    now = time.monotonic()
    slot: Slot | None = None
    for tier in tiers:
        roomy = [each for each in tier if live.queue.has_room(each.id)]
        if not roomy:
            continue
        endpoint = visit.recall(roomy, now)
        if endpoint is None:
            endpoint = _choose(roomy, decision)
        slot = live.queue.try_take(endpoint.id)
        if slot is not None:
            break
    if slot is None:
        slot = await _wait_for_place(tiers, inbound)
    endpoint = _take_out(tiers, slot.endpoint_id)
    visit.settle(endpoint.id, now)
    return live.open_attempt(endpoint, slot)


def _choose(roomy: Sequence[EndpointRecord], decision: Decision) -> EndpointRecord:
    if decision.loaded:
        roomy = keep_loaded(roomy, decision.loaded, live.in_flight, conf().loaded_first_requests)
    return choose_endpoint(policy_of(decision), roomy, live.in_flight, live.next_cursor(roomy))


def _have_room(tiers: Tiers) -> bool:
    return any(live.queue.has_room(each.id) for tier in tiers for each in tier)


async def _wait_for_place(tiers: Tiers, inbound: Inbound) -> Slot:
    wanted = [each.id for tier in tiers for each in tier]
    since = time.monotonic()
    try:
        return await live.queue.wait(wanted, inbound.client)
    except QueueError as error:
        message = f"Every endpoint that could answer is full, and waiting did not help: {error}."
        raise OllaError(ErrorCode.QUEUE_FULL, message, headers=((b"Retry-After", b"1"),)) from error
    finally:
        inbound.record.queue_wait += time.monotonic() - since


def _take_out(tiers: Tiers, endpoint_id: int) -> EndpointRecord:
    for tier in tiers:
        for number, each in enumerate(tier):
            if each.id == endpoint_id:
                return tier.pop(number)
    raise LookupError(f"no candidate {endpoint_id}")


def _heed_rest(prepared: Prepared) -> None:
    """A backend that answers 429 is left alone for as long as it asks."""
    if prepared.answer.status != 429:
        return
    text = get_header([(name.lower(), value) for name, value in prepared.answer.headers], b"retry-after")
    seconds = parse_retry_after(text.decode("latin-1"), time.time()) if text else None
    if seconds is not None:
        live.rest(prepared.attempt.endpoint, seconds)


def may_retry(error: DoorError | UnfitError, inbound: Inbound, *, others_left: bool) -> bool:
    """Whether a failed attempt, of which no byte reached the client, is tried at another endpoint.

    No connection: nothing was sent, so yes. Died before the answer was whole: only what merely computes or
    reads. Out of time: no, for the work may be running.
    """
    if not others_left:
        return False
    if isinstance(error, NotConnected | UnfitError):
        return True
    if isinstance(error, NothingReceived | CutHead | LostMidBody):
        return inbound.is_inference or inbound.method in ("GET", "HEAD")
    return False


def policy_of(decision: Decision) -> Policy:
    """The policy a rule names, or the setting."""
    rule = decision.rule
    return Policy(rule.policy if rule and rule.action is RuleAction.POLICY else conf().load_balancer)


async def _attempt(attempt: Attempt, inbound: Inbound, model: str | None, dialect: Dialect) -> Prepared | Failure:
    """One try at one endpoint, under its own name for the model: in flight until its answer has ended."""
    answer: Answer | None = None
    verdict: Verdict | None = Verdict.UNKNOWN
    try:
        rendering = dialect(inbound, attempt.endpoint, model)
        while True:
            answer = await door().send(attempt.endpoint, rendering.inbound, rendering.model)
            headers_at = time.monotonic()
            attempt.confirm(answer.status)
            reader = _watch(answer, attempt.endpoint)
            body, first = await rendering.read_ahead(answer)
            other = rendering.rephrase(answer, body)
            if other is None:
                break
            answer.abandon()
            rendering = other
        verdict = None
        if reader is not None:
            reader.whole = body
        return Prepared(attempt, answer, body, first, headers_at, rendering, reader)
    except UnfitError as error:
        attempt.note.error = "unfit"
        return Failure(attempt.endpoint, error)
    except DoorError as error:
        attempt.note.error = failure_word(error)
        verdict = _note_failure(attempt.endpoint, error, inbound)
        return Failure(attempt.endpoint, error)
    finally:
        if verdict is not None:
            attempt.close(verdict)
            if answer is not None:
                answer.abandon()


def _watch(answer: Answer, endpoint: EndpointRecord) -> UsageReader | None:
    """Have what the answer says of its cost remembered as it comes; None where it cannot be read."""
    reader = read_usage_of(answer.status, answer.headers, endpoint.profile)
    if reader is not None:
        answer.tap = reader.note
    return reader


def _note_failure(endpoint: EndpointRecord, error: DoorError, inbound: Inbound) -> Verdict:
    """Log it; when the endpoint cannot be connected to, keep it out at once and tell the prober."""
    logger.warning("%s: %s failed: %s (%s)", inbound.request_id, endpoint.name, error, type(error).__name__)
    if not isinstance(error, NotConnected):
        return Verdict.FAILED
    if error.reason not in _DOWN_REASONS:
        return Verdict.UNKNOWN
    now = time.time()
    live.demote(endpoint, now)
    tasks.spawn(_report(endpoint, str(error), now), f"report {endpoint.name}")
    return Verdict.FAILED


async def _report(endpoint: EndpointRecord, reason: str, seen_at: float) -> None:
    outcome = await reports.report_unreachable(endpoint.id, reason, seen_at)
    if outcome is reports.ReportOutcome.SUPERSEDED:
        live.restore(endpoint.id)


def _discard(prepared: Prepared | None) -> None:
    if prepared is not None:
        prepared.attempt.close(judge_status(prepared.status))
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
    if code is ErrorCode.RATE_LIMITED:
        headers.append((b"Retry-After", b"%d" % live.rates.seconds_left(time.time())))
    return OllaError(code, decision.message, headers=tuple(headers))


def _exhausted(inbound: Inbound, failure: Failure | None) -> OllaError:
    """Nobody answered: what happened at the last endpoint tried."""
    if failure is None:
        return OllaError(ErrorCode.NO_HEALTHY_ENDPOINTS, "No endpoint could be tried.")
    error, name = failure.error, failure.endpoint.name
    if isinstance(error, UnfitError):
        return error.error
    seconds = time.monotonic() - inbound.started
    code = failure_code(error)
    text = str(error).rstrip(".")
    return OllaError(code, f"Endpoint {name} failed after {seconds:.1f}s: {text}. {_HINTS[code]}", endpoint=name)


__all__ = ["Ending", "forward", "may_retry"]
