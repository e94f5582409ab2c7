"""The views of the API door: thin, async, nothing but the request read and the answer chosen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from django.http import HttpResponse

from endpoints import loading
from endpoints.conf import conf
from endpoints.profiles import PREFIXES, PROFILES, Profile
from endpoints.snapshot import UNIVERSAL
from proxy import listings, native_lists
from proxy.admission import RECORDED, admit, begin_record
from proxy.client_identity import ClientIdentity
from proxy.errors import ErrorCode, OllaError, choose_shape
from proxy.forwarding import forward
from proxy.inbound import (
    Inbound,
    RawHeaders,
    get_header,
    is_inference_path,
    parse_body,
    parse_target,
    wants_stream,
)
from proxy.list_parts import MANY, LocalList
from proxy.live import live
from proxy.model_query import choose_entries, parse_query, write_models
from proxy.operator_token import read_order
from proxy.record import RequestRecord
from proxy.relay import RelayResponse
from proxy.routing import native_names
from proxy.unified_list import build_unified, find_entry, unified_item

_READING = ("GET", "HEAD")
_SHOW = "/api/show"
# What a browser is about to do with an answer, where it would become part of the page that asks.
_CODE = frozenset({b"script", b"style", b"xslt", b"object", b"embed", b"manifest"})


class APIRequest(Protocol):
    """What a view of this door is called with (`olla_site.handler.APIRequest`)."""

    scope: dict[str, Any]
    method: str
    path: str
    raw_headers: RawHeaders
    request_id: str
    answer_headers: RawHeaders
    record: RequestRecord | None
    closers: list[Callable[[], None]]
    GET: dict[str, str]

    @property
    def body(self) -> bytes:
        """The whole request body."""


async def proxy(request: APIRequest, prefix: str, rest: str = "") -> HttpResponse | RelayResponse:
    """`/olla/{prefix}/...`: a list answered here, or the request forwarded to a backend."""
    record = request.record = begin_record(request.scope, request.request_id, prefix.lower())
    folded = fold_prefix(prefix)
    local = answer_reading(request, folded, rest)
    if local is not None:
        return await answer_list(local) if isinstance(local, LocalList) else local
    client = admit(request)
    return await forward(build_inbound(request, folded, client, record))


def fold_prefix(prefix: str) -> str:
    """A provider prefix as it is known here. Raises OllaError(unknown_provider)."""
    folded = prefix.lower()
    if folded != UNIVERSAL and folded not in PREFIXES:
        known = ", ".join([UNIVERSAL, *PREFIXES])
        raise OllaError(ErrorCode.UNKNOWN_PROVIDER, f"There is no provider {prefix[:100]!r}. Known: {known}.")
    return folded


def answer_reading(request: APIRequest, prefix: str, rest: str) -> HttpResponse | LocalList | None:
    """What GET and HEAD are answered here; None for what is forwarded. Raises OllaError."""
    if request.method not in _READING:
        return None
    refuse_as_code(request.raw_headers)
    # A list is answered here, and nothing forwarded.
    record, request.record, request.scope[RECORDED] = request.record, None, False
    local = answer_listing(prefix, rest.rstrip("/"))
    if local is None:
        request.record, request.scope[RECORDED] = record, True
    return local


def refuse_as_code(headers: RawHeaders) -> None:
    """Refuse what a page of this very site would run: a backend's script there would act as the site.

    A sandboxed page of a backend is another origin to the browser and is not concerned (Fetch Metadata, W3C).
    """
    if get_header(headers, b"sec-fetch-site") == b"same-origin":
        wanted = get_header(headers, b"sec-fetch-dest") or b""
        if wanted in _CODE or wanted.endswith((b"worker", b"worklet")):
            raise OllaError(ErrorCode.FORBIDDEN_PATH, "Pages of this site load no code from backends.")


def build_inbound(request: APIRequest, prefix: str, client: ClientIdentity, record: RequestRecord) -> Inbound:
    """The request as a plain record. Raises OllaError for what cannot be forwarded."""
    scope, body = request.scope, request.body
    record.request_bytes = len(body)
    raw: bytes = scope.get("raw_path") or request.path.encode()
    # /olla/{prefix} as the client spelled it: what follows the third slash is the backend's.
    parts = raw.split(b"/", 3)
    segment = parts[2]
    if (unquote_to_bytes(segment) if b"%" in segment else segment).lower() != prefix.encode():
        # An encoded slash would split the path in one place here and in another there.
        raise OllaError(ErrorCode.INVALID_REQUEST, "The provider prefix must be a path segment of its own.")
    path, decoded = parse_target(b"/" + parts[3] if len(parts) > 3 else b"/")
    headers = request.raw_headers
    if decoded.rstrip("/").endswith(_SHOW):
        body = spell_show(body)
    inference = request.method == "POST" and is_inference_path(decoded)
    facts = parse_body(body, headers, inference=inference, limit=conf().max_body_size)
    shape = choose_shape(request.path)
    record.model, record.stream = facts.model, wants_stream(facts, decoded, shape)
    return Inbound(
        method=request.method,
        prefix=prefix,
        path=path,
        decoded_path=decoded,
        query=scope["query_string"],
        headers=headers,
        body=body,
        facts=facts,
        client=client.address,
        peer=client.peer,
        record=record,
        scheme=client.scheme,
        host=client.host,
        request_id=request.request_id,
        started=record.started,
        shape=shape,
        order=read_order(headers, request.answer_headers, time.time()),
    )


def spell_show(body: bytes) -> bytes:
    """The body of Ollama's show request with the model under `model`: older clients put it under `name`."""
    facts = parse_body(body, [], inference=False, limit=0)
    if facts.model or "name" not in facts.fields:
        return body
    others = {key: value for key, value in facts.fields.items() if key.casefold() not in ("model", "name")}
    return msgspec.json.encode({**others, "model": facts.fields["name"]})


