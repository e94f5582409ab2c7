"""RequestRecord to a row of the request log, in plain values that no database refuses. (pure)"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.record import DecisionFacts, RequestRecord, build_attempts, build_trace

COLUMNS = (
    "id", "time", "request_id", "client", "peer", "client_key", "method", "path", "provider", "model",
    "sent_model", "endpoint_id", "endpoint", "backend_type", "attempts", "status", "outcome", "error_code",
    "mode", "stream", "request_bytes", "response_bytes", "first_byte_ms", "total_ms", "queue_ms",
    "input_tokens", "output_tokens", "total_tokens", "tokens_per_second", "sticky", "attempt_notes", "trace",
    "metrics",
)  # fmt: skip
_NO_TOKENS: tuple[float | None, ...] = (None, None, None, None)
_MOST_BIGINT = 2**63 - 1
_MOST_TEXT = 16_384  # of a JSON column: an endpoint may be tried after a hundred others
_encode = msgspec.json.Encoder().encode


class RowBuilder:
    """Builds rows; one for each batch. Requests that shared a decision share the text of its trace."""

    def __init__(self, adapt: Callable[[datetime], Any] = lambda moment: moment) -> None:
        self._adapt = adapt  # a time as the database takes it
        self._traces: dict[int, tuple[DecisionFacts, str]] = {}

    def build(self, record: RequestRecord, key: int) -> tuple[Any, ...]:
        """The values of COLUMNS."""
        endpoint, usage, model = record.endpoint, record.usage, clean(record.model, 200)
        tokens = _NO_TOKENS
        if usage is not None:
            counts = (usage.input_tokens, usage.output_tokens, record.total_tokens)
            tokens = (*map(_whole, counts), _finite(record.tokens_per_second))
        return (
            key,
            self._adapt(datetime.fromtimestamp(round(record.at, 3), UTC)),
            record.request_id,  # judged when it came
            record.client[:64],
            record.peer[:64],
            record.client_key or "",
            clean(record.method, 16),
            clean(record.path, 1024),
            clean(record.prefix, 100),
            model,
            model if record.sent_model == record.model else clean(record.sent_model, 200),
            endpoint.id if endpoint else None,
            endpoint.name if endpoint else "",
            endpoint.backend_type if endpoint else "",
            len(record.attempts),
            record.status,
            str(record.outcome),
            record.error_code or "",
            record.mode or "",
            record.stream,
            record.request_bytes,
            record.response_bytes,
            _milliseconds(record.first_byte),
            _milliseconds(record.seconds),
            _milliseconds(record.queue_wait),
            *tokens,
            record.sticky or "",
            as_json(build_attempts(record)) if record.attempts else "",
            self._trace(record),
            as_json(usage.metrics) if usage and usage.metrics else "",
        )

    def _trace(self, record: RequestRecord) -> str:
        decision = record.decision
        if decision is None:
            return ""
        known = self._traces.get(id(decision))
        if known is None:
            # The decision is kept beside its text: another one could get its id else.
            known = self._traces[id(decision)] = (decision, as_json(build_trace(record)))
        return known[1]


def clean(text: str | None, limit: int) -> str:
    """Text a database takes: no half characters, no NUL, no more than fits."""
    if not text:
        return ""
    text = str(text)
    if len(text) > limit:
        text = text[:limit]
    if text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def as_json(value: Any) -> str:
    """A JSON text of bounded length: lists and lists inside are cut at their end rather than in the middle."""
    text = _encode(value)
    if len(text) > _MOST_TEXT and isinstance(value, list):
        kept = max(1, len(value) * _MOST_TEXT // len(text) - 1)
        text = _encode(value[:kept])
    if len(text) > _MOST_TEXT and isinstance(value, dict):
        text = _encode({key: part for key, part in value.items() if not isinstance(part, list)})
    return text.decode() if len(text) <= _MOST_TEXT else ""


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _whole(number: float | None) -> int | None:
    """A backend's count, as far as it is one that can be stored."""
    if number is None or not math.isfinite(number):
        return None
    return max(0, min(int(number), _MOST_BIGINT))


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
