"""Looking for inference servers on this machine: the well-known ports of each kind, on loopback only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from endpoints.addressing import AddressError, Origin, parse_origin
from endpoints.asking import ProbeTarget
from endpoints.detection import detect_type
from endpoints.profiles import AUTO, PROFILES
from endpoints.transport import Transport

LOOPBACK = ("127.0.0.1", "::1")  # in order of preference


@dataclass(frozen=True, slots=True)
class LocalServer:
    """An inference server that answered on this machine."""

    url: str
    port: int
    kind: str


def well_known_ports() -> tuple[int, ...]:
    """The default ports of every kind, each once."""
    return tuple(sorted({port for profile in PROFILES.values() for port in profile.default_ports}))


async def find_servers(ports: Iterable[int], *, seconds: float) -> list[LocalServer]:
    """What answers like an inference server on these ports, by port, found within `seconds`."""
    door = Transport()
    try:
        asked = [_look(host, port, door, seconds) for port in sorted(set(ports)) for host in LOOPBACK]
        found: dict[int, LocalServer] = {}
        for server in await asyncio.gather(*asked):
            if server is not None:
                found.setdefault(server.port, server)
        return list(found.values())
    finally:
        await door.aclose()


async def _look(host: str, port: int, door: Transport, seconds: float) -> LocalServer | None:
    url = f"http://{Origin('http', host, port).authority}"
    kind = await detect_type(ProbeTarget(name=url, url=url, backend_type=AUTO), door, timeout=seconds)
    return LocalServer(url, port, kind) if kind else None


def is_same_place(url: str, port: int) -> bool:
    """Whether a registered URL leads to `port` of this machine, however it spells that."""
    try:
        origin = parse_origin(url)
    except AddressError:
        return False
    return origin.port == port and is_loopback(origin.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback by name or address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def choose_name(kind: str, port: int, taken: Collection[str]) -> str:
    """A name that no endpoint has: the kind, else with its port, else with a number too."""
    name, number = kind, 1
    while name in taken:
        name = f"{kind}-{port}" if number == 1 else f"{kind}-{port}-{number}"
        number += 1
    return name
