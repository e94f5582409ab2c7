"""`/olla/anthropic/...`: the Messages API of Anthropic's clients, over every endpoint there is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from django.http import HttpResponse
from msgspec.structs import replace

from endpoints import loading
from endpoints.conf import conf
from endpoints.snapshot import ANTHROPIC, fold_model
from proxy import listings
from proxy.admission import admit, begin_record
from proxy.anthropic_counting import count_tokens
from proxy.anthropic_dialect import MessagesCall, speak_anthropic
from proxy.anthropic_record import CallRecord
from proxy.anthropic_translated import as_own_error
from proxy.client_identity import ClientIdentity
from proxy.early_start import start_early
from proxy.errors import ErrorCode, OllaError
from proxy.expansion import READABLE, expand_body
from proxy.forwarding import forward
from proxy.headers import header_text
from proxy.inbound import Inbound, RawHeaders, get_header, parse_body
from proxy.list_parts import LocalList
from proxy.live import live
from proxy.relay import RelayResponse
from proxy.stickiness import SESSION_HEADER
from proxy.views import APIRequest, answer_list, build_inbound, json_answer, require_reading
from translation.anthropic_request import AnthropicRequest, Fields, parse_count_request, parse_request
from translation.errors import TranslationError
from translation.mode import FallbackReason, find_needs
from translation.translator_stats import Outcome

Answer = HttpResponse | RelayResponse
Parse = Callable[[bytes, Fields], AnthropicRequest]

# Clients put `/v1` before what a user gave them as base address, which may end in `/v1` or not.
_VERSION = re.compile(r"^(?:/v1)+(?=/|\Z)")
MESSAGES = "/v1/messages"
_PROBED = frozenset({"", "/api/hello"})
_MOST_LISTED = 1000
# No endpoint was there to be asked in either mode.
_NOBODY_THERE = frozenset({
    ErrorCode.NO_ENDPOINTS, ErrorCode.MODEL_NOT_FOUND, ErrorCode.MODEL_UNAVAILABLE, ErrorCode.NO_HEALTHY_ENDPOINTS,
})  # fmt: skip
_AGENT_SESSION = b"x-claude-code-session-id"


async def anthropic(request: APIRequest, rest: str = "") -> Answer:
    """Any address of this API."""
    path = find_path(rest)
    view = _VIEWS.get(path)
    if view is not None:
        return await view(request)
    if not is_known(path):
        raise OllaError(ErrorCode.NOT_FOUND, f"There is nothing at {request.path[:200]}.")
    require_reading(request)
    if path in _PROBED:
        return _identify(request, json_answer({}))
    return _identify(request, json_answer(_find_model(path.removeprefix("/models/"))))


def find_path(rest: str) -> str:
    """What an address of this API means, without the version. Raises OllaError(not_found) while it is off."""
    if not conf().translators_anthropic_enabled:
        raise OllaError(ErrorCode.NOT_FOUND, "OLLA_TRANSLATORS_ANTHROPIC_ENABLED=0 has turned this API off.")
    return _VERSION.sub("", rest.rstrip("/"))


def is_known(path: str) -> bool:
    """Whether there is something at an address of this API (as `find_path` gives it)."""
    return path in _VIEWS or path in _PROBED or path.startswith("/models/")


async def messages(request: APIRequest) -> Answer:
    """`POST /v1/messages`: one message, whole or streamed, from whatever endpoint has the model."""
    if request.method == "HEAD":
        return _identify(request, json_answer({}))  # a client's look whether somebody is there
    require_post(request)
    record = _begin(request)
    try:
        call = _read_call(request, record, parse_request)
    except OllaError:
        record.end(Outcome.REJECTED)
        raise
    record.streaming = call.request.stream
    story = _tell(call)
    after = conf().translators_anthropic_start_after
    if call.request.stream and after:
        return await start_early(story, call.inbound, after)
    return await story


async def _tell(call: MessagesCall) -> RelayResponse:
    """Forward, and count what never came to an answer."""
    try:
        return await forward(call.inbound, speak_anthropic(call))
    except Exception as error:
        if isinstance(error, OllaError) and error.code in _NOBODY_THERE:
            call.record.fall_back(FallbackReason.NO_COMPATIBLE_ENDPOINTS)
        call.record.end(Outcome.REJECTED)
        raise
    except asyncio.CancelledError:
        call.record.end(Outcome.CLIENT_ABORT)
        raise


async def count(request: APIRequest) -> HttpResponse:
    """`POST /v1/messages/count_tokens`; the header says where the number is from."""
    require_post(request)
    call = _read_call(request, _begin(request), parse_count_request)
    try:
        tokens, source, endpoint = await count_tokens(call)
    except TranslationError as error:
        raise as_own_error(error) from None
    answer = json_answer({"input_tokens": tokens})
    answer["X-Olla-Token-Count"] = source
    if endpoint is not None:
        answer["X-Olla-Endpoint"] = header_text(endpoint.name).decode("latin-1")
    return _identify(request, answer)


async def models(request: APIRequest) -> HttpResponse:
    """`GET /v1/models`: what can be used now, in pages."""
    require_reading(request)
    entries = [entry for entry in _catalogue() if entry.available]
    shown, write = listings.anthropic_page(entries, _parse_page(request))
    return _identify(request, await answer_list(LocalList(loading.current(), ANTHROPIC, shown, write)))


_VIEWS: dict[str, Callable[[APIRequest], Awaitable[Answer]]] = {
    "/messages": messages,
    "/messages/count_tokens": count,
    "/models": models,
}


def _begin(request: APIRequest) -> CallRecord:
    """The records of a request that enters now: everybody's, and this API's statistics."""
    request.record = begin_record(request.scope, request.request_id, ANTHROPIC)
    return CallRecord(live.anthropic, request.record.started)


def _read_call(request: APIRequest, record: CallRecord, parse: Parse) -> MessagesCall:
    """The request as a record, checked, once it is let in. Raises OllaError."""
    return build_call(request, admit(request), record, parse)


def build_call(request: APIRequest, client: ClientIdentity, record: CallRecord, parse: Parse) -> MessagesCall:
    """The request of a known client as a record, checked. Raises OllaError."""
    assert request.record is not None  # noqa: S101 - made when the request entered
    most = conf().translators_anthropic_max_message_size
    if most and len(request.body) > most:
        raise OllaError(ErrorCode.REQUEST_TOO_LARGE, f"The message is over {most} bytes.")
    inbound = build_inbound(request, ANTHROPIC, client, request.record)
    # Guards, rules and retries judge one spelling of the path; each endpoint gets its own.
    inbound = replace(inbound, path=MESSAGES, decoded_path=MESSAGES, headers=name_session(inbound.headers))
    try:
        inbound = _expand(inbound, most)
        parsed = parse(inbound.body, inbound.facts.fields)
        return MessagesCall(inbound, parsed, find_needs(parsed), record)
    except TranslationError as error:
        raise as_own_error(error) from None


def name_session(headers: RawHeaders) -> RawHeaders:
    """The headers with a coding agent's own session id as ours, where it sends no other."""
    session = get_header(headers, _AGENT_SESSION)
    if session is None or get_header(headers, SESSION_HEADER) is not None:
        return headers
    return [*headers, (SESSION_HEADER, session)]


