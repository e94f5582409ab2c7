"""The Anthropic dialect: a Messages request put to each endpoint in the words it understands.

    speak_anthropic(call) -> Dialect

An endpoint that speaks the Messages API gets the client's bytes (Passthrough); any other gets an OpenAI chat
completion, and its answer is translated back (Translated). An endpoint that turns out to know less than its
kind promises is asked again at once in the other way, and that is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from endpoints.conf import conf
from endpoints.snapshot import EndpointRecord
from endpoints.transport import Answer
from proxy.answering import Dialect, Prepared, Rendering, build_own_headers, close_at_end
from proxy.anthropic_record import Refused
from proxy.anthropic_relay import AnthropicRelay, UntouchedStream
from proxy.anthropic_translated import (
    MAX_ERROR_BODY,
    MessagesCall,
    Translated,
    judge_outcome,
)
from proxy.headers import build_downstream_headers
from proxy.inbound import Inbound, RawHeaders, parse_body
from proxy.live import live
from proxy.reading import read_bounded
from proxy.record import Ending
from proxy.relay import RelayResponse, StreamKind, stream_kind
from proxy.routing import Decision
from translation.errors import TranslationError
from translation.ids import remove_own_thinking
from translation.json_text import InvalidJsonError, parse_json
from translation.mode import FallbackReason, Mode, NativeSupport, choose_mode, lacks_native_path
from translation.token_count import measure_prompt

# Statuses that may mean that a native path is missing; LM Studio says so with 200.
_MAYBE_NO_PATH = frozenset({404, 405, 501})


def speak_anthropic(call: MessagesCall) -> Dialect:
    """The dialect of one Messages request."""

    def render(_inbound: Inbound, endpoint: EndpointRecord, model: str | None) -> Rendering:
        enabled = conf().translators_anthropic_passthrough_enabled
        choice = choose_mode(call.needs, native_support(endpoint), passthrough_enabled=enabled)
        if choice.mode is Mode.PASSTHROUGH:
            return Passthrough(call, endpoint, model)
        return Translated(call, endpoint, model, choice.reason)

    return render


def native_support(endpoint: EndpointRecord) -> NativeSupport:
    """Whether an endpoint speaks the Messages API: kind or operator say so, and it has not denied it since."""
    native = endpoint.native_anthropic
    if native is None or not live.anthropic.knows(endpoint, Refused.NATIVE_PATH, time.monotonic()):
        return NativeSupport()
    return NativeSupport(enabled=True, limitations=native.limitations)


def native_path(endpoint: EndpointRecord) -> str:
    """Where an endpoint answers Messages requests."""
    return endpoint.native_anthropic.path if endpoint.native_anthropic else "/v1/messages"


def is_genuine(endpoint: EndpointRecord) -> bool:
    """Whether requests may end at Anthropic's own servers, which refuse thinking they did not sign."""
    # What is passed to a kind that has no such API of its own is passed to a gateway, or to Anthropic.
    return endpoint.profile.native_anthropic is None