def answer_listing(prefix: str, rest: str) -> HttpResponse | LocalList | None:
    """The model list or single model at `rest` (decoded, after the prefix), or None when it is no list."""
    if rest == "/v1/models":
        return _list_of(prefix, "openai", listings.openai_list)
    if rest.startswith("/v1/models/"):
        return json_answer(listings.openai_model(_find(prefix, rest.removeprefix("/v1/models/"))))
    if prefix == UNIVERSAL:
        return None
    return _answer_native(prefix, PROFILES[PREFIXES[prefix]], rest)


def _answer_native(prefix: str, profile: Profile, rest: str) -> HttpResponse | LocalList | None:
    """The list of a kind's own API, or one model of it; None when `rest` is neither."""
    if profile.name == "ollama" and rest == "/api/ps":
        return json_answer(listings.ollama_running(_available(prefix), time.time()))
    if profile.name == "ollama" and rest == "/api/version":
        version = listings.ollama_version(loading.current(), prefix, live.view())
        return json_answer(version) if version else None
    for path, shape in native_lists.ROUTES.get(profile.name, ((profile.models_path, native_lists.PLAIN),)):
        if rest == path:
            return _list_of(prefix, shape.write_list.__name__, shape.write_list)
        if shape.write_model is not None and rest.startswith(f"{path}/"):
            return json_answer(shape.write_model(_find(prefix, rest[len(path) + 1 :])))
    return None


def _list_of(prefix: str, shape: str, write: listings.Writer) -> LocalList:
    return LocalList(loading.current(), f"{prefix} {shape}", _available(prefix), write)


async def answer_list(local: LocalList) -> HttpResponse:
    """A list as JSON; the first one of a large snapshot is written in a thread, not on the event loop."""
    if local.count_missing() > MANY:
        body = await asyncio.to_thread(local.encode)
    else:
        body = local.encode()
    return HttpResponse(body, content_type="application/json")


def _available(prefix: str) -> list[listings.CatalogueEntry]:
    entries = listings.build_catalogue(loading.current(), prefix, live.view())
    return [entry for entry in entries if entry.available]


def _find(prefix: str, name: str) -> listings.CatalogueEntry:
    """The entry of a model name (slashes and all), available or not. Raises OllaError(model_not_found)."""
    snapshot = loading.current()
    entries = listings.build_catalogue(snapshot, prefix, live.view())
    # By a name it has elsewhere a model is found here as well, as requests find it.
    elsewhere = next(iter(native_names(snapshot, prefix, name).values()), "")
    found = find_entry(entries, name) or find_entry(entries, elsewhere)
    if found is None:
        raise OllaError(ErrorCode.MODEL_NOT_FOUND, f"No endpoint here has the model {name[:200]!r}.")
    return found


async def models(request: APIRequest) -> HttpResponse:
    """`/olla/models`: every model that can be used now; its parameters are those of `proxy.model_query`."""
    require_reading(request)
    snapshot, query, view = loading.current(), parse_query(request.GET), live.view()
    entries = choose_entries(build_unified(snapshot, view), query)

    def write(some: Iterable[listings.CatalogueEntry]) -> dict[str, Any]:
        return write_models(some, query, view, snapshot.built_at)

    return await answer_list(LocalList(snapshot, f"models {query.format}", entries, write))


async def model(request: APIRequest, name: str) -> HttpResponse:
    """`/olla/models/{name}`: one model by its id or any of its names, available or not; slashes are part of it."""
    require_reading(request)
    found = find_entry(build_unified(loading.current(), live.view()), name)
    if found is None:
        raise OllaError(ErrorCode.MODEL_NOT_FOUND, f"No endpoint here has the model {name[:200]!r}.")
    return json_answer(unified_item(found, time.time()))


async def not_found(request: APIRequest) -> HttpResponse:
    """Any other address of this door."""
    raise OllaError(ErrorCode.NOT_FOUND, f"There is nothing at {request.path[:200]}. See /olla/models.")


def require_reading(request: APIRequest) -> None:
    """Refuse everything but GET and HEAD. Raises OllaError(method_not_allowed)."""
    if request.method not in _READING:
        allow = ((b"Allow", b"GET, HEAD"),)
        raise OllaError(ErrorCode.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.", headers=allow)


def json_answer(content: Any) -> HttpResponse:
    """A JSON response of ours."""
    return HttpResponse(msgspec.json.encode(content), content_type="application/json")
