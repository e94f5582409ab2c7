"""The statistics of a translator: what is counted, and the report operators read. Counting happens elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from .json_text import Json


class Outcome(StrEnum):
    """How a request ended; only a 2xx answer that came to its clean end is a success."""

    SUCCESS = "success"
    REJECTED = "rejected"  # refused or failed here, before any backend answered
    UPSTREAM_ERROR = "upstream_error"
    STREAM_FAILURE = "stream_failure"  # died after the answer had begun
    CLIENT_ABORT = "client_abort"


@dataclass(slots=True)
class TranslatorTotals:
    """Counters of one translator; latencies in milliseconds, of successful requests only."""

    name: str
    requests: int = 0
    successes: int = 0
    passthrough: int = 0
    translated: int = 0
    streaming: int = 0
    latency: float = 0.0
    fallbacks: dict[str, int] = field(default_factory=dict)  # FallbackReason -> requests
    upstream_errors: int = 0
    stream_failures: int = 0
    client_aborts: int = 0
    repaired_tool_arguments: int = 0
    malformed_tool_arguments: int = 0
    estimated_usage: int = 0
    dropped_features: dict[str, int] = field(default_factory=dict)  # Feature -> requests
    input_tokens: int = 0
    output_tokens: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)
    by_model: dict[str, int] = field(default_factory=dict)
    first_byte_p50: float | None = None
    first_byte_p95: float | None = None

    def successes_as(self, *, lenient: bool) -> int:
        """Successes; in the lenient view of older dashboards an answer of any status is one."""
        return self.successes + (self.upstream_errors + self.stream_failures if lenient else 0)


def build_statistics(translators: Iterable[TranslatorTotals], timestamp: str, *, lenient: bool = False) -> Json:
    """The report: translators with most requests first, and a summary over all."""
    ordered = sorted(translators, key=lambda totals: (-totals.requests, totals.name))
    return {
        "timestamp": timestamp,
        "translators": [_build_entry(totals, lenient=lenient) for totals in ordered],
        "summary": _build_summary(ordered, lenient=lenient),
    }


def format_rate(part: int, whole: int) -> str:
    """A percentage: 0%, 100%, else with one decimal."""
    if whole <= 0 or part <= 0:
        return "0%"
    if part >= whole:
        return "100%"
    return f"{part * 100 / whole:.1f}%"


def format_latency(total: float, count: int) -> str:
    """An average: whole milliseconds below a second, else seconds with one decimal."""
    average = int(total / count) if count else 0
    return f"{average}ms" if average < 1000 else f"{average / 1000:.1f}s"


def _build_entry(totals: TranslatorTotals, *, lenient: bool) -> dict[str, Json]:
    successes = totals.successes_as(lenient=lenient)
    return {
        "translator_name": totals.name,
        "total_requests": totals.requests,
        "successful_requests": successes,
        "failed_requests": totals.requests - successes,
        "success_rate": format_rate(successes, totals.requests),
        "passthrough_rate": format_rate(totals.passthrough, totals.requests),
        "passthrough_requests": totals.passthrough,
        "translation_requests": totals.translated,
        "streaming_requests": totals.streaming,
        "non_streaming_requests": totals.requests - totals.streaming,
        "fallback_no_compatible_endpoints": totals.fallbacks.get("no_compatible_endpoints", 0),
        "fallback_translator_does_not_support_passthrough": totals.fallbacks.get(
            "translator_does_not_support_passthrough", 0
        ),
        "fallback_cannot_passthrough": totals.fallbacks.get("cannot_passthrough", 0),
        "average_latency": format_latency(totals.latency, totals.successes),
        "upstream_errors": totals.upstream_errors,
        "stream_failures": totals.stream_failures,
        "client_aborts": totals.client_aborts,
        "repaired_tool_arguments": totals.repaired_tool_arguments,
        "malformed_tool_arguments": totals.malformed_tool_arguments,
        "estimated_usage": totals.estimated_usage,
        "dropped_features": dict(sorted(totals.dropped_features.items())),
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "by_endpoint": dict(sorted(totals.by_endpoint.items())),
        "by_model": dict(sorted(totals.by_model.items())),
        "first_byte_p50_ms": totals.first_byte_p50,
        "first_byte_p95_ms": totals.first_byte_p95,
    }


def _build_summary(translators: list[TranslatorTotals], *, lenient: bool) -> dict[str, Json]:
    requests = sum(totals.requests for totals in translators)
    successes = sum(totals.successes_as(lenient=lenient) for totals in translators)
    passthrough = sum(totals.passthrough for totals in translators)
    streaming = sum(totals.streaming for totals in translators)
    return {
        "total_translators": len(translators),
        "active_translators": sum(totals.requests > 0 for totals in translators),
        "total_requests": requests,
        "overall_success_rate": format_rate(successes, requests),
        "total_passthrough": passthrough,
        "total_translations": sum(totals.translated for totals in translators),
        "overall_passthrough_rate": format_rate(passthrough, requests),
        "total_streaming": streaming,
        "total_non_streaming": requests - streaming,
    }