class Passthrough(Rendering):
    """The client's bytes for an endpoint that speaks the Messages API itself."""

    def __init__(self, call: MessagesCall, endpoint: EndpointRecord, model: str | None) -> None:
        path = native_path(endpoint)
        inbound = replace(call.inbound, path=path, decoded_path=path)
        if call.request.stream:
            inbound = replace(inbound, headers=_uncompressed(inbound.headers))
        if is_genuine(endpoint):
            inbound = _without_own_thinking(inbound)
        super().__init__(inbound, model)
        self._call = call
        self._endpoint = endpoint

    async def read_ahead(self, answer: Answer) -> tuple[bytes | None, bytes | None]:
        """An answer that may mean that there is no such path is read whole."""
        if answer.status in _MAYBE_NO_PATH:
            return await read_bounded(answer, MAX_ERROR_BODY), None
        return await super().read_ahead(answer)

    def rephrase(self, answer: Answer, body: bytes | None) -> Rendering | None:
        """Translated, when the endpoint has no such path after all. Raises UnfitError."""
        if body is None or not _denies_path(answer.status, body):
            return None
        live.anthropic.remember(self._endpoint, Refused.NATIVE_PATH, time.monotonic())
        return Translated(self._call, self._endpoint, self.model, FallbackReason.CANNOT_PASSTHROUGH)

    def present(self, decision: Decision, prepared: Prepared, extra: RawHeaders) -> RelayResponse:
        """The endpoint's answer untouched; an event stream gets pings, and an error event when it breaks."""
        call, answer = self._call, prepared.answer
        headers = build_downstream_headers(answer.headers, self._endpoint)
        if prepared.body is not None and answer.status in _MAYBE_NO_PATH:
            # It was read here, perhaps cut at the limit, and may have come without a length.
            headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
            headers.append((b"Content-Length", b"%d" % len(prepared.body)))
        if not any(name.lower() == b"request-id" for name, _ in headers):
            headers.append((b"request-id", call.inbound.request_id.encode()))
        headers += build_own_headers(call.inbound, decision, prepared)
        headers += [(b"X-Olla-Mode", Mode.PASSTHROUGH.encode()), *extra]
        _measure(call)
        call.record.answer(Mode.PASSTHROUGH, self._endpoint, call.request.model)
        closing, record, status = _closing_of(call, prepared), call.record, answer.status

        def end(ending: Ending) -> None:
            closing(ending)
            record.end(judge_outcome(ending, status))

        first = prepared.first or b""
        if prepared.body is None and stream_kind(headers) is StreamKind.SSE:
            interval = conf().translators_anthropic_ping_interval
            stream = UntouchedStream(call.inbound.request_id, first, time.monotonic(), interval)
            return AnthropicRelay(answer.status, headers, answer=answer, first=first, stream=stream, on_end=end)
        return RelayResponse(
            answer.status, headers, answer=answer, body=prepared.body, first=prepared.first, on_end=end
        )


def _uncompressed(headers: RawHeaders) -> RawHeaders:
    """The headers of a request for a stream: no ping and no error event could be put into a compressed one."""
    kept = [pair for pair in headers if pair[0] != b"accept-encoding"]
    return [*kept, (b"accept-encoding", b"identity")]


def _closing_of(call: MessagesCall, prepared: Prepared) -> Callable[[Ending], None]:
    record = call.inbound.record
    record.mode = Mode.PASSTHROUGH
    return close_at_end(prepared.attempt, prepared.answer.status, record)


def _without_own_thinking(inbound: Inbound) -> Inbound:
    """The request without thinking blocks of our signature."""
    body = remove_own_thinking(inbound.body)
    if body is inbound.body:
        return inbound
    return replace(inbound, body=body, facts=parse_body(body, [], inference=True, limit=0))


def _measure(call: MessagesCall) -> None:
    """Have the answer's own count of some requests teach us what a token of this model is."""
    tokens, request = live.anthropic.tokens, call.request
    if tokens.wants(request.model, len(call.inbound.body)):
        with suppress(TranslationError):
            tokens.expect(call.inbound.request_id, request.model, measure_prompt(request))


def _denies_path(status: int, body: bytes) -> bool:
    """Whether an answer says that there is no Messages path; LM Studio does so with status 200."""
    if status == 200:
        return body.lstrip().startswith(b'{"error"')
    return status in _MAYBE_NO_PATH and not _is_envelope(body) and lacks_native_path(status, body)


def _is_envelope(body: bytes) -> bool:
    """Whether an error is in Anthropic's own shape, which only somebody who speaks its API sends."""
    try:
        value = parse_json(body)
    except InvalidJsonError:
        return False
    return isinstance(value, dict) and value.get("type") == "error"


__all__ = ["MessagesCall", "Passthrough", "native_path", "native_support", "speak_anthropic"]
