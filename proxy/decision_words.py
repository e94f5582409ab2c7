"""Decisions, attempts and what they note in words for people: admin, portal and the explain command. (pure)

The log and the headers keep the short codes, which programs compare; nobody else should have to know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `proxy.sieve.DropReason` in words that follow an endpoint's name.
DROPPED: Mapping[str, str] = {
    "other_kind": "its kind does not answer under this prefix",
    "guarded_path": "the path would change or reveal it",
    "rule": "the rule leaves it out",
    "model_missing": "it does not have the model",
    "path": "its kind does not serve the path",
    "capability": "its copy of the model lacks what the request needs",
    "operator_state": "an operator took it out",
    "status": "its status takes no traffic",
    "seen_failing": "a request to it failed a moment ago",
    "breaker_open": "its breaker is open",
    "resting": "it asked for a rest (429)",
    "rate_limited": "its requests for this minute are used up",
}
# Why an endpoint would be tried at its place (`proxy.tries.Why`).
TRY_WHY: Mapping[str, str] = {
    "policy": "chosen by the policy",
    "loaded_first": "has the model in memory",
    "session": "the session's endpoint",
    "queue": "whoever has room first",
}
# How far a request comes (`proxy.rehearsal.Stage`).
STAGES: Mapping[str, str] = {
    "address": "the address",
    "admission": "the limits of the client",
    "request": "reading the request",
    "routing": "routing",
}
# `Decision.reason` in words; an alias tells its own.
_REASONS: Mapping[str, str] = {
    "model_found": "endpoints here have the model",
    "model_found_no_refresh": "endpoints here have the model, so nothing had to be read anew",
    "model_not_found": "no endpoint here has the model",
    "model_unavailable": "the endpoints that have the model take no requests now",
    "model_unavailable_no_fallback": "those that have the model take no requests now, and no other may answer",
    "model_unavailable_compatible_only": "those that have the model take no requests now; only they may answer",
    "model_unavailable_no_refresh": "none that has the model takes requests now, and models are not read anew",
    "model_unavailable_after_discovery": "none that has it takes requests now, also after reading models anew",
    "all_healthy_fallback": "the endpoints that have the model take no requests now, so any other may answer",
    "model_not_found_fallback": "no endpoint here has the model, so any may answer",
    "all_healthy_after_discovery": "models were read anew without finding this one, so any endpoint may answer",
    "discovery": "models are read anew first",
    "discovery_failed_all_fallback": "models could not be read anew, so any endpoint may answer",
    "discovery_failed_no_fallback": "models could not be read anew, and no other endpoint may answer",
    "discovery_failed_compatible_only": "models could not be read anew, and only those that have it may answer",
    "no_healthy_after_discovery": "no endpoint takes requests now, also after reading models anew",
    "no_healthy_endpoints": "no endpoint takes requests now",
    "endpoint_rate_limited": "the requests of every endpoint that could answer are used up for this minute",
    "forbidden_by_rule": "a rule leaves no endpoint",
}  # fmt: skip
_ACTIONS: Mapping[str, str] = {
    "routed": "Routed", "fallback": "Routed elsewhere as a fallback", "rejected": "Rejected",
}  # fmt: skip
# What an attempt notes as its error (`proxy.upstream.failure_word` and its like).
_ERRORS: Mapping[str, str] = {
    "not_connected_dns": "its name could not be resolved",
    "not_connected_refused": "it refused the connection",
    "not_connected_unreachable": "it could not be reached",
    "not_connected_tls": "no secure connection could be made",
    "not_connected_timeout": "no connection in time",
    "not_connected_forbidden_address": "its address is never contacted",
    "not_connected_closed": "it closed the connection at once",
    "not_connected_no_free_connection": "every connection it may have stayed busy",
    "not_connected_local": "this machine is out of sockets, ports or memory",
    "nothing_received": "the connection ended before any answer",
    "first_byte_timeout": "no answer in time",
    "idle_timeout": "it fell silent in the midst of its answer",
    "total_timeout": "its answer took longer than it may",
    "bad_answer": "its answer was no HTTP",
    "cut_head": "its answer ended within the headers",
    "lost_mid_body": "the connection ended in the midst of its answer",
    "broke_off": "its answer broke off",
    "unfit": "the request could not be put to it",
}


def describe_reason(reason: str) -> str:
    """Why a request was routed as it was."""
    return _REASONS.get(reason) or reason.replace("_", " ")


def describe_dropped(reason: str) -> str:
    """Why an endpoint may not answer."""
    return DROPPED.get(reason) or reason.replace("_", " ")


def describe_error(error: str) -> str:
    """Why an attempt brought no answer, or no whole one."""
    return _ERRORS.get(error) or error.replace("_", " ")


def describe_attempt(note: Mapping[str, Any]) -> str:
    """One attempt in words."""
    parts = [f"{note['endpoint']}: began after {write_ms(note['began_ms'])}"]
    if note["waited_ms"]:
        parts.append(f"waited {write_ms(note['waited_ms'])} in line")
    parts.append(f"answered {note['status']}" if note["status"] else "no answer")
    if note["error"]:
        parts.append(describe_error(note["error"]))
    if note["ms"] is not None:
        parts.append(f"took {write_ms(note['ms'])}")
    return ", ".join(parts)


def describe_trace(trace: Mapping[str, Any]) -> list[str]:
    """The decision in words, a line for each part."""
    action, reason = _ACTIONS.get(trace["action"], trace["action"]), trace.get("reason")
    strategy = f" by the strategy {trace['strategy']}" if trace.get("strategy") else ""
    lines = [f"{action}{strategy}{': ' if reason else ''}{describe_reason(reason or '')}."]
    if trace.get("rule"):
        lines.append(f"Rule: {trace['rule']}")
    tiers = trace.get("candidates") or []
    lines += [f"To be tried {number}: {', '.join(tier)}" for number, tier in enumerate(tiers, 1)]
    dropped = trace.get("dropped") or {}
    return lines + [f"Left out: {count} ({describe_dropped(reason)})" for reason, count in dropped.items()]


def write_ms(value: float | None) -> str:
    """A time as people read it; empty for none."""
    if value is None:
        return ""
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
