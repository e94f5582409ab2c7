"""One debug line for each request whose backend told what it took: JSON with `provider_*` fields.

Shown with `OLLA_LOG_LEVEL=debug`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from endpoints.answer_metrics import Metric
from proxy.record import RequestRecord

logger = logging.getLogger(__name__)


def log_metrics(records: Iterable[RequestRecord]) -> None:
    """Write the lines of finished requests, if somebody wants them and there is something to tell."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    for record in records:
        told = build_provider_fields(record)
        if told:
            endpoint = record.endpoint.name if record.endpoint else ""
            fields = {"request_id": record.request_id, "endpoint": endpoint, **told}
            logger.debug("%s", msgspec.json.encode(fields).decode())


def build_provider_fields(record: RequestRecord) -> dict[str, float | str]:
    """What the backend told, under the names of log fields; what it did not tell is left out."""
    usage = record.usage
    if usage is None:
        return {}
    counted: dict[str, float | str | None] = {
        Metric.PROMPT_TOKENS: usage.input_tokens,
        Metric.COMPLETION_TOKENS: usage.output_tokens,
        Metric.TOTAL_TOKENS: usage.total_tokens,
        Metric.TOKENS_PER_SECOND: usage.tokens_per_second,
        **usage.metrics,
    }
    return {f"provider_{name}": value for name, value in counted.items() if value is not None}
