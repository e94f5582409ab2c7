"""RequestRecord: what is known of one request that asked to be forwarded. (pure)

Made where the request enters (`proxy.admission.begin_record`), carried by `Inbound.record`, filled on the way by
plain assignments, and finished once; from then on nobody changes it. It holds metadata only, never a body. What
costs time (words, the trace) is worked out by those who read it, off the request path.

    outcome         one request is one request, however many attempts it took:
      success         the client got the whole of a good answer
      rejected        refused for what it asks, or for asking too often: by us, or by the backend with a 4xx
      backend_error   a whole answer with 5xx or 429, or nobody answered, or nobody could be asked
      broken          the answer broke off, or this server failed
      client_gone     the client left before its answer was whole: nobody's failure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from endpoints.answer_metrics import Metric
from endpoints.snapshot import EndpointRecord
from proxy.errors import ErrorCode
from proxy.provider_metrics import UsageReader, Values


class Outcome(StrEnum):
    """How a request ended."""

    SUCCESS = "success"
    BACKEND_ERROR = "backend_error"
    REJECTED = "rejected"
    BROKEN = "broken"
    CLIENT_GONE = "client_gone"


class Ending(StrEnum):
    """How a relayed body ended."""

    COMPLETE = "complete"
    BROKEN = "broken"
    CLIENT_GONE = "client_gone"


_TOKENS_IN, _TOKENS_OUT = Metric.PROMPT_TOKENS.value, Metric.COMPLETION_TOKENS.value
# What counts against the success rate. Refusals and hang-ups are on neither side of it.
FAILURES = frozenset({Outcome.BACKEND_ERROR, Outcome.BROKEN})
# A fleet that is down or full fails its clients as much as an endpoint that answers 503.
_UNSERVED = frozenset({
    ErrorCode.UPSTREAM_UNREACHABLE, ErrorCode.UPSTREAM_TIMEOUT, ErrorCode.UPSTREAM_INVALID,
    ErrorCode.NO_HEALTHY_ENDPOINTS, ErrorCode.MODEL_UNAVAILABLE, ErrorCode.QUEUE_FULL, ErrorCode.OVERLOADED,
    ErrorCode.DRAINING,
})  # fmt: skip


def success_rate(counts: Mapping[Outcome, int]) -> float | None:
    """The percentage of successes among successes and failures; None without either."""
    good = counts.get(Outcome.SUCCESS, 0)
    judged = good + sum(counts.get(each, 0) for each in FAILURES)
    return 100.0 * good / judged if judged else None


class DecisionFacts(Protocol):
    """What a record reads of `proxy.routing.Decision`."""

    @property
    def action(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def tiers(self) -> Sequence[Sequence[EndpointRecord]]: ...
    @property
    def drops(self) -> Mapping[Any, int]: ...
    @property
    def rule(self) -> Any: ...
    @property
    def native_names(self) -> Mapping[int, str] | None: ...


class AttemptNote(msgspec.Struct):
    """One attempt: `began` in monotonic seconds; `seconds` until its answer had ended; `waited` in line for it.

    `verdict` is what it said of the endpoint (good, failed, unknown), `error` the kind of failure without answer.
    """

    endpoint: EndpointRecord
    began: float
    waited: float = 0.0
    seconds: float | None = None
    status: int | None = None
    verdict: str = ""
    error: str = ""


class Usage(msgspec.Struct):
    """What a backend's answer says of its cost; None where it says nothing. `metrics` has what else it tells."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    tokens_per_second: float | None = None
    metrics: dict[str, float | str] = {}


