"""RequestRecord to a row of the request log, in plain values that no database refuses. (pure)"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from endpoints.redaction import redact
from proxy.record import DecisionFacts, RequestRecord, build_attempts, build_trace, milliseconds

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
_MOST_ID = 128
_TEXT_LIMITS = (16, 1024, 100, 200, 200)
_Asked = tuple[str, str, str, str | None, str | None]  # method, path, prefix, model, model sent
_encode = msgspec.json.Encoder().encode


def moment_of(unix_seconds: float) -> datetime:
    """The moment, to the millisecond."""
    return datetime.fromtimestamp(round(unix_seconds, 3), UTC)


class RowBuilder:
    """Builds rows; one for each batch.

    Requests that shared a decision share the text of its trace; those to the same place for the same model, the
    cleaned texts of both.
    """

    def __init__(self, adapt: Callable[[float], Any] = moment_of) -> None:
        self._adapt = adapt  # a Unix time as the database takes it
        self._traces: dict[int, tuple[DecisionFacts, str]] = {}
        self._texts: dict[_Asked, tuple[str, ...]] = {}

    def build(self, record: RequestRecord, key: int) -> tuple[Any, ...]:
        """The values of COLUMNS."""
        endpoint, usage, first_byte = record.endpoint, record.usage, record.first_byte
        asked = (record.method, record.path, record.prefix, record.model, record.sent_model)
        method, path, prefix, model, sent_model = self._texts.get(asked) or self._clean(asked)
        tokens = _NO_TOKENS
        if usage is not None:
            counts = (usage.input_tokens, usage.output_tokens, record.total_tokens)
            tokens = (*map(_whole, counts), _finite(record.tokens_per_second))
        return (
            key,
            self._adapt(record.at),
            redact(record.request_id)[:_MOST_ID],
            record.client[:64],
            record.peer[:64],
            record.client_key or "",
            method,
            path,
            prefix,
            model,
            sent_model,
            endpoint.id if endpoint else None,
            endpoint.name if endpoint else "",
            endpoint.backend_type if endpoint else "",
            len(record.attempts),
            record.status,
            record.outcome.value if record.outcome else "",
            record.error_code or "",
            record.mode or "",
            record.stream,
            record.request_bytes,
            record.response_bytes,
            None if first_byte is None else milliseconds(first_byte),
            milliseconds(record.seconds),
            milliseconds(record.queue_wait) if record.queue_wait else 0.0,
            *tokens,
            record.sticky or "",
            as_json(build_attempts(record)) if record.attempts else "",
            self._trace(record),
            as_json(usage.metrics) if usage and usage.metrics else "",
        )

    def _clean(self, asked: _Asked) -> tuple[str, ...]:
        # As in the lines of the log: somebody may have put a key where none belongs.
        texts = zip(map(clean, asked, _TEXT_LIMITS), _TEXT_LIMITS, strict=True)
        cleaned = self._texts[asked] = tuple(redact(text)[:limit] for text, limit in texts)
        return cleaned

    def _trace(self, record: RequestRecord) -> str:
        decision = record.decision
        if decision is None:
            return ""
        known = self._traces.get(id(decision))
        if known is None:
            # The decision is kept beside its text: another one could get its id else.
            known = self._traces[id(decision)] = (decision, as_json(build_trace(record)))
        return known[1]


class UTCText:
    """Unix times as Django writes them for SQLite: in UTC, to the millisecond, for a tenth of its price."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def write(self, unix_seconds: float) -> str:
        """The text; what two times within a second share is made once."""
        second, thousandth = divmod(int(unix_seconds * 1000 + 0.5), 1000)
        if second != self._second:
            self._second, self._text = second, str(datetime.fromtimestamp(second, UTC))[:-6]
        return f"{self._text}.{thousandth:03d}000" if thousandth else self._text


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


def _whole(number: float | None) -> int | None:
    """A backend's count, as far as it is one that can be stored."""
    if number is None or not math.isfinite(number):
        return None
    return max(0, min(int(number), _MOST_BIGINT))


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
