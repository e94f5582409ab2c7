"""One log line for each forwarded request, when it has ended: who asked what, who answered, how it went.

A sink of `proxy.finished`. The level says how it went: INFO for answers and for clients that left, WARNING for
refusals, ERROR for failures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from endpoints.redaction import redact
from olla_site.log_lines import Line, encode_json, format_time, is_json, write_lines
from proxy import finished
from proxy.record import Outcome, RequestRecord, milliseconds
from proxy.stickiness import StickyOutcome

_NAME = "proxy.requests"
logger = logging.getLogger(_NAME)

_LEVELS = {
    Outcome.SUCCESS: logging.INFO,
    Outcome.CLIENT_GONE: logging.INFO,
    Outcome.REJECTED: logging.WARNING,
    Outcome.BACKEND_ERROR: logging.ERROR,
    Outcome.BROKEN: logging.ERROR,
}
_LEVEL_NAMES = {outcome: logging.getLevelName(level) for outcome, level in _LEVELS.items()}
_MESSAGES = {
    Outcome.SUCCESS: "request completed",
    Outcome.CLIENT_GONE: "client left",
    Outcome.REJECTED: "request rejected",
    Outcome.BACKEND_ERROR: "request failed",
    Outcome.BROKEN: "answer broke off",
}
_LONGEST = 2048


class OwnFields(msgspec.Struct, omit_defaults=True):
    """What is different in nearly every line."""

    time: str
    request_id: str
    status: int | None
    duration_ms: float
    failed_attempts: list[str] = []


class Numbers(msgspec.Struct, omit_defaults=True):
    """What was counted and measured; what is not known is left out."""

    ttft_ms: float | None = None
    queue_wait_ms: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    tokens_per_sec: float | None = None
    attempts: int = 0


class SharedFields(msgspec.Struct, omit_defaults=True, frozen=True):
    """What many lines have in common: requests come from few clients for few models."""

    level: str
    logger: str
    message: str
    method: str
    path: str
    client_ip: str
    endpoint: str = ""
    model: str = ""
    provider_model: str = ""
    stream: bool = False
    translator_mode: str = ""
    routing_strategy: str = ""
    routing_action: str = ""
    routing_reason: str = ""
    rule: str = ""
    sticky_outcome: str = ""
    error_code: str = ""
    client_key: str = ""


class Shared(NamedTuple):
    """The shared fields as texts: before and after a line's own fields, and as members of a JSON object."""

    before: str
    after: str
    members: str


class RequestLine(NamedTuple):
    """A line in its parts."""

    own: OwnFields
    numbers: Numbers
    shared: Shared


def build_line(record: RequestRecord) -> RequestLine:
    """The line of a finished request. What the client wrote is cleaned of secrets."""
    own = OwnFields(
        format_time(record.at + record.seconds),
        redact(record.request_id),
        record.status,
        milliseconds(record.seconds),
    )
    first, usage, attempts = record.first_byte, record.usage, record.attempts
    numbers = Numbers(
        None if first is None else milliseconds(first),
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        attempts=len(attempts),
    )
    if record.queue_wait:
        numbers.queue_wait_ms = milliseconds(record.queue_wait)
    if usage is not None:
        numbers.input_tokens, numbers.output_tokens = usage.input_tokens, usage.output_tokens
        numbers.total_tokens = record.total_tokens
        speed = record.tokens_per_second
        numbers.tokens_per_sec = None if speed is None else round(speed, 2)
    if attempts and (len(attempts) > 1 or attempts[0] is not record.answered):
        own.failed_attempts = [
            f"{each.endpoint.name}: {each.error or each.status or each.verdict}"
            for each in attempts
            if each is not record.answered
        ]
    return RequestLine(own, numbers, _share(record))


