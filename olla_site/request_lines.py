"""One log line for each forwarded request, when it has ended: who asked what, who answered, how it went.

A sink of `proxy.finished`. The level says how it went: INFO for answers and for clients that left, WARNING for
refusals, ERROR for failures.
"""

from __future__ import annotations

import logging
import re

import msgspec

from olla_site.log_lines import Batch, encode_json, format_time, is_json, write_line
from olla_site.redaction import redact
from proxy.finished import subscribe
from proxy.record import Outcome, RequestRecord
from proxy.stickiness import StickyOutcome

logger = logging.getLogger("proxy.requests")

_LEVELS = {
    Outcome.SUCCESS: logging.INFO,
    Outcome.CLIENT_GONE: logging.INFO,
    Outcome.REJECTED: logging.WARNING,
    Outcome.BACKEND_ERROR: logging.ERROR,
    Outcome.BROKEN: logging.ERROR,
}
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
        level=logging.getLevelName(_LEVELS[outcome]),
        logger=logger.name,
        message=_MESSAGES[outcome],
        request_id=redact(record.request_id),
        method=record.method,
        path=redact(record.path[:_LONGEST]),
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
        line.model = redact(record.model[:_LONGEST])
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
        f"{line.status or '-'} {line.duration_ms:g}ms"
    ]
    for name in _NAMED:
        value = getattr(line, name)
        if value:
            parts.append(f"{name}={_bare(value) if type(value) in _WRITTEN else value}")
    return " ".join(parts)


_NAMED = tuple(
    name
    for name in RequestLine.__struct_fields__
    if name not in {"time", "level", "logger", "message", "method", "path", "status", "duration_ms"}
)
_WRITTEN = frozenset({str, list})
_ONE_WORD = re.compile(r"[!#-<>-~]+")


def _bare(value: str | list[str]) -> str:
    """A value as it is where it is one word, else in quotes: nothing a client writes looks like another field."""
    text = value if isinstance(value, str) else ", ".join(value)
    return text if _ONE_WORD.fullmatch(text) else encode_json(text)


def _write(record: RequestRecord) -> None:
    level = _LEVELS[record.outcome or Outcome.BROKEN]
    if logger.isEnabledFor(level):
        line = build_line(record)
        write_line(
            logger, level, encode_json(line) if is_json() else render_text(line), record.at + record.seconds
        )


_batch: Batch[RequestRecord] = Batch(_write)


def note(record: RequestRecord) -> None:
    """The sink: keeps a finished record until its line is written."""
    if logger.isEnabledFor(logging.ERROR):
        _batch.add(record)


def start() -> None:
    """Write a line for every request that ends from now on."""
    subscribe(note)


def flush() -> None:
    """Write what is pending, before the process ends."""
    _batch.flush()
