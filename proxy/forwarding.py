"""THE STORY: a request is routed, tried at one endpoint after another, judged and answered.

    forward     route -> try -> answer
    may_retry   the one place that decides whether a failure is tried elsewhere

Failures before the client has a byte may be hidden by another endpoint; after that they are told honestly
(`proxy.relay`). A client that leaves cancels the story at whatever point it is, and is nobody's failure.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from endpoints import loading, reports, tasks
from endpoints.conf import conf
from endpoints.health import parse_retry_after
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
from proxy.headers import has_looped
from proxy.inbound import Inbound, get_header
from proxy.live import live, plan
from proxy.places import Tiers, have_room, take_place
from proxy.provider_metrics import UsageReader, read_usage_of
from proxy.relay import Ending, RelayResponse
from proxy.routing import Action, Decision, Plan, Refresh, route
from proxy.steering import obey
from proxy.stickiness import Visit, start_visit
from proxy.unanswered import Failure, build_exhausted, build_rejection, build_untried
from proxy.upstream import door, failure_word, via_token

logger = logging.getLogger(__name__)

# What says that an endpoint is down, not that this machine or this one request is at fault.
_DOWN_REASONS = frozenset({
    NotConnectedReason.DNS, NotConnectedReason.REFUSED, NotConnectedReason.UNREACHABLE, NotConnectedReason.TLS,
    NotConnectedReason.TIMEOUT, NotConnectedReason.FORBIDDEN_ADDRESS,
})  # fmt: skip


async def forward(inbound: Inbound, dialect: Dialect = as_it_came) -> RelayResponse:
    """Answer one request from the best endpoint that can, put to each in `dialect`. Raises OllaError."""
    refuse_loop(inbound)
    decision = await _decide(inbound)
    if decision.action is Action.REJECTED:
        raise build_rejection(decision)
    # A session is not moved by an operator who looks at one endpoint.
    visit = Visit(live.sticky, None) if decision.pinned else start_visit(live.sticky, inbound)
    try:
        decision, prepared = await _try_in_turn(inbound, decision, visit, dialect)
    finally:
        inbound.record.sticky = visit.outcome
    _note_answer(inbound, decision, prepared)
    extra = visit.headers()
    if inbound.record.queue_wait:
        extra.append((b"X-Olla-Queue-Wait", b"%dms" % round(inbound.record.queue_wait * 1000)))
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
            if held is not None and not have_room(tiers):
                break  # waiting in line while holding a place could block others that do the same
            attempt = await take_place(tiers, tried, decision, visit, inbound)
            if attempt is None:
                if not any(tiers):
                    decision, tiers = _look_again(inbound, decision, tried)
                continue
            inbound.record.attempts.append(attempt.note)
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
    raise build_exhausted(inbound, failure) if failure is not None else build_untried(_route_again(inbound))


def _wants_another(outcome: Prepared | Failure) -> bool:
    """Whether another endpoint's answer would be better, if it may be asked for."""
    return isinstance(outcome, Failure) or outcome.status in outcome.attempt.endpoint.retry_statuses


def _look_again(inbound: Inbound, decision: Decision, tried: set[int]) -> tuple[Decision, Tiers]:
    """Who can answer now and was not tried: endpoints come back while a request waits for others."""
    if decision.pinned:
        return decision, []
    again = _route_again(inbound)
    tiers = [[each for each in tier if each.id not in tried] for tier in again.tiers]
    if not any(tiers):
        return decision, []
    return replace(again, sent_names={**decision.sent_names, **again.sent_names}), tiers


def _route_again(inbound: Inbound) -> Decision:
    """Route by what is known by now; models are not read anew once more."""
    return route(loading.current(), inbound, live.view(), plan(Refresh.DONE))


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


async def _attempt(attempt: Attempt, inbound: Inbound, model: str | None, dialect: Dialect) -> Prepared | Failure:
    """One try at one endpoint, under its own name for the model: in flight until its answer has ended."""
    answer: Answer | None = None
    verdict: Verdict | None = Verdict.UNKNOWN
    try:
        rendering = dialect(inbound, attempt.endpoint, model)
        while True:
            await rendering.prepare()
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


__all__ = ["Ending", "forward", "may_retry"]
