"""What an operator's order does to a decision, and the compact trace in X-Olla-Trace. (pure)"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from endpoints.snapshot import EndpointRecord, Snapshot
from proxy.decision import Action, Decision
from proxy.errors import ErrorCode, OllaError
from proxy.inbound import Inbound, Order
from proxy.sieve import LiveView
from proxy.tracing import Trace, trace

TRACE_HEADER = b"X-Olla-Trace"
# What servers and proxies accept as one header, with room for the others.
MOST_TRACE_BYTES = 4096
_NAMES_SHOWN = (64, 24, 8, 3, 0)
_LONGEST_NAME = 100
# The same pin would meet the same endpoint.
_NO_RETRY = ((b"x-should-retry", b"false"),)


def obey(snapshot: Snapshot, inbound: Inbound, view: LiveView, decision: Decision) -> Decision:
    """The decision an operator's request gets; one made of these facts by `route`. Raises OllaError."""
    order = inbound.order
    if order is None:
        return decision
    told = trace(snapshot, inbound, view, decision)
    if order.trace_to is not None:
        order.trace_to[:] = [pair for pair in order.trace_to if pair[0] != TRACE_HEADER]
        order.trace_to.append((TRACE_HEADER, build_compact(told, view, order)))
    if order.pin is None or decision.action is Action.REJECTED:
        return decision
    endpoint = _find_pinned(snapshot, order.pin)
    if endpoint not in decision.candidates:
        raise OllaError(ErrorCode.PINNED_UNAVAILABLE, _why_not(told, endpoint), headers=_NO_RETRY)
    return replace(decision, tiers=((endpoint,),), pinned=True)


def _find_pinned(snapshot: Snapshot, wanted: str) -> EndpointRecord:
    """An endpoint by its name, else by its number. Raises OllaError(invalid_request)."""
    named = next((each for each in snapshot.endpoints if each.name == wanted), None)
    if named is None and wanted.isascii() and wanted.isdigit():
        named = snapshot.by_id.get(int(wanted[:18]))
    if named is None:
        message = f"X-Olla-Pin names {wanted[:_LONGEST_NAME]!r}, and there is no such endpoint."
        raise OllaError(ErrorCode.INVALID_REQUEST, message)
    return named


def _why_not(told: Trace, endpoint: EndpointRecord) -> str:
    dropped = next(each.dropped for each in told.considered if each.endpoint is endpoint)
    return (
        f"The pinned endpoint {endpoint.name} may not answer this request now ({dropped or 'not a candidate'}), "
        "and a pin allows no other."
    )


def build_compact(told: Trace, view: LiveView, order: Order) -> bytes:
    """A trace as JSON in ASCII of at most MOST_TRACE_BYTES: lists of names are cut first, then left out."""
    for shown in _NAMES_SHOWN:
        text = json.dumps(_compact(told, view, order, shown), separators=(",", ":")).encode("ascii")
        if len(text) <= MOST_TRACE_BYTES:
            return text
    return b'{"action":"%s","cut":true}' % told.decision.action.encode("ascii")


def _compact(told: Trace, view: LiveView, order: Order, shown: int) -> dict[str, Any]:
    decision = told.decision
    dropped: dict[str, list[str]] = {}
    for each in told.considered:
        if each.dropped is not None:
            dropped.setdefault(each.dropped, []).append(each.endpoint.name)
    sent = {each.endpoint.name: each.sent_name for each in told.considered if each.order and each.sent_name}
    fields: dict[str, Any] = {
        "action": decision.action.value,
        "strategy": str(decision.strategy),
        "reason": decision.reason[:300],
        "code": decision.code.value if decision.code else "",
        "rule": decision.rule.name[:_LONGEST_NAME] if decision.rule else "",
        "rules": [[name[:_LONGEST_NAME], matched] for name, matched in told.rules[-shown:] if shown],
        "pin": (order.pin or "")[:_LONGEST_NAME],
        "tiers": [_names([each.name for each in tier], shown) for tier in decision.tiers],
        "loaded_first": _names([each.endpoint.name for each in told.considered if each.loaded_first], shown),
        "sent": dict(list(sent.items())[:shown]),
        "dropped": {reason: _names(names, shown) for reason, names in dropped.items()},
        "dice": round(view.dice, 4) if told.is_split else None,
        "revision": told.revision,
    }
    return {key: value for key, value in fields.items() if value not in ("", [], {}, None)}


def _names(names: list[str], shown: int) -> list[str | int]:
    """The first names, then how many more there are."""
    more = len(names) - shown
    return [*names[:shown], more] if more > 0 else [*names]
