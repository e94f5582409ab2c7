"""What crosses in each direction, and the X-Olla-* names. (pure)

Upstream: the client's headers in their order, less what must not cross, then ours, then the endpoint's own
(which win). Downstream: the backend's in their order, less what must not reach a browser of this site.
RFC 9110 section 7.6.1 for hop-by-hop fields.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from endpoints.addressing import CREDENTIAL_HEADERS
from endpoints.profiles import AUTO, PREFIXES
from endpoints.snapshot import EndpointRecord
from proxy.inbound import Inbound, RawHeaders

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"trailer", b"trailers", b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
# Set anew below, or nothing a backend should see (Ollama answers 403 to a foreign Origin).
_NOT_UPSTREAM = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"cookie", b"origin", b"referer", b"x-csrftoken", b"x-auth-token",
    b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-server", b"x-forwarded-prefix", b"x-forwarded-path", b"x-forwarded-scheme", b"x-forwarded-ssl",
    b"x-forwarded-protocol", b"x-real-ip", b"x-proxied-by", b"x-model", b"x-goog-api-key",
    b"ocp-apim-subscription-key",
    # Guards judge the method and the path that are sent.
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-original-uri",
    b"x-rewrite-url",
}  # fmt: skip
_NOT_UPSTREAM_STARTS = (b"sec-", b"access-control-request-", b"x-olla-")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# Whose account a key is used for: of no meaning, or harm, beside another key.
_ACCOUNT_HEADERS = frozenset({b"openai-organization", b"openai-project"})
# A backend's page must never act as this site, whose origin the admin shares.
_NOT_DOWNSTREAM = HOP_BY_HOP | CREDENTIAL_HEADERS | {
    b"set-cookie", b"set-cookie2", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed",
    b"refresh", b"alt-svc", b"report-to", b"reporting-endpoints", b"nel", b"x-auth-token",
    b"content-security-policy", b"content-security-policy-report-only", b"x-content-type-options",
    b"x-served-by", b"public-key-pins",
    # A web server before this one would send a file of its own in place of the body.
    b"x-accel-redirect", b"x-sendfile", b"x-lighttpd-send-file", b"x-litespeed-location",
    # A browser would ask for a password in this site's name, and send it with every later request.
    b"www-authenticate",
    # Kept by browsers for the whole origin.
    b"accept-ch", b"critical-ch", b"set-login", b"use-as-dictionary", b"secure-session-registration",
}  # fmt: skip
_NOT_DOWNSTREAM_STARTS = (b"access-control-", b"x-olla-")
# How a body is to be read: passed on even where the endpoint's own headers name them.
_REPRESENTATION = frozenset({b"content-type", b"content-encoding", b"content-length"})
_LOCAL_SUFFIXES = (
    ".local",
    ".localhost",
    ".lan",
    ".internal",
    ".home.arpa",
    ".svc",
    ".test",
    ".home",
    ".intranet",
)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
SANDBOX = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
)  # fmt: skip
EXPOSED = (
    "X-Olla-Request-ID", "X-Olla-Endpoint", "X-Olla-Backend-Type", "X-Olla-Model", "X-Olla-Model-Used",
    "X-Olla-Response-Time", "X-Olla-Routing-Strategy", "X-Olla-Routing-Decision", "X-Olla-Routing-Reason",
    "X-Olla-Mode", "X-Olla-Translation-Warnings", "X-Olla-Usage", "X-Olla-Token-Count", "X-Olla-Sticky-Session",
    "X-Olla-Sticky-Key-Source", "X-Olla-Session-ID",
    "X-Olla-Queue-Wait", "Retry-After",
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip


def named_in_connection(headers: RawHeaders) -> frozenset[bytes]:
    """Header names the sender listed in Connection, which end at this hop."""
    values = [value for name, value in headers if len(name) == 10 and name.lower() == b"connection"]
    return _names_listed(tuple(values)) if values else _NO_NAMES


_NO_NAMES: frozenset[bytes] = frozenset()


@lru_cache(maxsize=64)
def _names_listed(values: tuple[bytes, ...]) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def may_forward_credentials(endpoint: EndpointRecord, prefix: str) -> bool:
    """Whether the client's own key may reach this endpoint: never beside the endpoint's own."""
    if endpoint.uses_own_key or is_public_plain(endpoint):
        return False
    if endpoint.forward_client_auth is not None:
        return endpoint.forward_client_auth
    if endpoint.backend_type == AUTO:
        return False  # nobody knows yet what it is
    own_route = PREFIXES.get(prefix) == endpoint.profile.name
    return own_route or endpoint.profile.forward_client_auth


def is_public_plain(endpoint: EndpointRecord) -> bool:
    """Whether requests travel in clear text to what may be a public address."""
    return endpoint.origin.scheme == "http" and not is_local_host(endpoint.origin.host)


@lru_cache(maxsize=1024)
def is_local_host(host: str) -> bool:
    """Whether a host is surely in a private network: a private address, or a name no public zone has."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.lower().rstrip(".")
        if _NUMERIC.fullmatch(name.rpartition(".")[2]):
            return False  # an IPv4 address in one of inet_aton's other spellings
        return "." not in name or name.endswith(_LOCAL_SUFFIXES)


