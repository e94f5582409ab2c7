"""How a request is put to an endpoint, and what becomes of its answer: which bytes, which headers.

    dialect(inbound, endpoint, model) -> Rendering      made anew for each attempt

A Rendering holds the request as that endpoint gets it and knows the way back. The plain one changes nothing;
`proxy.anthropic_dialect` has others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import msgspec

from endpoints.conf import conf
from endpoints.snapshot import EndpointRecord
from endpoints.transport import Answer
from proxy.attempts import Attempt, Verdict, judge_status
from proxy.errors import ErrorShape, OllaError, build_context
from proxy.headers import SANDBOX, backend_type_header, build_downstream_headers, header_text
from proxy.inbound import Inbound, RawHeaders
from proxy.product import PROXIED_BY
from proxy.provider_metrics import UsageReader
from proxy.record import RequestRecord
from proxy.relay import Ending, RelayResponse
from proxy.routing import Decision
from proxy.upstream import via_token

# An answer that declares no more than this is read whole, so that it leaves in one write with its total time.
SMALL_BODY = 64 * 1024
_MOST_REMEMBERED = 1000  # characters
_STREAMED = (b"text/event-stream", b"application/x-ndjson", b"application/ndjson")


class Prepared(msgspec.Struct, frozen=True):
    """An answer to pass on: a small one with its whole `body`, a stream perhaps with its `first` chunk read."""

    attempt: Attempt
    answer: Answer
    body: bytes | None
    first: bytes | None
    headers_at: float  # monotonic
    rendering: Rendering
    reader: UsageReader | None = None

    @property
    def status(self) -> int:
        """The status the answer is judged by: the backend's, unless its body said otherwise."""
        return self.rendering.status or self.answer.status


class UnfitError(Exception):
    """The request cannot be put to this endpoint; another may take it. `error` is what the client is told else."""

    def __init__(self, error: OllaError) -> None:
        super().__init__(error.message)
        self.error = error


class Rendering:
    """One request for one endpoint, and the way back for its answer. This one changes nothing but the model."""

    status: int | None = None  # what an answer's body says against its status line

    def __init__(self, inbound: Inbound, model: str | None = None) -> None:
        self.inbound = inbound
        self.model = model

    async def prepare(self) -> None:
        """Write the request, where that takes more than a moment. Raises UnfitError."""

    async def read_ahead(self, answer: Answer) -> tuple[bytes | None, bytes | None]:
        """What must be known of an answer to judge it: its whole body, or its first chunk. Raises DoorError."""
        if is_small(answer.headers):
            return await answer.read(), None
        if self.inbound.is_inference:
            # Until the first chunk the client has no byte, and a backend that dies can be replaced.
            return None, await anext(answer, b"")
        return None, None

    def rephrase(self, answer: Answer, body: bytes | None) -> Rendering | None:
        """The request in another form for the same endpoint, when it refused this one for its form."""
        return None

    def present(self, decision: Decision, prepared: Prepared, extra: RawHeaders) -> RelayResponse:
        """The answer for the client."""
        return prepare_relay(self.inbound, decision, prepared, extra)


Dialect = Callable[[Inbound, EndpointRecord, str | None], Rendering]


def as_it_came(inbound: Inbound, _endpoint: EndpointRecord, model: str | None) -> Rendering:
    """The dialect of every route but Anthropic's: the request as the client sent it."""
    return Rendering(inbound, model)


def is_small(headers: RawHeaders) -> bool:
    """Whether the answer declares a short body that is no stream."""
    length: int | None = None
    for name, value in headers:
        size = len(name)
        if size == 14 and name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
        elif size == 12 and name.lower() == b"content-type" and value.strip().lower().startswith(_STREAMED):
            return False
    return length is not None and length <= SMALL_BODY