def _share(record: RequestRecord) -> Shared:
    endpoint, decision = record.endpoint, record.decision
    known = (
        record.outcome or Outcome.BROKEN, record.method, record.path, record.client,
        endpoint.name if endpoint is not None else "", record.model, record.sent_model, record.stream, record.mode,
        record.sticky, record.error_code, record.client_key,
    )  # fmt: skip
    decided = _NOT_DECIDED
    if decision is not None:
        rule = decision.rule
        decided = (decision.strategy, decision.action, decision.reason, rule.name if rule is not None else "")
    share = _build_shared if len(record.path) + len(record.model or "") > _MOST_REMEMBERED else _share_once
    return share(known, decided)


_NOT_DECIDED = ("", "", "", "")


def _build_shared(known: tuple[Any, ...], decided: tuple[str, ...]) -> Shared:
    outcome, method, path, client, endpoint, model, sent_model, stream, mode, sticky, error_code, key = known
    strategy, action, reason, rule = decided
    fields = SharedFields(
        level=_LEVEL_NAMES[outcome],
        logger=_NAME,
        message=_MESSAGES[outcome],
        method=method,
        path=redact(path[:_LONGEST]),
        client_ip=client,
        endpoint=endpoint,
        model=redact(model[:_LONGEST]) if model else "",
        provider_model=redact(sent_model[:_LONGEST]) if sent_model and sent_model != model else "",
        stream=stream,
        translator_mode=mode or "",
        routing_strategy=str(strategy),
        routing_action=str(action),
        routing_reason=reason if strategy else "",
        rule=rule,
        sticky_outcome=sticky if sticky and sticky != StickyOutcome.DISABLED else "",
        error_code=error_code or "",
        client_key=key or "",
    )
    named = zip(SharedFields.__struct_fields__, astuple(fields), strict=True)
    shown = [f" {name}={_quote(str(value))}" for name, value in named if value and name not in _BEFORE]
    before = f"{fields.level:<7} {_NAME}: {fields.message}: {method} {_quote(fields.path)}"
    return Shared(before, "".join(shown), encode_json(fields)[1:])


_BEFORE = frozenset({"level", "logger", "message", "method", "path"})
_share_once = lru_cache(maxsize=2048)(_build_shared)


def render_text(line: RequestLine) -> str:
    """A line for people: how it went first, then what else is known as `name=value`."""
    own, numbers, shared = line
    # The JSON of numbers needs but other signs between them, and takes a quarter of what formatting them takes.
    counted = encode_json(numbers)[1:-1].replace(',"', " ").replace('":', "=").replace('"', " ", 1)
    failed = f" failed_attempts={_quote(', '.join(own.failed_attempts))}" if own.failed_attempts else ""
    return (
        f"{own.time} {shared.before} {own.status or '-'} {own.duration_ms:g}ms request_id={_quote(own.request_id)}"
        f"{counted}{failed}{shared.after}"
    )


def render_json(line: RequestLine) -> str:
    """A line as one JSON object."""
    numbers = encode_json(line.numbers)[1:-1]
    return f"{encode_json(line.own)[:-1]},{numbers}{',' if numbers else ''}{line.shared.members}"


_ONE_WORD = re.compile(r"[!#-<>-~]+")
_MOST_REMEMBERED = 300  # characters


def _quote(text: str) -> str:
    """A value as it is where it is one word, else in quotes: nothing a client writes looks like another field."""
    return text if _ONE_WORD.fullmatch(text) else encode_json(text)


def _render(record: RequestRecord) -> Line:
    line = build_line(record)
    text = render_json(line) if is_json() else render_text(line)
    return Line(_LEVELS[record.outcome or Outcome.BROKEN], text, record.at + record.seconds)


def note(records: Iterable[RequestRecord]) -> None:
    """The sink: writes the lines of finished requests."""
    lines = []
    for each in records:
        if logger.isEnabledFor(_LEVELS[each.outcome or Outcome.BROKEN]):
            try:
                lines.append(_render(each))
            except Exception:  # whatever is odd about one, the others' lines are written
                logger.exception("the line of request %s cannot be written", each.request_id)
    write_lines(logger, lines)


def start() -> None:
    """Write a line for every request that ends from now on."""
    finished.subscribe(note)
