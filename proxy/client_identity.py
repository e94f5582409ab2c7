"""Who asks: address, scheme and host of a client, through reverse proxies that are trusted. (pure)

A proxy's word counts only when it comes from a trusted network. X-Forwarded-For is walked from the right, since
each proxy appends the address it saw, and the walk ends at the first address that is no trusted proxy: what
stands left of it was written by the client. Without X-Forwarded-* headers `Forwarded` (RFC 7239) says the same,
and X-Real-IP names the client alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

Headers = Sequence[tuple[bytes, bytes]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = tuple[Network, ...]

# Written by proxies. A request that carries any of them was not made by this machine's own user.
_TOLD_BY_PROXIES = frozenset({b"forwarded", b"via", b"x-real-ip"})
_FAMILY = b"x-forwarded-"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# One `name=value` of a Forwarded element; a quoted value may hold commas and semicolons.
_PAIR = re.compile(r'\s*([\w!#$%&\'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^",;\s]*)\s*')
_MOST_HOPS = 32
_LONGEST_REMEMBERED = 256  # bytes of a Host header


class ClientIdentity(NamedTuple):
    """The client as far as trusted parties tell."""

    address: str  # without port and brackets; "" when unknown
    scheme: str  # http or https
    host: str  # the host the client asked for, with its port
    is_local: bool  # a program of this machine asks, and no proxy stands between
    via_proxy: bool  # a trusted proxy told address, scheme or host
    peer: str  # whoever is connected to us: the client or the last proxy
    is_known: bool = False  # the address is the client's: nobody stands between, or a trusted proxy names it


@dataclass(frozen=True, slots=True)
class _Told:
    """What the headers say, rightmost hop last."""

    addresses: list[str]
    schemes: list[str]
    hosts: list[str]


def parse_networks(texts: Iterable[str]) -> Networks:
    """CIDR texts (or single addresses) as networks. Raises ValueError naming the one that is none."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@lru_cache(maxsize=16)
def networks_of(texts: tuple[str, ...]) -> Networks:
    """As `parse_networks`, remembered: for the settings, which hold the same networks all the time."""
    return parse_networks(texts)


def is_within(client: ClientIdentity, networks: Networks) -> bool:
    """Whether the client's address is known and lies in one of the networks."""
    return client.is_known and _is_in(client.address, networks)


def identify_client(peer: str, scheme: str, headers: Headers, networks: Networks) -> ClientIdentity:
    """The client behind `peer`, the address of the connection's other end ("" when unknown).

    `scheme` is the connection's own, `headers` have lower-case names.
    """
    names = tuple([name for name, _ in headers])
    raw_host = headers[names.index(b"host")][1] if b"host" in names else b""
    if not _is_any_told(names):
        identify = _identify_direct if len(raw_host) <= _LONGEST_REMEMBERED else _identify_direct.__wrapped__
        return identify(peer, scheme, raw_host)
    host, peer = raw_host.decode("latin-1"), plain_address(peer) or peer
    scheme = _SCHEMES.get(scheme, scheme)
    if not _is_in(peer, networks):
        return ClientIdentity(peer, scheme, host, False, False, peer)
    hops = _read_told([pair for pair in headers if _is_told(pair[0])])
    address, place = _walk(peer, hops.addresses, networks)
    return ClientIdentity(
        address=address,
        scheme=_SCHEMES.get(_pick(hops.schemes, hops.addresses, place).lower(), scheme),
        host=_pick(hops.hosts, hops.addresses, place) or host,
        is_local=place is not None and _is_loopback(address),
        via_proxy=True,
        peer=peer,
        is_known=place is not None,
    )


@lru_cache(maxsize=4096)
def _identify_direct(peer: str, scheme: str, raw_host: bytes) -> ClientIdentity:
    """The client that `peer` itself is."""
    peer = plain_address(peer) or peer
    return ClientIdentity(
        peer, _SCHEMES.get(scheme, scheme), raw_host.decode("latin-1"), _is_loopback(peer), False, peer, True
    )


@lru_cache(maxsize=64)
def _is_any_told(names: tuple[bytes, ...]) -> bool:
    return any(_is_told(name) for name in names)


def _is_told(name: bytes) -> bool:
    """Whether a header is one that proxies write, whatever it tells."""
    return name in _TOLD_BY_PROXIES or name.startswith(_FAMILY)


