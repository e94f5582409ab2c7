"""What would become of a request now: the stages of a real one, run dry.

    told = explain(Asked(path="/olla/openai/v1/chat/completions", body=b'{"model":"m"}'))

Every step is the function that a request passes too; where one counts, its look-alike that only looks is asked
(`foresee`, `peek`). Nothing is sent, no counter moves, no session is made. What chance or other requests have a
part in is named in `random`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from django.http import QueryDict
from django.urls import Resolver404, get_resolver
from msgspec.structs import replace

from endpoints import loading
from endpoints.conf import conf
from endpoints.rules import RuleAction
from endpoints.snapshot import Snapshot
from proxy import anthropic_views, views
from proxy.admission import admission, trusted_networks
from proxy.anthropic_dialect import MessagesCall
from proxy.anthropic_record import CallRecord
from proxy.client_identity import ClientIdentity, identify_client
from proxy.errors import ErrorCode, OllaError, choose_shape, shown_status
from proxy.forwarding import refuse_loop
from proxy.inbound import Inbound, RawHeaders
from proxy.live import live, plan
from proxy.places import policy_of
from proxy.record import RequestRecord, no_record
from proxy.routing import Action, Decision, Refresh, route
from proxy.sieve import LiveView
from proxy.steering import obey
from proxy.stickiness import StickyOutcome, find_key
from proxy.telling import Outlook, tell
from proxy.tries import Standing, Try, plan_tries
from translation.anthropic_request import parse_request


class Stage(StrEnum):
    """How far a request comes before it is refused or answered."""

    ADDRESS = "address"  # which part of the product it is for
    ADMISSION = "admission"  # who asks, and how often
    REQUEST = "request"  # what it asks, and whether it can be read
    ROUTING = "routing"  # who may answer


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it would come: `path` percent-encoded or not, headers with names in lower case."""

    path: str
    method: str = "POST"
    query: bytes = b""
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""
    client: str = ""  # the address the connection would come from
    scheme: str = "http"


@dataclass(slots=True)
class PretendedRequest:
    """What the views of the API door see of a request that was never sent."""

    scope: dict[str, Any]
    method: str
    path: str
    raw_headers: RawHeaders
    body: bytes
    GET: Any
    request_id: str = "explain"
    record: RequestRecord | None = field(default_factory=no_record)
    answer_headers: RawHeaders = field(default_factory=list)
    closers: list[Callable[[], None]] = field(default_factory=list)


def pretend(asked: Asked) -> PretendedRequest:
    """The request as the server would hand it on."""
    raw = asked.path.encode("utf-8", "surrogateescape")
    return PretendedRequest(
        scope={"raw_path": raw, "query_string": asked.query, "headers": asked.headers, "scheme": asked.scheme},
        method=asked.method,
        path=unquote(asked.path),
        raw_headers=asked.headers,
        body=asked.body,
        GET=QueryDict(asked.query.decode("utf-8", "replace")),
    )


# How a request that will be forwarded is read once its client is known, with the call when it is a message.
Reader = Callable[[ClientIdentity], tuple[Inbound, MessagesCall | None]]


def explain(asked: Asked, *, live_known: bool = True) -> dict[str, Any]:
    """The decision a request would get now, as plain values (docs/observability.md has the fields).

    `live_known` is False in a process that serves no requests, whose own counters say nothing.
    """
    request = pretend(asked)
    stage = Stage.ADDRESS
    told: dict[str, Any] = {"stage": stage.value, "live_known": live_known}
    try:
        read = _find_reader(request)
        if read is None:
            return told | {"outcome": "answered_here", "answer": None}
        stage = Stage.ADMISSION
        client = _let_in(asked)
        stage = Stage.REQUEST
        inbound, call = read(client)
        refuse_loop(inbound)
        stage = Stage.ROUTING
        return told | {"stage": stage.value} | _explain_routing(inbound, call)
    except OllaError as error:
        return told | {"stage": stage.value, "outcome": "rejected", "answer": _answer_of(error, request.path)}


def _answer_of(error: OllaError, path: str) -> dict[str, Any]:
    status = shown_status(error, choose_shape(path))
    return {"status": status, "code": error.code.value, "message": error.message}


def _find_reader(request: PretendedRequest) -> Reader | None:
    """How the request is read that will be forwarded; None for one answered here. Raises OllaError."""
    if conf().max_body_size and len(request.body) > conf().max_body_size:
        message = f"The request body is over {conf().max_body_size} bytes."
        raise OllaError(ErrorCode.REQUEST_TOO_LARGE, message)
    try:
        match = get_resolver("proxy.urls").resolve(request.path)
    except Resolver404:
        message = "Requests are forwarded under /olla/ alone; this is an address of a page, if of anything."
        raise OllaError(ErrorCode.NOT_FOUND, message) from None
    if match.func is views.proxy:
        return _read_proxied(request, **match.kwargs)
    if match.func is anthropic_views.anthropic:
        return _read_message(request, **match.kwargs)
    if match.func is views.not_found:
        raise OllaError(ErrorCode.NOT_FOUND, f"There is nothing at {request.path[:200]}. See /olla/models.")
    return None


