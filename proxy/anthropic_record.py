"""What is counted of Messages requests, and what was learned of endpoints that speak the API.

Each request has one CallRecord, closed once, by its real outcome. `AnthropicState` is this process's totals;
`report` makes them the statistics operators read. What an endpoint refused is remembered for a while, so that
not every request finds it out anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from endpoints.snapshot import EndpointRecord
from proxy.pacing import Pacer
from proxy.sketch import Sketch
from proxy.token_memory import TokenMemory
from translation.anthropic_response import AnswerReport
from translation.facts import Loss
from translation.json_text import Json
from translation.mode import FallbackReason, Mode
from translation.translator_stats import Outcome, TranslatorTotals, build_statistics

NAME = "anthropic"
# A refusal is remembered this long: servers are upgraded.
MEMORY_SECONDS = 300.0
_MOST_NAMES = 1000  # different models counted by name; clients invent names


class Refused(StrEnum):
    """What an endpoint can turn out not to know."""

    NATIVE_PATH = "native_path"
    STREAM_OPTIONS = "stream_options"


@dataclass(slots=True)
class AnthropicState:
    """The totals of this process and what its endpoints refused."""

    totals: TranslatorTotals = field(default_factory=lambda: TranslatorTotals(NAME))
    tokens: TokenMemory = field(default_factory=TokenMemory)
    pacer: Pacer = field(default_factory=Pacer)
    first_bytes: Sketch = field(default_factory=Sketch)  # milliseconds
    # (endpoint id, what) -> its URL then, and when that was (monotonic).
    refused: dict[tuple[int, Refused], tuple[str, float]] = field(default_factory=dict)

    def remember(self, endpoint: EndpointRecord, what: Refused, now: float) -> None:
        """Note that an endpoint refused something."""
        self.refused[endpoint.id, what] = (endpoint.url, now)

    def knows(self, endpoint: EndpointRecord, what: Refused, now: float) -> bool:
        """Whether an endpoint may be asked: it did not refuse that lately, at its present address."""
        seen = self.refused.get((endpoint.id, what))
        return seen is None or seen[0] != endpoint.url or now - seen[1] > MEMORY_SECONDS

    def report(self, *, lenient: bool = False) -> Json:
        """The translator's statistics; empty lists and zeros before its first request."""
        totals = self.totals
        if self.first_bytes.count:
            middle, tail = self.first_bytes.quantiles((0.5, 0.95))
            totals.first_byte_p50, totals.first_byte_p95 = round(middle or 0.0, 1), round(tail or 0.0, 1)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return build_statistics([totals] if totals.requests else [], stamp, lenient=lenient)


class CallRecord:
    """One Messages request on its way to the totals. `started` is in monotonic seconds."""

    __slots__ = (
        "_endpoint", "_first_byte", "_losses", "_mode", "_model", "_open", "_reason", "_started", "_state",
        "streaming",
    )  # fmt: skip

    def __init__(self, state: AnthropicState, started: float) -> None:
        self.streaming = False
        self._state = state
        self._started = started
        self._mode = Mode.TRANSLATION
        self._reason = FallbackReason.NONE
        self._endpoint = self._model = ""
        self._first_byte: float | None = None
        self._losses: tuple[Loss, ...] = ()
        self._open = True

    def fall_back(self, reason: FallbackReason) -> None:
        """Why the request is translated rather than passed through."""
        self._mode, self._reason = Mode.TRANSLATION, reason

    def answer(self, mode: Mode, endpoint: EndpointRecord, model: str, losses: Iterable[Loss] = ()) -> None:
        """A backend has answered, and this way its answer goes to the client."""
        self._mode = mode
        self._endpoint, self._model = endpoint.name, model
        self._losses = tuple(losses)
        self._first_byte = (time.monotonic() - self._started) * 1000

    def end(self, outcome: Outcome, report: AnswerReport | None = None) -> None:
        """Count the request; only the first call does."""
        if not self._open:
            return
        self._open = False
        self._count_way()
        self._count_outcome(outcome)
        if report is not None and outcome is Outcome.SUCCESS:
            self._count_answer(report)

    def _count_way(self) -> None:
        totals = self._state.totals
        totals.requests += 1
        totals.streaming += self.streaming
        if self._mode is Mode.PASSTHROUGH:
            totals.passthrough += 1
        else:
            totals.translated += 1
            if self._reason:
                totals.fallbacks[self._reason] = totals.fallbacks.get(self._reason, 0) + 1
        if self._endpoint:
            totals.by_endpoint[self._endpoint] = totals.by_endpoint.get(self._endpoint, 0) + 1
        if self._model and (self._model in totals.by_model or len(totals.by_model) < _MOST_NAMES):
            totals.by_model[self._model] = totals.by_model.get(self._model, 0) + 1
        for feature in {loss.feature for loss in self._losses}:
            totals.dropped_features[feature] = totals.dropped_features.get(feature, 0) + 1

    def _count_outcome(self, outcome: Outcome) -> None:
        totals = self._state.totals
        if outcome is Outcome.SUCCESS:
            totals.successes += 1
            totals.latency += (time.monotonic() - self._started) * 1000
            if self._first_byte is not None:
                self._state.first_bytes.add(self._first_byte)
        elif outcome is Outcome.UPSTREAM_ERROR:
            totals.upstream_errors += 1
        elif outcome is Outcome.STREAM_FAILURE:
            totals.stream_failures += 1
        elif outcome is Outcome.CLIENT_ABORT:
            totals.client_aborts += 1

    def _count_answer(self, report: AnswerReport) -> None:
        totals = self._state.totals
        totals.repaired_tool_arguments += report.repaired_arguments
        totals.malformed_tool_arguments += report.malformed_arguments
        totals.estimated_usage += report.usage_estimated
        totals.input_tokens += report.usage.prompt or 0
        totals.output_tokens += report.usage.completion or 0