def _expand(inbound: Inbound, most: int) -> Inbound:
    """The request with its body as JSON text: hardly any backend reads a compressed one. Raises OllaError."""
    encoding = (get_header(inbound.headers, b"content-encoding") or b"").strip().lower()
    if encoding in (b"", b"identity"):
        return inbound
    headers = [pair for pair in inbound.headers if pair[0] != b"content-encoding"]
    if inbound.body.lstrip()[:1] == b"{":
        return replace(inbound, headers=headers)
    limit = most or conf().max_body_size
    text = expand_body(inbound.body, encoding, limit)
    if text is None:
        known = ", ".join(sorted(name.decode() for name in READABLE))
        named = header_text(encoding.decode("latin-1")).decode("latin-1")[:60]
        raise OllaError(
            ErrorCode.INVALID_REQUEST,
            f"Request bodies compressed with {named} are not read here; send {known} or plain JSON.",
            status=415,
        )
    return replace(inbound, body=text, headers=headers, facts=parse_body(text, [], inference=True, limit=limit))


def require_post(request: APIRequest) -> None:
    """Refuse everything but POST. Raises OllaError(method_not_allowed)."""
    if request.method != "POST":
        allow = ((b"Allow", b"POST"),)
        raise OllaError(ErrorCode.METHOD_NOT_ALLOWED, "Only POST is answered here.", headers=allow)


def _catalogue() -> list[listings.CatalogueEntry]:
    return listings.build_catalogue(loading.current(), ANTHROPIC, live.view())


def _find_model(name: str) -> dict[str, object]:
    wanted = fold_model(name)
    for entry in _catalogue():
        if fold_model(entry.name) == wanted:
            return listings.anthropic_model(entry)
    raise OllaError(ErrorCode.MODEL_NOT_FOUND, f"No endpoint here has the model {name[:200]!r}.")


def _parse_page(request: APIRequest) -> listings.Page:
    """The list parameters. Raises OllaError(invalid_request)."""
    limit = request.GET.get("limit") or "20"
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= _MOST_LISTED:
        raise OllaError(ErrorCode.INVALID_REQUEST, f"limit must be a number from 1 to {_MOST_LISTED}.")
    return listings.Page(int(limit), request.GET.get("after_id", ""), request.GET.get("before_id", ""))


def _identify(request: APIRequest, answer: HttpResponse) -> HttpResponse:
    answer["request-id"] = request.request_id
    return answer
