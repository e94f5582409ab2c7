"""Joining URLs, endpoint credentials as headers, and the outbound-address guard. (pure)"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from endpoints.secrets import Secret, SecretError

# Headers that carry a client's or an endpoint's key.
CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
DEFAULT_PORTS = {"http": 80, "https": 443}

# Never contacted, whatever an operator types: link-local and cloud metadata addresses (docs/architecture.md).
REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "0.0.0.0/8",
        "224.0.0.0/4", "240.0.0.0/4", "fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128",
        "ff00::/8", "::/128",
    )
)  # fmt: skip
NAT64_NETWORKS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
# IPv4-compatible (RFC 4291, 2.5.5.1), IPv4-mapped, IPv4-translated (RFC 2765) and NAT64.
_LAST_32_BITS = (
    *(ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96")),
    *NAT64_NETWORKS,
)
# What a host name may be made of; underscores are common in container networks.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_BRACKETED = re.compile(r"\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](?::[0-9]*)?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2

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
    if " " in url or not url.isprintable():  # no other white space is printable
        raise AddressError("The URL holds a space or a control character.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if ":" in (host or ""):
            ipaddress.IPv6Address(host)
    except ValueError as error:
        raise AddressError("This is not a URL: check brackets and port.") from error
    if parts.scheme.lower() not in DEFAULT_PORTS:
        raise AddressError("The URL must start with http:// or https://.")
    if "@" in parts.netloc:
        raise AddressError("The URL holds credentials. Remove user:password@ and set them under Authentication.")
    if not host:
        raise AddressError("The URL has no host.")
    if parts.netloc.startswith("[") and not _BRACKETED.fullmatch(parts.netloc):
        raise AddressError("Brackets in the URL hold an IPv6 address without a zone, and nothing else.")
    if port == 0:
        raise AddressError("Port 0 cannot be connected to.")
    scheme = parts.scheme.lower()
    return Origin(scheme, _check_host(host), port or DEFAULT_PORTS[scheme])


def _check_host(host: str) -> str:
    """The host as DNS wants it (RFC 5890 for other scripts). Raises AddressError for what is no host name."""
    if ":" in host:
        return host
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise AddressError("The host of the URL is not a host name.") from error
    if not _HOST_NAME.fullmatch(name) or ".." in name:
        raise AddressError("The host of the URL is not a host name.")
    return name


def parse_base_path(url: str) -> str:
    """The path of an endpoint's URL as it is put before request paths: encoded, no trailing slash, "" for none."""
    parts = [quote(part, safe="%!$&'()*+,;=:@-._~") for part in urlsplit(url).path.split("/") if part]
    return "/" + "/".join(parts) if parts else ""


def embedded_ipv4(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv4-mapped, -compatible or -translated, 6to4 or NAT64 form; else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.sixtofour is not None:
        return address.sixtofour
    number = int(address)
    if number > 1 and any(address in network for network in _LAST_32_BITS):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return address


def _embedded_forms(address: IPAddress) -> set[IPAddress]:
    """Every IPv4 address that `address` could be taken for, and itself."""
    forms = {address, embedded_ipv4(address)}
    if isinstance(address, ipaddress.IPv6Address):
        if address.teredo is not None:
            forms.update(address.teredo)
        if address in NAT64_NETWORKS[1]:
            # Below a /48 the four bytes stand around byte 8 (RFC 6052, section 2.2).
            inner = address.packed[6:8] + address.packed[9:11]
            if any(inner):
                forms.add(ipaddress.IPv4Address(inner))
    return forms


def check_address(text: str) -> IPAddress:
    """The parsed address when connecting to it is allowed. Raises AddressError when it is not.

    `text` is an IP address as getaddrinfo gives it (an IPv6 zone is ignored). Private ranges are allowed:
    inference servers live there.
    """
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError as error:
        raise AddressError("This is not an IP address.") from error
    for form in _embedded_forms(address):
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

    Values are already expanded. Raises SecretError when there is nothing to send or the header has no usable name.
    """
    if auth_type in ("bearer", "api_key") and not secret.reveal().strip():
        raise SecretError("The token or key is empty.")
    if auth_type == "api_key" and header and not _TOKEN.fullmatch(header):
        raise SecretError("The API key header is not a header name.")
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