def prepare_relay(inbound: Inbound, decision: Decision, prepared: Prepared, extra: RawHeaders) -> RelayResponse:
    """The response: filtered headers, ours, and the body or the stream that carries it."""
    attempt, answer = prepared.attempt, prepared.answer
    endpoint = attempt.endpoint
    headers = build_downstream_headers(answer.headers, endpoint)
    body = prepared.body
    if body is not None and inbound.method != "HEAD":
        with_context = add_error_context(inbound, answer, headers, body, endpoint.name)
        if with_context is not body:
            body = with_context
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
            headers.append((b"Content-Length", b"%d" % len(body)))
    headers += build_own_headers(inbound, decision, prepared)
    headers += extra
    ended = close_at_end(attempt, answer.status, inbound.record)
    return RelayResponse(answer.status, headers, answer=answer, body=body, first=prepared.first, on_end=ended)


def close_at_end(attempt: Attempt, status: int, record: RequestRecord) -> Callable[[Ending], None]:
    """What gives the attempt's place back when the relayed body has ended, one way or another."""

    def close(ending: Ending) -> None:
        record.ending = ending
        if ending is Ending.COMPLETE:
            attempt.close(judge_status(status))
        elif ending is Ending.BROKEN:
            attempt.note.error = "broke_off"
            attempt.close(Verdict.FAILED)
        else:
            attempt.close(Verdict.UNKNOWN)

    return close


SANDBOX_WITH_SCRIPTS = (SANDBOX[0], (b"content-security-policy", b"sandbox allow-scripts"))


def build_own_headers(inbound: Inbound, decision: Decision, prepared: Prepared) -> RawHeaders:
    """The headers this product adds to a backend's answer."""
    endpoint = prepared.attempt.endpoint
    until = time.monotonic() if prepared.body is not None else prepared.headers_at
    sandbox = SANDBOX_WITH_SCRIPTS if conf().allow_scripts else SANDBOX
    return [*sandbox, *_olla_headers(inbound, decision, endpoint, until)]


def _olla_headers(inbound: Inbound, decision: Decision, endpoint: EndpointRecord, until: float) -> RawHeaders:
    headers = [
        (b"X-Olla-Request-ID", inbound.request_id.encode()),
        (b"X-Olla-Response-Time", b"%dms" % round((until - inbound.started) * 1000)),
        *_endpoint_headers(endpoint.name, backend_type_header(endpoint, inbound.prefix)),
    ]
    model, sent = inbound.model or "", decision.sent_names.get(endpoint.id)
    known = len(model) + len(decision.reason) <= _MOST_REMEMBERED
    decided = _decision_headers if known else _decision_headers.__wrapped__
    headers += decided(model, sent, decision.strategy, decision.action, decision.reason)
    return headers


@lru_cache(maxsize=1024)
def _decision_headers(
    model: str, sent: str | None, strategy: str, action: str, reason: str
) -> tuple[tuple[bytes, bytes], ...]:
    """What is the same in every answer to requests that were decided alike."""
    headers = []
    if model:
        headers.append((b"X-Olla-Model", header_text(model)))
        if sent is not None:
            headers.append((b"X-Olla-Model-Used", header_text(sent)))
    if strategy:
        headers.append((b"X-Olla-Routing-Strategy", strategy.encode()))
        headers.append((b"X-Olla-Routing-Decision", action.encode()))
        headers.append((b"X-Olla-Routing-Reason", header_text(reason)))
    return tuple(headers)


@lru_cache(maxsize=1024)
def _endpoint_headers(name: str, kind: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """What is the same in every answer of an endpoint."""
    return (
        (b"X-Olla-Endpoint", header_text(name)),
        (b"X-Olla-Backend-Type", kind),
        (b"X-Served-By", PROXIED_BY),
        (b"Via", b"1.1 " + via_token()),
    )


def add_error_context(inbound: Inbound, answer: Answer, headers: RawHeaders, body: bytes, endpoint: str) -> bytes:
    """A backend's JSON error with `olla_context` beside it; the body itself when it is anything else.

    Only on OpenAI-shaped routes, only an object that has `error` and no context yet; every other byte stays.
    """
    if answer.status < 400 or inbound.shape is not ErrorShape.OPENAI or not conf().error_context:
        return body
    if any(name.lower() == b"content-encoding" for name, _ in headers):
        return body
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    if "error" not in fields or "olla_context" in fields:
        return body
    context = msgspec.json.encode(build_context(endpoint, inbound.request_id))
    end = body.rindex(b"}")
    return body[:end] + b',"olla_context":' + context + body[end:]
