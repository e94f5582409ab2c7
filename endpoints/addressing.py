"""Joining URLs, endpoint credentials as headers, and the outbound-address guard. (pure)"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from endpoints.secrets import Secret

# Headers that carry a client's or an endpoint's key.
CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
DEFAULT_PORTS = {"http": 80, "https": 443}

# Never contacted, whatever an operator types: link-local and cloud metadata addresses (docs/architecture.md).
REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "0.0.0.0/32",
        "224.0.0.0/4",
        "240.0.0.0/4", "255.255.255.255/32", "fe80::/10", "fd00:ec2::254/128", "ff00::/8", "::/128",
    )
)  # fmt: skip
NAT64_NETWORKS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressError(ValueError):
    """A URL or address that may not be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go: scheme (http or https), host without brackets, port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The Host header value: host with brackets for IPv6, port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TLS:
    """How an https endpoint proves who it is. `ca_file` replaces the system's authorities."""

    verify: bool = True
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: origin, TLS options and how many connections it may have (0 is no limit).

    Build it once per endpoint and keep it: connections are shared by all targets of one origin and TLS options.
    """

    origin: Origin
    tls: TLS = TLS()
    max_connections: int = 0
    key: str = field(
        init=False, repr=False, compare=False
    )  # a str caches its hash: the pool look-up of every request

    def __post_init__(self) -> None:
        origin, tls = self.origin, self.tls
        options = f"{tls.verify:d} {tls.ca_file}" if origin.scheme == "https" else ""
        object.__setattr__(self, "key", f"{origin.scheme} {origin.host.lower()} {origin.port} {options}")


def parse_origin(url: str) -> Origin:
    """The origin of an absolute http(s) URL. Raises AddressError for anything else, credentials included."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError("This is not a URL: check brackets and port.") from error
    if parts.scheme.lower() not in DEFAULT_PORTS:
        raise AddressError("The URL must start with http:// or https://.")
    if "@" in parts.netloc:
        raise AddressError("The URL holds credentials. Remove user:password@ and set them under Authentication.")
    if not parts.hostname:
        raise AddressError("The URL has no host.")
    scheme = parts.scheme.lower()
    return Origin(scheme, parts.hostname, DEFAULT_PORTS[scheme] if port is None else port)


def parse_base_path(url: str) -> str:
    """The path of an endpoint's URL as it is put before request paths: encoded, no trailing slash, "" for none."""
    parts = [quote(part, safe="%!$&'()*+,;=:@-._~") for part in urlsplit(url).path.split("/") if part]
    return "/" + "/".join(parts) if parts else ""


def embedded_ipv4(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv4-mapped, 6to4, Teredo-free or NAT64 IPv6 form; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in NAT64_NETWORKS):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def check_address(text: str) -> IPAddress:
    """The parsed address when connecting to it is allowed. Raises AddressError when it is not.

    `text` is an IP address as getaddrinfo gives it (an IPv6 zone is ignored). Private ranges are allowed:
    inference servers live there.
    """
    address = ipaddress.ip_address(text.split("%", 1)[0])
    for form in (address, embedded_ipv4(address)):
        if any(form in network for network in REFUSED_NETWORKS if network.version == form.version):
            raise AddressError(f"{text} is a link-local, metadata or multicast address and is never contacted.")
    return address


def join_url(base: str, value: str) -> str:
    """`value` itself when absolute, else joined to the path of `base` (never replacing it)."""
    if value.lower().startswith(("http://", "https://")):
        return value
    parts = urlsplit(base)
    path = f"{parts.path.rstrip('/')}/{value.lstrip('/')}"
    return f"{parts.scheme}://{parts.netloc}{path}"


def same_origin(first: str, second: str) -> bool:
    """Whether two absolute URLs have one scheme, host and port."""
    return parse_origin(first) == parse_origin(second)


def build_auth_headers(
    auth_type: str, header: str, username: Secret, secret: Secret
) -> tuple[tuple[bytes, Secret], ...]:
    """The header an endpoint's own credentials become (RFC 6750, RFC 7617), or nothing for `none`.

    Values are already expanded.
    """
    if auth_type == "bearer":
        return ((b"Authorization", Secret(f"Bearer {secret.reveal()}")),)
    if auth_type == "api_key":
        return (((header or "X-Api-Key").encode("ascii"), secret),)
    if auth_type == "basic":
        pair = f"{username.reveal()}:{secret.reveal()}".encode()
        return ((b"Authorization", Secret(f"Basic {base64.b64encode(pair).decode()}")),)
    return ()


def merge_headers(
    extra: Iterable[tuple[bytes, Secret]], auth: Iterable[tuple[bytes, Secret]]
) -> tuple[tuple[bytes, Secret], ...]:
    """Extra headers then credentials; the credentials win on the same name."""
    auth = tuple(auth)
    names = {name.lower() for name, _ in auth}
    return tuple(pair for pair in extra if pair[0].lower() not in names) + auth