def _read_proxied(request: PretendedRequest, prefix: str, rest: str = "") -> Reader | None:
    folded = views.fold_prefix(prefix)
    if views.answer_reading(request, folded, rest) is not None:
        return None

    def read(client: ClientIdentity) -> tuple[Inbound, None]:
        return views.build_inbound(request, folded, client, no_record()), None

    return read


def _read_message(request: PretendedRequest, rest: str = "") -> Reader | None:
    path = anthropic_views.find_path(rest)
    if not anthropic_views.is_known(path):
        raise OllaError(ErrorCode.NOT_FOUND, f"There is nothing at {request.path[:200]}.")
    if path != "/messages" or request.method == "HEAD":
        return None
    anthropic_views.require_post(request)

    def read(client: ClientIdentity) -> tuple[Inbound, MessagesCall]:
        record = CallRecord(live.anthropic, time.monotonic())
        call = anthropic_views.build_call(request, client, record, parse_request)
        return call.inbound, call

    return read


def _let_in(asked: Asked) -> ClientIdentity:
    """Who would ask. Raises OllaError(rate_limited) if there were no room for the request now."""
    client = identify_client(asked.client, asked.scheme, asked.headers, trusted_networks())
    refusal = admission.foresee(client, time.time())
    if refusal is not None:
        raise refusal
    return client


def _explain_routing(inbound: Inbound, call: MessagesCall | None) -> dict[str, Any]:
    """What routing decides, who would be tried and in which order. Raises OllaError for a pin that cannot be."""
    snapshot, view = loading.current(), live.view()
    decision, refreshes = _route(snapshot, inbound, view)
    steered = obey(snapshot, inbound, view, decision)
    key = None if steered.pinned or not live.sticky.rules.enabled else find_key(inbound, live.sticky.rules)
    session_endpoint = live.sticky.peek(key.text, time.monotonic()) if key else None
    outlook = Outlook(
        decision=steered,
        tries=_plan(steered, session_endpoint),
        refreshes=refreshes,
        split=_explain_split(snapshot, inbound, view, decision),
        session=_explain_session(steered, key.source.value if key else None, session_endpoint),
        call=call,
    )
    told = tell(snapshot, inbound, view, outlook)
    if decision.action is Action.REJECTED:
        error = OllaError(decision.code or ErrorCode.INTERNAL_ERROR, decision.message)
        told["answer"] = {**_answer_of(error, ""), "status": shown_status(error, inbound.shape)}
    return told


def _route(snapshot: Snapshot, inbound: Inbound, view: LiveView) -> tuple[Decision, bool]:
    """The decision, and whether models would be read anew first; it is then the one if that brings nothing new."""
    decision = route(snapshot, inbound, view, plan())
    if not decision.refresh:
        return decision, False
    return route(snapshot, inbound, view, plan(Refresh.DONE)), True


def _plan(decision: Decision, session_endpoint: int | None) -> list[Try]:
    standing = Standing(
        live.in_flight,
        live.queue.has_room,
        live.peek_cursor,
        session_endpoint,
        decision.loaded,
        conf().loaded_first_requests,
    )
    return plan_tries(decision.tiers, policy_of(decision), standing)


def _explain_split(
    snapshot: Snapshot, inbound: Inbound, view: LiveView, decision: Decision
) -> dict[str, Any] | None:
    """Both sides of a rule that shares requests out: who is tried in which order on each."""
    if decision.rule is None or decision.rule.action is not RuleAction.SPLIT:
        return None
    sides = {"inside": replace(view, dice=0.0), "outside": replace(view, dice=1.0)}
    orders = {}
    for name, side in sides.items():
        other, _ = _route(snapshot, inbound, side)
        orders[name] = [each.endpoint.name for each in _plan(other, None)]
    return {"percentage": decision.rule.percentage, "dice": round(view.dice, 4), **orders}


def _explain_session(decision: Decision, source: str | None, endpoint_id: int | None) -> dict[str, Any] | None:
    """What sticky sessions have to do with it; None while they are off."""
    if not live.sticky.rules.enabled:
        return None
    known = next((each for each in decision.candidates if each.id == endpoint_id), None)
    if source is None:
        outcome = StickyOutcome.DISABLED
    elif endpoint_id is None:
        outcome = StickyOutcome.MISS
    else:
        outcome = StickyOutcome.HIT if known is not None else StickyOutcome.REPIN
    return {"outcome": outcome.value, "source": source, "endpoint": known.name if known else None}


__all__ = ["Asked", "Stage", "explain"]