def rewrite_scope(scope: dict[str, Any], identity: ClientIdentity) -> dict[str, Any]:
    """The ASGI scope as if the client had connected by itself, for code that believes its scope (Django's pages).

    What proxies wrote is left out of it, so that nothing believes it a second time. When none of them named the
    client, one header that names nobody stays: the address is the proxy's, and must not pass for a reader's.
    """
    if not identity.via_proxy:
        return scope
    headers = [pair for pair in scope["headers"] if pair[0] != b"host" and not _is_told(pair[0])]
    headers.insert(0, (b"host", identity.host.encode("latin-1", "replace")))
    if not identity.is_known:
        headers.append((b"forwarded", b"for=unknown"))
    scheme = identity.scheme
    if scope["type"] == "websocket":
        scheme = "wss" if scheme == "https" else "ws"
    return {**scope, "headers": headers, "scheme": scheme, "client": (identity.address, 0)}


@lru_cache(maxsize=4096)
def plain_address(text: str) -> str:
    """An IP address as it is compared: no port, brackets, quotes or zone, mapped IPv4 as IPv4; "" for no address.

    `1.2.3.4:5`, `[2001:db8::1]:5` and `"[2001:db8::1]"` are spellings proxies use.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@lru_cache(maxsize=4096)
def client_network(address: str) -> str:
    """What counts as one client: the IPv4 address, or the IPv6 /64 that one subscriber usually has to himself."""
    plain = plain_address(address)
    if not plain:
        return "unknown"
    if ":" not in plain:
        return plain
    return str(ipaddress.ip_network((int(ipaddress.IPv6Address(plain)) >> 64 << 64, 64)))


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: Networks) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _read_told(headers: list[tuple[bytes, bytes]]) -> _Told:
    """The hops the headers name, by the one family of headers that is there.

    Proxies append to the headers they know and pass the others on as the client wrote them, so the families are
    never mixed: X-Forwarded-* is the one nearly all proxies write.
    """
    if any(name.startswith(_FAMILY) for name, _ in headers):
        return _Told(
            _listed(headers, b"x-forwarded-for") or _listed(headers, b"x-real-ip")[-1:],
            _listed(headers, b"x-forwarded-proto"),
            _listed(headers, b"x-forwarded-host"),
        )
    if any(name == b"forwarded" for name, _ in headers):
        return _parse_forwarded(b", ".join(value for name, value in headers if name == b"forwarded"))
    return _Told(_listed(headers, b"x-real-ip")[-1:], [], [])


def _listed(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    values = b",".join(value for key, value in headers if key == name).decode("latin-1")
    return [part.strip() for part in values.split(",")] if values.strip() else []


def _parse_forwarded(value: bytes) -> _Told:
    """The elements of Forwarded; a hop that leaves something out has "" there. Stops at what does not parse."""
    told, text, position = _Told([], [], []), value.decode("latin-1"), 0
    element: dict[str, str] = {}

    def close() -> None:
        told.addresses.append(element.get("for", ""))
        told.schemes.append(element.get("proto", ""))
        told.hosts.append(element.get("host", ""))
        element.clear()

    while match := _PAIR.match(text, position):
        element[match[1].lower()] = re.sub(r"\\(.)", r"\1", match[2].strip('"'))
        position = match.end()
        if text[position : position + 1] == ",":
            close()
        elif text[position : position + 1] != ";":
            break
        position += 1
    close()
    # Left of what does not parse could be anything: only a header that parses whole is believed.
    return told if position >= len(text) else _Told([], [], [])


def _walk(peer: str, addresses: list[str], networks: Networks) -> tuple[str, int | None]:
    """The first hop from the right that is no trusted proxy, and its place counted from the right.

    An entry that is no address (`unknown`, `_hidden`) ends the walk: the hop that wrote it is all there is.
    """
    client, place = peer, None
    for index, text in enumerate(reversed(addresses[-_MOST_HOPS:])):
        address = plain_address(text)
        if not address:
            break
        client, place = address, index
        if not _is_in(address, networks):
            break
    return client, place


def _pick(values: list[str], addresses: list[str], place: int | None) -> str:
    """The value told of the client's hop: beside its address where there is one for each, else the rightmost."""
    if not values:
        return ""
    if place is not None and len(values) == len(addresses):
        return values[-1 - place]
    return values[-1]
