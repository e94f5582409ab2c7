"""An explanation as plain values: who was considered, who dropped and why, who is tried in which order."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from endpoints.conf import conf
from endpoints.snapshot import EndpointRecord, Snapshot
from proxy.anthropic_dialect import MessagesCall, native_path, native_support
from proxy.anthropic_translated import chat_path
from proxy.breaker import GateState
from proxy.inbound import Inbound, join_target
from proxy.live import live
from proxy.places import policy_of
from proxy.routing import Decision
from proxy.sieve import LiveView
from proxy.tracing import Considered, trace
from proxy.tries import Try, Why
from translation.mode import Mode, choose_mode


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a rehearsal found out."""

    decision: Decision
    tries: list[Try]
    refreshes: bool  # models would be read anew before this
    split: dict[str, Any] | None
    session: dict[str, Any] | None
    call: MessagesCall | None


def tell(snapshot: Snapshot, inbound: Inbound, view: LiveView, outlook: Outlook) -> dict[str, Any]:
    """The explanation of a request that came as far as routing."""
    decision = outlook.decision
    told = trace(snapshot, inbound, view, decision)
    places = {each.endpoint.id: place for place, each in enumerate(outlook.tries, 1)}
    return {
        "outcome": decision.action.value,
        "answer": None,
        "strategy": str(decision.strategy),
        "reason": decision.reason,
        "policy": str(policy_of(decision)),
        "rule": decision.rule.name if decision.rule else None,
        "rules": [{"name": name, "matched": matched} for name, matched in told.rules],
        "model": inbound.model,
        "prefix": inbound.prefix,
        "path": inbound.path,
        "client": inbound.client,
        "pinned": decision.pinned,
        "reads_models_first": outlook.refreshes,
        "session": outlook.session,
        "split": outlook.split,
        "random": find_random(outlook),
        "tries": [_tell_try(each, inbound, outlook) for each in outlook.tries],
        "tries_left_out": len(decision.candidates) - len(outlook.tries),
        "fails_over": _tell_failing_over(inbound, decision),
        "endpoints": [_tell_endpoint(each, places, view) for each in told.considered],
        "revision": snapshot.revision,
        "as_of": view.now,
    }


def find_random(outlook: Outlook) -> list[str]:
    """What other requests or chance have a part in, so that the next request may fare otherwise."""
    found = []
    if outlook.split is not None:
        found.append("dice")
    if outlook.refreshes:
        found.append("discovery")
    if any(each.is_turn for each in outlook.tries):
        found.append("turn")
    if any(each.why is Why.QUEUE for each in outlook.tries):
        found.append("queue")
    return found


def _tell_try(each: Try, inbound: Inbound, outlook: Outlook) -> dict[str, Any]:
    endpoint = each.endpoint
    path, mode = inbound.path, None
    if outlook.call is not None:
        enabled = conf().translators_anthropic_passthrough_enabled
        mode = choose_mode(outlook.call.needs, native_support(endpoint), passthrough_enabled=enabled).mode
        path = native_path(endpoint) if mode is Mode.PASSTHROUGH else chat_path(endpoint.profile)
    return {
        "endpoint": endpoint.name,
        "why": each.why.value,
        "turn": each.is_turn,
        "sends_model": outlook.decision.sent_names.get(endpoint.id) or inbound.model,
        "sends_path": join_target(endpoint.base_path, path, preserve=endpoint.preserve_path),
        "mode": mode.value if mode else None,
    }


def _tell_failing_over(inbound: Inbound, decision: Decision) -> dict[str, Any]:
    """After which failures the next one would be tried (`proxy.forwarding.may_retry`)."""
    statuses: set[int] = set().union(*(each.retry_statuses for each in decision.candidates))
    return {
        "no_connection": not decision.pinned,
        "lost_answer": not decision.pinned and (inbound.is_inference or inbound.method in ("GET", "HEAD")),
        "statuses": [] if decision.pinned else sorted(statuses),
    }


def _tell_endpoint(each: Considered, places: dict[int, int], view: LiveView) -> dict[str, Any]:
    endpoint = each.endpoint
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "backend_type": endpoint.backend_type,
        "kept": bool(each.order),
        "dropped": each.dropped.value if each.dropped else None,
        "tier": each.order or None,
        "try": places.get(endpoint.id),
        "sends_model": each.sent_name,
        "status": endpoint.status.value,
        "state": endpoint.state_at(view.now).value,
        "stale": endpoint.is_stale(view.now, view.prober_seen),
        "breaker": _gate_of(endpoint).value,
        "in_flight": live.in_flight[endpoint.id],
        "has_room": live.queue.has_room(endpoint.id),
    }


def _gate_of(endpoint: EndpointRecord) -> GateState:
    return live.breaker.view(endpoint.id, time.monotonic()).state
