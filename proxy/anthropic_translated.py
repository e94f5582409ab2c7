"""A Messages request as an OpenAI chat completion for one endpoint, and its answer as Anthropic's.

    Translated(call, endpoint, model, reason)       the Rendering of an endpoint that speaks OpenAI's API only

What is said is `translation`'s; here it meets the network: what is read before the answer is judged, which
headers cross, and what the statistics are told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from msgspec.structs import replace as replace_fields

from endpoints.conf import conf, thinking_key
from endpoints.profiles import Profile
from endpoints.snapshot import EndpointRecord, ListedModel, fold_model
from endpoints.transport import Answer
from proxy.answering import Prepared, Rendering, UnfitError, build_own_headers, close_at_end
from proxy.anthropic_record import CallRecord, Refused
from proxy.anthropic_relay import AnthropicRelay
from proxy.errors import ErrorCode, OllaError
from proxy.headers import build_downstream_headers
from proxy.inbound import Inbound, RawHeaders, get_header
from proxy.live import live
from proxy.reading import content_coding, read_bounded, readable_body
from proxy.record import Ending, RequestRecord
from proxy.relay import RelayResponse
from proxy.routing import Decision
from translation.anthropic_request import AnthropicRequest
from translation.anthropic_response import AnswerReport, build_anthropic_response
from translation.anthropic_stream import MAX_JSON_ANSWER, AnthropicStream
from translation.backend_traits import BackendTraits, traits_for
from translation.errors import TranslationError, build_error, build_error_answer, refuses_stream_options
from translation.facts import build_warning_header
from translation.mode import FallbackReason, Mode, RequestNeeds
from translation.openai_request import OpenAIRequest, TranslationOptions, translate
from translation.translator_stats import Outcome

MAX_ERROR_BODY = 1024 * 1024
# What only Anthropic's own servers act upon, or what the translated body no longer agrees with.
_NOT_TRANSLATED = frozenset({b"accept", b"accept-encoding", b"content-encoding", b"content-type", b"x-app"})
_NOT_TRANSLATED_STARTS = (b"anthropic-", b"x-stainless-", b"x-claude-code-")
_KEPT_STARTS = (b"retry-after", b"x-ratelimit-", b"anthropic-ratelimit-")


@dataclass(frozen=True, slots=True)
class MessagesCall:
    """A Messages request that was read and checked, and its place in the statistics."""

    inbound: Inbound
    request: AnthropicRequest
    needs: RequestNeeds
    record: CallRecord


def chat_path(profile: Profile) -> str:
    """Where a kind answers OpenAI chat completions."""
    return next((path for path in profile.paths if path.endswith("/chat/completions")), "/v1/chat/completions")


def find_listed(endpoint: EndpointRecord, model: str) -> ListedModel | None:
    """What an endpoint says of a model."""
    name = endpoint.model_names.get(fold_model(model))
    return next((each for each in endpoint.models if each.name == name), None)


class Translated(Rendering):
    """A chat completion for an endpoint that speaks OpenAI's API, and its answer as Anthropic's."""

    def __init__(
        self, call: MessagesCall, endpoint: EndpointRecord, model: str | None, reason: FallbackReason
    ) -> None:
        self._call = call
        self._endpoint = endpoint
        self._sent_model = model
        self._reason = reason
        self._traits = find_traits(endpoint, model or call.request.model)
        # What is sent is written by `prepare`.
        super().__init__(call.inbound)
        self._built: OpenAIRequest
        self._error: TranslationError | None = None
        self._message = b""
        self._report = AnswerReport()
        self._stream: AnthropicStream | None = None

    async def prepare(self) -> None:
        """Translate the request, a long one in slices. Raises UnfitError."""
        call = self._call
        try:
            self._built = await live.anthropic.pacer.take(translate(call.request, self._options()))
        except TranslationError as error:
            raise UnfitError(as_own_error(error, self._endpoint.name)) from None
        path = chat_path(self._endpoint.profile)
        self.inbound = replace_fields(
            call.inbound,
            path=path,
            decoded_path=path,
            query=b"",
            headers=build_chat_headers(call.inbound.headers, stream=call.request.stream),
            body=self._built.body,
        )

    def _options(self) -> TranslationOptions:
        settings = conf()
        name = self._sent_model or self._call.request.model
        listed = find_listed(self._endpoint, name)
        return TranslationOptions(
            model=name,
            traits=self._traits,
            entropy=os.urandom(16),
            context_length=listed.context_length if listed else None,
            bytes_per_token=live.anthropic.tokens.ratio(self._call.request.model),
            clamp_max_tokens=settings.translators_anthropic_clamp_max_tokens,
            live_arguments=settings.translators_anthropic_live_arguments,
            signature_key=thinking_key(),
        )

    @property
    def body(self) -> bytes:
        """The chat completion that is sent."""
        return self._built.body

    async def read_ahead(self, answer: Answer) -> tuple[bytes | None, bytes | None]:
        """Errors and whole messages are read whole, streams until the first event can leave. Raises DoorError."""
        if not 200 <= answer.status < 300:
            self.status = answer.status if answer.status >= 400 else 502
            return readable_body(answer, await read_bounded(answer, MAX_ERROR_BODY), MAX_JSON_ANSWER), None
        if self._call.request.stream:
            return None, await self._begin_stream(answer)
        raw = await read_bounded(answer, MAX_JSON_ANSWER)
        try:
            message = build_anthropic_response(readable_body(answer, raw, MAX_JSON_ANSWER), self._built.facts)
            self._message, self._report = message.body, message.report
        except TranslationError as error:
            self._fail(error)
        return raw, None

    async def _begin_stream(self, answer: Answer) -> bytes:
        interval = conf().translators_anthropic_ping_interval
        stream = AnthropicStream(self._built.facts, time.monotonic(), ping_interval=interval)
        self._stream = stream
        if content_coding(answer):
            # Compressed although asked not to: readable only as a whole.
            raw = await read_bounded(answer, MAX_JSON_ANSWER)
            frames = stream.feed(readable_body(answer, raw, MAX_JSON_ANSWER), time.monotonic()) + stream.finish(
                time.monotonic()
            )
        else:
            frames = b""
        while not frames and not stream.done:
            chunk = await anext(answer, None)
            now = time.monotonic()
            frames = stream.finish(now) if chunk is None else stream.feed(chunk, now)
        if stream.error is not None and not stream.started:
            self._fail(stream.error)
        return frames

    def _fail(self, error: TranslationError) -> None:
        """The status said success, the body does not: the answer is judged as what it is."""
        self._error = error
        self.status = error.status

    def rephrase(self, answer: Answer, body: bytes | None) -> Rendering | None:
        """Without `stream_options`, when that is what the endpoint refused."""
        if body is None or not self._traits.stream_usage or not refuses_stream_options(answer.status, body):
            return None
        live.anthropic.remember(self._endpoint, Refused.STREAM_OPTIONS, time.monotonic())
        return Translated(self._call, self._endpoint, self._sent_model, self._reason)

    def present(self, decision: Decision, prepared: Prepared, extra: RawHeaders) -> RelayResponse:
        """The answer in Anthropic's words: an error, a message or a stream of events."""
        call, answer = self._call, prepared.answer
        received = build_downstream_headers(answer.headers, self._endpoint)
        own = build_own_headers(call.inbound, decision, prepared)
        own += [(b"X-Olla-Mode", Mode.TRANSLATION.encode()), *extra]
        live.anthropic.tokens.expect(call.inbound.request_id, call.request.model, self._built.size)
        call.record.fall_back(self._reason)
        call.record.answer(Mode.TRANSLATION, self._endpoint, call.request.model, self._built.losses)
        if prepared.status >= 400:
            return self._present_error(prepared, received, own)
        headers = [(b"request-id", call.inbound.request_id.encode()), *own]
        headers += [pair for pair in received if pair[0].lower().startswith(_KEPT_STARTS)]
        warning = build_warning_header(self._built.losses)
        if warning:
            headers.append((b"X-Olla-Translation-Warnings", warning.encode("ascii")))
        if self._stream is not None:
            headers += [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
            headers.append((b"x-accel-buffering", b"no"))
            return AnthropicRelay(
                200, headers, answer=answer, first=prepared.first or b"", stream=self._stream,
                on_end=self._closing(prepared),
            )  # fmt: skip
        if self._report.usage_estimated:
            headers.append((b"X-Olla-Usage", b"estimated"))
        headers += _entity(self._message)
        return RelayResponse(200, headers, answer=answer, body=self._message, on_end=self._closing(prepared))

    def _present_error(self, prepared: Prepared, received: RawHeaders, own: RawHeaders) -> RelayResponse:
        request_id = self._call.inbound.request_id
        if self._error is not None:
            shown = build_error_answer(self._error, request_id=request_id, headers=received)
        else:
            shown = build_error(
                prepared.answer.status,
                prepared.body or b"",
                request_id=request_id,
                headers=received,
                facts=self._built.facts.overflow,
            )
        headers = [*shown.headers, (b"content-length", b"%d" % len(shown.body)), *own]
        return RelayResponse(
            shown.status, headers, answer=prepared.answer, body=shown.body, on_end=self._closing(prepared)
        )

    def _closing(self, prepared: Prepared) -> Callable[[Ending], None]:
        # Only what is needed then: a stream may last, and the request's bodies must not.
        request = self._call.inbound.record
        request.mode = Mode.TRANSLATION
        close = close_at_end(prepared.attempt, prepared.status, request)
        return close_call(self._call.record, close, prepared.status, self._stream or self._report, request)


def close_call(
    record: CallRecord,
    close: Callable[[Ending], None],
    status: int,
    source: AnthropicStream | AnswerReport,
    request: RequestRecord,
) -> Callable[[Ending], None]:
    """What gives the place back and counts the request when its translated answer has ended."""

    def end(ending: Ending) -> None:
        close(ending)
        report = source.report if isinstance(source, AnthropicStream) else source
        if isinstance(source, AnthropicStream) and ending is not Ending.CLIENT_GONE:
            # A backend may die after its last word, and its last word may be an error.
            ending = Ending.COMPLETE if source.error is None else Ending.BROKEN
            if status < 400:  # else the error is the answer, and it went out whole
                request.ending = ending
        record.end(judge_outcome(ending, status), report)
        if not report.usage_estimated:  # what we guessed is not what a backend counted
            request.note_usage(report.usage.prompt, report.usage.completion)

    return end


def judge_outcome(ending: Ending, status: int) -> Outcome:
    """How a request that a backend answered has ended."""
    if ending is Ending.CLIENT_GONE:
        return Outcome.CLIENT_ABORT
    if status >= 400:
        return Outcome.UPSTREAM_ERROR
    return Outcome.STREAM_FAILURE if ending is Ending.BROKEN else Outcome.SUCCESS


def find_traits(endpoint: EndpointRecord, model: str) -> BackendTraits:
    """What an endpoint reads: by its kind, its own word on the model, and what it has refused."""
    listed = find_listed(endpoint, model)
    said = listed.capabilities if listed else ()
    traits = traits_for(endpoint.profile.name, model, thinks="thinking" in said if said else None)
    if said and "vision" not in said and endpoint.profile.name == "ollama":
        # Only Ollama's list of capabilities is complete.
        traits = replace(traits, vision=False)
    if not live.anthropic.knows(endpoint, Refused.STREAM_OPTIONS, time.monotonic()):
        traits = replace(traits, stream_usage=False)
    return traits


def build_chat_headers(headers: RawHeaders, *, stream: bool) -> RawHeaders:
    """The client's headers for a chat backend; its key becomes a bearer token, which is all those read."""
    kept: RawHeaders = []
    bearer = get_header(headers, b"authorization")
    for name, value in headers:
        if name in _NOT_TRANSLATED or name.startswith(_NOT_TRANSLATED_STARTS):
            continue
        if name == b"x-api-key":
            if bearer is None:
                bearer = b"Bearer " + value
                kept.append((b"authorization", bearer))
            continue
        kept.append((name, value))
    accepted = b"text/event-stream, application/json" if stream else b"application/json"
    # The answer has to be read here, so it must not come compressed.
    return [
        *kept,
        (b"content-type", b"application/json"),
        (b"accept", accepted),
        (b"accept-encoding", b"identity"),
    ]


def as_own_error(error: TranslationError, endpoint: str | None = None) -> OllaError:
    """A request that cannot be translated, as an error of ours."""
    code = ErrorCode.REQUEST_TOO_LARGE if error.status == 413 else ErrorCode.INVALID_REQUEST
    return OllaError(code, error.message, status=error.status, endpoint=endpoint)


def _entity(body: bytes) -> RawHeaders:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