@dataclass(frozen=True, slots=True, eq=False)
class HeaderPlan:
    """What is the same in the headers of every attempt at one endpoint under one prefix."""

    host: tuple[bytes, bytes]
    own: RawHeaders = field(repr=False)  # the endpoint's, in the clear
    own_names: frozenset[bytes]
    withheld: frozenset[bytes]  # names of the client's that do not cross

    def crosses(self, name: bytes) -> bool:
        """Whether a header of the client's goes to the endpoint, as far as its name tells."""
        return not (name in self.withheld or b"_" in name or name.startswith(_NOT_UPSTREAM_STARTS))


def plan_headers(endpoint: EndpointRecord, prefix: str) -> HeaderPlan:
    """Prepare the headers for an endpoint."""
    own = [(name, value.reveal().encode("latin-1", "replace")) for name, value in endpoint.headers]
    own_names = frozenset(name.lower() for name, _ in own)
    withheld = own_names | _NOT_UPSTREAM
    if not may_forward_credentials(endpoint, prefix):
        withheld |= CREDENTIAL_HEADERS | _ACCOUNT_HEADERS
    return HeaderPlan((b"Host", endpoint.origin.authority.encode("ascii")), own, own_names, withheld)


def build_upstream_headers(inbound: Inbound, plan: HeaderPlan, via: bytes, product: bytes) -> RawHeaders:
    """The headers of one attempt but its length. `via` is our Via entry, `product` the X-Proxied-By value."""
    dropped = named_in_connection(inbound.headers)
    headers: RawHeaders = [plan.host]
    vias, forwarded = [], []
    for pair in inbound.headers:
        name = pair[0]
        if plan.crosses(name):
            if name not in dropped:
                headers.append(pair)
        elif name == b"via":
            vias.append(pair[1])
        elif name == b"x-forwarded-for":
            forwarded.append(pair[1])
    ours = _forwarding_headers(inbound, forwarded)
    ours.append((b"Via", b", ".join([*vias, via]) if vias else via))
    ours.append((b"X-Proxied-By", product))
    own = plan.own_names
    headers += [pair for pair in ours if pair[0].lower() not in own] if own else ours
    headers += plan.own
    return headers


def build_length(method: str, size: int) -> RawHeaders:
    """Content-Length for a body of `size` bytes, where one is due (RFC 9110, 8.6)."""
    return [(b"Content-Length", b"%d" % size)] if size or method in _WITH_BODY else []


def _forwarding_headers(inbound: Inbound, forwarded: list[bytes]) -> RawHeaders:
    client = inbound.client.encode("latin-1", "replace")
    headers: RawHeaders = []
    if client:
        # A trusted proxy may have told its client in another header.
        peer = client if inbound.peer in ("", inbound.client) else inbound.peer.encode("latin-1", "replace")
        hops = forwarded if forwarded or peer == client else [client]
        headers.append((b"X-Real-IP", client))
        headers.append((b"X-Forwarded-For", b", ".join([*hops, peer]) if hops else peer))
    headers.append((b"X-Forwarded-Proto", inbound.scheme.encode("latin-1", "replace")))
    if inbound.host:
        headers.append((b"X-Forwarded-Host", inbound.host.encode("latin-1", "replace")))
    if inbound.model:
        # Names beyond Latin-1 cannot travel in a header as they are (RFC 9110 section 5.5).
        headers.append((b"X-Model", header_text(inbound.model)))
    return headers


def build_downstream_headers(headers: Iterable[tuple[bytes, bytes]], endpoint: EndpointRecord) -> RawHeaders:
    """The backend's headers that may reach the client, in their order, spelling and multiplicity."""
    received = list(headers)
    dropped = named_in_connection(received)
    own = {name.lower() for name, _ in endpoint.headers} - _REPRESENTATION if endpoint.headers else ()
    kept: RawHeaders = []
    for pair in received:
        name = pair[0]
        if _reaches_clients(name) and not ((dropped or own) and (name.lower() in dropped or name.lower() in own)):
            kept.append(pair)
    return kept


@lru_cache(maxsize=128)
def _reaches_clients(name: bytes) -> bool:
    """Whether headers of this name may; remembered, since backends use the same few names."""
    lowered = name.lower()
    return lowered not in _NOT_DOWNSTREAM and not lowered.startswith(_NOT_DOWNSTREAM_STARTS)


def header_text(text: str) -> bytes:
    """Text as a header value: control characters removed, what Latin-1 lacks replaced, at most 500 bytes."""
    if text.isascii() and text.isprintable():
        return text[:500].encode("ascii")
    return "".join(char for char in text if char.isprintable()).encode("latin-1", "replace")[:500]


def backend_type_header(endpoint: EndpointRecord, prefix: str) -> bytes:
    """X-Olla-Backend-Type: the kind that answered, but always `openai` on the OpenAI prefixes."""
    if prefix.startswith("openai"):
        return b"openai"
    return endpoint.profile.header_name.encode()


def has_looped(headers: RawHeaders, via_token: bytes) -> bool:
    """Whether a Via entry carries this installation's own token."""
    vias = [value for name, value in headers if name == b"via"]
    return any(via_token in value for value in vias)