class RequestRecord(msgspec.Struct):
    """One request. `at` is Unix time, `started` monotonic seconds; both are the moment it entered."""

    request_id: str
    at: float
    started: float
    method: str
    path: str  # decoded, as sent
    prefix: str  # the provider prefix in lower case
    client: str = ""
    peer: str = ""
    client_key: str | None = None
    model: str | None = None  # as the client wrote it
    sent_model: str | None = None  # as the endpoint was asked for it
    stream: bool = False
    mode: str | None = None  # passthrough or translation, where there is a choice
    request_bytes: int = 0
    decision: DecisionFacts | None = None
    attempts: list[AttemptNote] = []
    answered: AttemptNote | None = None  # the attempt whose answer went to the client
    queue_wait: float = 0.0  # seconds
    sticky: str | None = None
    usage: Usage | None = None
    reader: UsageReader | None = None  # of the backend's answer; the usage is read after it has ended

    status: int | None = None  # as sent; None when the client left before
    answer_status: int | None = None  # as the answer is judged, where a body or a late error says otherwise
    error_code: str | None = None  # of our own error
    response_bytes: int = 0
    response_chunks: int = 0  # of a streamed answer
    first_byte: float | None = None  # seconds from `started` until the first byte of the body had left
    ending: Ending | None = None
    seconds: float = 0.0
    outcome: Outcome | None = None  # None until finished

    @property
    def endpoint(self) -> EndpointRecord | None:
        """Where the answer came from, else the endpoint tried last."""
        if self.answered is not None:
            return self.answered.endpoint
        return self.attempts[-1].endpoint if self.attempts else None

    def note_usage(
        self,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        total_tokens: int | None = None,
        tokens_per_second: float | None = None,
        **metrics: float | str,
    ) -> None:
        """Note what the backend counted; later words add to earlier ones and replace equal ones."""
        usage = self.usage
        if usage is None:
            usage = self.usage = Usage()
        if input_tokens is not None:
            usage.input_tokens = input_tokens
        if output_tokens is not None:
            usage.output_tokens = output_tokens
        if total_tokens is not None:
            usage.total_tokens = total_tokens
        if tokens_per_second is not None:
            usage.tokens_per_second = tokens_per_second
        usage.metrics.update(metrics)

    @property
    def total_tokens(self) -> int | None:
        """As the backend counted, else the sum of both sides."""
        usage = self.usage
        if usage is None or usage.total_tokens is not None:
            return usage.total_tokens if usage else None
        if usage.input_tokens is None and usage.output_tokens is None:
            return None
        return (usage.input_tokens or 0) + (usage.output_tokens or 0)

    @property
    def tokens_per_second(self) -> float | None:
        """As the backend measured, else output over the time from first byte to end of a stream."""
        usage = self.usage
        if usage is None or usage.tokens_per_second is not None:
            return usage.tokens_per_second if usage else None
        if not usage.output_tokens or not self.stream or self.first_byte is None:
            return None
        writing = self.seconds - self.first_byte
        return usage.output_tokens / writing if writing > 0 else None

    def _note_told(self, told: Values) -> None:
        """Note what the backend's answer told; `metrics` gets what has no field of its own."""
        if told:
            others: dict[str, Any] = told
            self.note_usage(others.pop(_TOKENS_IN, None), others.pop(_TOKENS_OUT, None), **others)

    def note_sent(self, size: int, now: float) -> None:
        """A first part of the body has left (`now` monotonic)."""
        self.first_byte = now - self.started
        self.response_bytes += size

    def refuse(self, code: ErrorCode, status: int) -> None:
        """The answer is an error of ours; `status` is what it is judged by."""
        self.error_code, self.answer_status = code, status

    def finish(self, now: float, *, client_left: bool) -> bool:
        """Close the record (`now` monotonic); False when it was closed before."""
        if self.outcome is not None:
            return False
        self.seconds = now - self.started
        self.outcome = _judge(self, client_left=client_left)
        return True

    def read_usage(self) -> None:
        """Read what the answer told of its cost, if that was not read before."""
        reader, self.reader = self.reader, None
        if reader is not None:
            self._note_told(reader.read())


def no_record() -> RequestRecord:
    """A record that nobody reads, where there is no request to forward."""
    return RequestRecord("", 0.0, 0.0, "", "", "")


def _judge(record: RequestRecord, *, client_left: bool) -> Outcome:
    """How a request ended."""
    if record.ending is Ending.BROKEN:
        return Outcome.BROKEN
    code = record.error_code
    if code is not None:
        # What went wrong was known before anybody left.
        if code == ErrorCode.INTERNAL_ERROR:
            return Outcome.BROKEN
        return Outcome.BACKEND_ERROR if code in _UNSERVED and not _is_invented(record) else Outcome.REJECTED
    whole = record.status is not None and record.ending is not Ending.CLIENT_GONE
    if not whole:
        return Outcome.CLIENT_GONE if client_left else Outcome.BROKEN
    status = record.answer_status or record.status or 0
    if status >= 500 or status == 429:
        return Outcome.BACKEND_ERROR
    return Outcome.REJECTED if status >= 400 else Outcome.SUCCESS


def _is_invented(record: RequestRecord) -> bool:
    """Whether the model is one that no endpoint lists: the discovery strategy answers 503 for those too."""
    decision = record.decision
    return (
        record.error_code == ErrorCode.MODEL_UNAVAILABLE and decision is not None and decision.native_names == {}
    )


def build_trace(record: RequestRecord) -> dict[str, Any]:
    """The compact trace: what routing decided and why others were left out; empty before routing."""
    decision = record.decision
    if decision is None:
        return {}
    rule = decision.rule
    return {
        "action": str(decision.action),
        "strategy": str(decision.strategy),
        "reason": decision.reason,
        "rule": rule.name if rule is not None else None,
        "candidates": [[each.name for each in tier] for tier in decision.tiers],
        "dropped": {str(reason): count for reason, count in decision.drops.items()},
    }


class AttemptText(msgspec.Struct):
    """An attempt as the log keeps it: offsets and durations in milliseconds."""

    endpoint_id: int
    endpoint: str
    began_ms: float
    waited_ms: float
    ms: float | None
    status: int | None
    verdict: str
    error: str


def milliseconds(seconds: float) -> float:
    """Seconds in milliseconds, to the microsecond; `round` takes seven times as long."""
    return int(seconds * 1e6 + 0.5) / 1000


def build_attempts(record: RequestRecord) -> list[AttemptText]:
    """The attempts in plain values."""
    return [
        AttemptText(
            note.endpoint.id,
            note.endpoint.name,
            milliseconds(note.began - record.started),
            milliseconds(note.waited) if note.waited else 0.0,
            None if note.seconds is None else milliseconds(note.seconds),
            note.status,
            note.verdict,
            note.error,
        )
        for note in record.attempts
    ]
