"""One log line for each forwarded request, when it has ended: who asked what, who answered, how it went.

A sink of `proxy.finished`. The level says how it went: INFO for answers and for clients that left, WARNING for
refusals, ERROR for failures.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from olla_site.log_lines import Batch, Line, encode_json, format_time, is_json
from olla_site.redaction import redact
from proxy import finished
from proxy.finished import subscribe
from proxy.record import Outcome, RequestRecord
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


class RequestLine(msgspec.Struct, omit_defaults=True):
    """The fields of a line, in their order; what is not known is left out."""

    time: str
    level: str
    logger: str
    message: str
    request_id: str
    method: str
    path: str
    client_ip: str
    status: int | None
    duration_ms: float
    endpoint: str = ""
    model: str = ""
    provider_model: str = ""
    stream: bool = False
    translator_mode: str = ""
    ttft_ms: float | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    tokens_per_sec: float | None = None
    routing_strategy: str = ""
    routing_action: str = ""
    routing_reason: str = ""
    rule: str = ""
    sticky_outcome: str = ""
    queue_wait_ms: float = 0.0
    attempts: int = 1
    failed_attempts: list[str] = []
    error_code: str = ""
    client_key: str = ""


def build_line(record: RequestRecord) -> RequestLine:
    """The line of a finished request. What the client wrote is cleaned of secrets."""
    outcome = record.outcome or Outcome.BROKEN
    line = RequestLine(
        time=format_time(record.at + record.seconds),
        level=_LEVEL_NAMES[outcome],
        logger=_NAME,
        message=_MESSAGES[outcome],
        request_id=redact(record.request_id),
        method=record.method,
        path=_clean(record.path),
        client_ip=record.client,
        status=record.status,
        duration_ms=round(record.seconds * 1000, 3),
        stream=record.stream,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        attempts=len(record.attempts),
        error_code=record.error_code or "",
        client_key=record.client_key or "",
        translator_mode=record.mode or "",
    )
    if record.model:
        line.model = _clean(record.model)
    if record.sent_model and record.sent_model != record.model:
        line.provider_model = record.sent_model[:_LONGEST]
    if record.queue_wait:
        line.queue_wait_ms = round(record.queue_wait * 1000, 3)
    if record.first_byte is not None:
        line.ttft_ms = round(record.first_byte * 1000, 3)
    if record.sticky and record.sticky != StickyOutcome.DISABLED:
        line.sticky_outcome = record.sticky
    _add_endpoint(line, record)
    _add_decision(line, record)
    _add_usage(line, record)
    return line


def _add_endpoint(line: RequestLine, record: RequestRecord) -> None:
    if record.endpoint is not None:
        line.endpoint = record.endpoint.name
    failed = [each for each in record.attempts if each is not record.answered]
    if failed:
        line.failed_attempts = [
            f"{each.endpoint.name}: {each.error or each.status or each.verdict}" for each in failed
        ]


def _add_decision(line: RequestLine, record: RequestRecord) -> None:
    decision = record.decision
    if decision is None:
        return
    line.routing_action = str(decision.action)
    if decision.strategy:
        line.routing_strategy = str(decision.strategy)
        line.routing_reason = decision.reason
    if decision.rule is not None:
        line.rule = decision.rule.name


def _add_usage(line: RequestLine, record: RequestRecord) -> None:
    usage = record.usage
    if usage is None:
        return
    line.input_tokens, line.output_tokens = usage.input_tokens, usage.output_tokens
    line.total_tokens = record.total_tokens
    speed = record.tokens_per_second
    line.tokens_per_sec = None if speed is None else round(speed, 2)


def render_text(line: RequestLine) -> str:
    """A line for people: how it went first, then what else is known as `name=value`."""
    parts = [
        f"{line.time} {line.level:<7} {line.logger}: {line.message}: {line.method} {_bare(line.path)} "
        f"{line.status or '-'} {line.duration_ms:g}ms request_id={_quote(line.request_id)}"
    ]
    values = _take_named(astuple(line))
    parts += [f"{name}={_show(value)}" for name, value in zip(_NAMED, values, strict=True) if value]
    return " ".join(parts)


def _show(value: Any) -> Any:
    if type(value) is str:
        return _bare(value)
    return _bare(", ".join(value)) if type(value) is list else value


_NAMED = tuple(
    name
    for name in RequestLine.__struct_fields__
    if name not in {"time", "level", "logger", "message", "method", "path", "status", "duration_ms", "request_id"}
)
_take_named = itemgetter(*(RequestLine.__struct_fields__.index(name) for name in _NAMED))
_ONE_WORD = re.compile(r"[!#-<>-~]+")
_MOST_REMEMBERED = 300  # characters


def _quote(text: str) -> str:
    """A value as it is where it is one word, else in quotes: nothing a client writes looks like another field."""
    return text if _ONE_WORD.fullmatch(text) else encode_json(text)


_quote_once = lru_cache(maxsize=2048)(_quote)


def _bare(text: str) -> str:
    """As `_quote`; paths and names come again and again."""
    return _quote_once(text) if len(text) <= _MOST_REMEMBERED else _quote(text)


_redact_once = lru_cache(maxsize=2048)(redact)


def _clean(text: str) -> str:
    """What a client wrote, without secrets and no longer than worth reading."""
    return _redact_once(text) if len(text) <= _MOST_REMEMBERED else redact(text[:_LONGEST])


def _render(record: RequestRecord) -> Line:
    line = build_line(record)
    text = encode_json(line) if is_json() else render_text(line)
    return Line(_LEVELS[record.outcome or Outcome.BROKEN], text, record.at + record.seconds)


_batch: Batch[RequestRecord] = Batch(logger, _render)


def note(record: RequestRecord) -> None:
    """The sink: keeps a finished record until its line is written."""
    if logger.isEnabledFor(_LEVELS[record.outcome or Outcome.BROKEN]):
        _batch.add(record)


def start() -> None:
    """Write a line for every request that ends from now on."""
    subscribe(note)


def flush() -> None:
    """Write what is pending, before the process ends."""
    finished.flush()
    _batch.flush()
