"""One request to an endpoint on this product's own behalf: for its health, its models or its kind.

Never follows a redirect, never decompresses, reads at most what it was told to, and sends the endpoint's
credentials to the endpoint's own origin only.

    AskError   the request could not be made as configured (a bad URL, header or CA file)
    DoorError  the exchange failed (endpoints/failures.py)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from endpoints.addressing import DEFAULT_PORTS, Origin, join_url, parse_origin, same_origin
from endpoints.conf import version
from endpoints.profiles import AUTO, PROFILES, Profile, profile_for
from endpoints.secrets import Secret
from endpoints.transport import TLS, Limits, Request, Target, Transport

SYSTEM_TLS = TLS()


class AskError(ValueError):
    """The endpoint cannot be asked as it is configured; the message holds no secret."""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What must be known of an endpoint to ask it; equal targets are asked in the same way."""

    name: str
    url: str
    backend_type: str  # as the operator chose it, perhaps `auto`
    detected_type: str = ""
    health_check_url: str = ""  # path or absolute URL; empty uses the profile's own
    model_url: str = ""
    headers: tuple[tuple[bytes, Secret], ...] = ()
    tls: TLS = SYSTEM_TLS
    check_timeout: float = 2.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    problem: str = ""  # why it cannot be asked at all, such as an unset variable

    @property
    def profile(self) -> Profile:
        """The profile in force: the detected one for type auto."""
        return profile_for(self.detected_type if self.backend_type == AUTO else self.backend_type)

    def profile_of(self, kind: str) -> Profile:
        """The profile of a detected kind, or the one in force for an unknown or empty kind."""
        return PROFILES.get(kind, self.profile)

    def own_url(self, path: str) -> str:
        """A path the server itself defines, below the URL's own path.

        What both share is not repeated: http://host/v1 and /v1/models make http://host/v1/models.
        """
        base = urlsplit(self.url).path.rstrip("/")
        steps = path.split("/")
        for count in range(len(steps) - 1, 1, -1):
            shared = "/".join(steps[:count])
            if base.endswith(shared):
                return join_url(self.url, "/".join(steps[count:]))
        return join_url(self.url, path)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names are in lower case, `whole` is false when the body was longer than wanted."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    latency_ms: float  # until the answer's head


async def ask(
    target: ProbeTarget, url: str, door: Transport, *, timeout: float, longest: int, body: bytes = b""
) -> Reply:
    """GET `url`, or POST a JSON `body` to it, and read at most `longest` bytes of the answer.

    Each phase (connect, first byte, each next piece) may take `timeout` seconds; callers bound the whole.
    Raises AskError and DoorError.
    """
    destination, request = build_request(target, url, body)
    limits = Limits(connect=timeout, first_byte=timeout, idle=timeout)
    started = time.monotonic()
    try:
        answer = await door.send(destination, request, limits)
    except ValueError as error:  # a line break in a credential, say
        raise AskError("A header or URL of this endpoint holds characters HTTP does not allow.") from error
    latency_ms = (time.monotonic() - started) * 1000
    received = bytearray()
    whole = True
    try:
        async for piece in answer:
            received += piece
            if len(received) > longest:
                whole = False
                break
    finally:
        await answer.aclose()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return Reply(answer.status, headers, bytes(received[:longest]), whole, latency_ms)


def build_request(target: ProbeTarget, url: str, body: bytes = b"") -> tuple[Target, Request]:
    """Where the request goes and its bytes. Raises AskError."""
    try:
        parse_origin(url)  # refuses credentials in the URL and schemes other than http and https
        parts = httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise AskError(f"The URL cannot be used: {error}") from error
    port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    origin = Origin(parts.scheme, parts.raw_host.decode("ascii"), port)
    headers = [
        (b"Host", origin.authority.encode("ascii")),
        (b"User-Agent", f"Olla-Probe/{version()}".encode("ascii")),
        (b"Accept", b"application/json, */*;q=0.5"),
        (b"Accept-Encoding", b"identity"),
        (b"Cache-Control", b"no-cache"),
    ]
    if body:
        headers += [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
    if same_origin(url, target.url):
        own = [(name, _header_value(value)) for name, value in target.headers]
        names = {name.lower() for name, _ in own}
        headers = [pair for pair in headers if pair[0].lower() not in names] + own
    return Target(origin, target.tls), Request(b"POST" if body else b"GET", parts.raw_path, headers, body)


def _header_value(secret: Secret) -> bytes:
    try:
        return secret.reveal().encode("latin-1")
    except UnicodeEncodeError:
        # The cause would carry the secret into a traceback.
        raise AskError("A credential or extra header holds characters HTTP does not allow.") from None
