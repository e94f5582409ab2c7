"""The views of the API door: thin, async, nothing but the request read and the answer chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from django.http import HttpResponse

from endpoints import loading
from endpoints.conf import conf
from endpoints.profiles import PREFIXES, PROFILES
from endpoints.snapshot import UNIVERSAL, fold_model
from proxy import listings
from proxy.admission import admit
from proxy.client_identity import ClientIdentity
from proxy.errors import ErrorCode, OllaError, choose_shape
from proxy.forwarding import forward
from proxy.inbound import INFERENCE, Inbound, RawHeaders, get_header, parse_body, parse_target
from proxy.live import live
from proxy.relay import RelayResponse

_READING = ("GET", "HEAD")
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
    closers: list[Callable[[], None]]
    GET: dict[str, str]

    @property
    def body(self) -> bytes:
        """The whole request body."""


async def proxy(request: APIRequest, prefix: str, rest: str = "") -> HttpResponse | RelayResponse:
    """`/olla/{prefix}/...`: a list answered here, or the request forwarded to a backend."""
    started = time.monotonic()
    folded = prefix.lower()
    if folded != UNIVERSAL and folded not in PREFIXES:
        known = ", ".join([UNIVERSAL, *PREFIXES])
        raise OllaError(ErrorCode.UNKNOWN_PROVIDER, f"There is no provider {prefix[:100]!r}. Known: {known}.")
    if request.method in _READING:
        refuse_as_code(request.raw_headers)
        local = answer_listing(folded, rest.rstrip("/"))
        if local is not None:
            return local
    client = admit(request)
    return await forward(build_inbound(request, folded, client, started))


def refuse_as_code(headers: RawHeaders) -> None:
    """Refuse what a page of this very site would run: a backend's script there would act as the site.

    A sandboxed page of a backend is another origin to the browser and is not concerned (Fetch Metadata, W3C).
    """
    if get_header(headers, b"sec-fetch-site") == b"same-origin":
        wanted = get_header(headers, b"sec-fetch-dest") or b""
        if wanted in _CODE or wanted.endswith((b"worker", b"worklet")):
            raise OllaError(ErrorCode.FORBIDDEN_PATH, "Pages of this site load no code from backends.")


def build_inbound(request: APIRequest, prefix: str, client: ClientIdentity, started: float) -> Inbound:
    """The request as a plain record. Raises OllaError for what cannot be forwarded."""
    scope = request.scope
    raw: bytes = scope.get("raw_path") or request.path.encode()
    # /olla/{prefix} as the client spelled it: what follows the third slash is the backend's.
    parts = raw.split(b"/", 3)
    if unquote_to_bytes(parts[2]).lower() != prefix.encode():
        # An encoded slash would split the path in one place here and in another there.
        raise OllaError(ErrorCode.INVALID_REQUEST, "The provider prefix must be a path segment of its own.")
    path, decoded = parse_target(b"/" + parts[3] if len(parts) > 3 else b"/")
    headers = request.raw_headers
    body = request.body
    inference = request.method == "POST" and INFERENCE.search(decoded) is not None
    return Inbound(
        method=request.method,
        prefix=prefix,
        path=path,
        decoded_path=decoded,
        query=scope["query_string"],
        headers=headers,
        body=body,
        facts=parse_body(body, headers, inference=inference, limit=conf().max_body_size),
        client=client.address,
        peer=client.peer,
        scheme=client.scheme,
        host=client.host,
        request_id=request.request_id,
        started=started,
        shape=choose_shape(request.path),
    )


def answer_listing(prefix: str, rest: str) -> HttpResponse | None:
    """The model list or single model at `rest` (decoded, after the prefix), or None when it is no list."""
    if rest == "/v1/models":
        return json_answer(listings.openai_list(_available(prefix)))
    if rest.startswith("/v1/models/"):
        return json_answer(listings.openai_model(_find(prefix, rest.removeprefix("/v1/models/"))))
    if prefix == UNIVERSAL:
        return None
    profile = PROFILES[PREFIXES[prefix]]
    if rest != profile.models_path:
        return None
    if profile.name == "ollama":
        return json_answer(listings.ollama_tags(_available(prefix)))
    return json_answer(listings.openai_list(_available(prefix)))


def _available(prefix: str) -> list[listings.CatalogueEntry]:
    entries = listings.build_catalogue(loading.current(), prefix, live.view())
    return [entry for entry in entries if entry.available]


def _find(prefix: str, name: str) -> listings.CatalogueEntry:
    """The entry of a model name (slashes and all), available or not. Raises OllaError(model_not_found)."""
    wanted = fold_model(name)
    for entry in listings.build_catalogue(loading.current(), prefix, live.view()):
        if wanted == fold_model(entry.name):
            return entry
    raise OllaError(ErrorCode.MODEL_NOT_FOUND, f"No endpoint here has the model {name[:200]!r}.")


async def models(request: APIRequest) -> HttpResponse:
    """`/olla/models`: every model that can be used now; `?include_unavailable=true` shows the rest too."""
    require_reading(request)
    entries = listings.build_catalogue(loading.current(), UNIVERSAL, live.view())
    if request.GET.get("include_unavailable") != "true":
        entries = [entry for entry in entries if entry.available]
    return json_answer(listings.unified_list(entries, time.time()))


async def model(request: APIRequest, name: str) -> HttpResponse:
    """`/olla/models/{name}`: one model, available or not; names may hold slashes."""
    require_reading(request)
    return json_answer(listings.unified_model(_find(UNIVERSAL, name), time.time()))


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
