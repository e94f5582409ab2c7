"""Making one connection: resolve, guard every address, connect to a checked address only, TLS."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from endpoints.addressing import TLS, AddressError, Origin, Target, check_address
from endpoints.failures import NotConnected, NotConnectedReason
from endpoints.http1 import Connection

# (host, port) -> IP addresses as text, best first. Raises OSError (socket.gaierror) when the name has none.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# An address that does not answer is given this long before the next one is tried: one lost SYN is sent again after
# a second.
NEXT_ADDRESS_AFTER = 2.0
RECEIVE_SIZE = 64 * 1024
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The system's answer for a name, in its order."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def find_addresses(resolver: Resolver, host: str, port: int) -> list[str]:
    """The addresses of `host` that may be contacted. Raises NotConnected when there is none."""
    addresses = [host] if is_address(host) else await _resolve(resolver, host, port)
    allowed = []
    refusal: AddressError | None = None
    for address in addresses:
        try:
            check_address(address)
        except AddressError as error:
            refusal = error
        else:
            allowed.append(address)
    if not allowed and refusal is not None:
        raise NotConnected(NotConnectedReason.FORBIDDEN_ADDRESS, str(refusal)) from refusal
    if not allowed:
        raise NotConnected(NotConnectedReason.DNS, f"{host} has no address.")
    return allowed


async def _resolve(resolver: Resolver, host: str, port: int) -> Sequence[str]:
    try:
        return await resolver(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that cannot be encoded
        raise NotConnected(NotConnectedReason.DNS, f"{host} could not be resolved: {error}") from error


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Dialer:
    """Opens connections; remembers TLS contexts, and per name the address that worked last."""

    def __init__(self, resolver: Resolver = resolve_by_system) -> None:
        self._resolver = resolver
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._contexts: dict[TLS, ssl.SSLContext] = {}
        self._preferred: dict[str, str] = {}

    async def dial(self, target: Target, deadline: float) -> Connection:
        """A new connection, ready for its first request, before `deadline` (monotonic). Raises NotConnected."""
        origin = target.origin
        try:
            async with asyncio.timeout(None if deadline == float("inf") else max(deadline - monotonic(), 0)):
                context = await self._context(target.tls) if origin.scheme == "https" else None
                addresses = await find_addresses(self._resolver, origin.host, origin.port)
                sock = await self._connect_any(target.key, addresses, origin.port, deadline)
                return await self._start_protocol(sock, context, origin.host)
        except NotConnected:
            raise
        except OSError as error:  # TimeoutError and ssl.SSLError are OSErrors
            raise name_failure(error, origin) from error

    def forget(self, target_key: str) -> None:
        """Drop what is remembered for a pool that is gone."""
        self._preferred.pop(target_key, None)

    async def _connect_any(self, key: str, addresses: list[str], port: int, deadline: float) -> socket.socket:
        """Try the addresses in turn, the one that worked last first."""
        preferred = self._preferred.get(key)
        if preferred in addresses:
            addresses.sort(key=lambda address: address != preferred)
        last: OSError = OSError("no address")
        for position, address in enumerate(addresses):
            others = len(addresses) - position - 1
            try:
                async with asyncio.timeout(_patience(others, deadline)):
                    sock = await _connect(address, port)
            except OSError as error:
                last = error
            else:
                self._preferred[key] = address
                return sock
        raise last

    async def _start_protocol(self, sock: socket.socket, context: ssl.SSLContext | None, host: str) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(loop, self._buffer),
            sock=sock,
            ssl=context,
            server_hostname=host if context else None,
        )
        return connection

    async def _context(self, tls: TLS) -> ssl.SSLContext:
        context = self._contexts.get(tls)
        if context is None:
            # Reading the authorities takes tens of milliseconds: not on the event loop.
            loop = asyncio.get_running_loop()
            context = await loop.run_in_executor(None, build_context, tls)
            self._contexts[tls] = context
        return context


def build_context(tls: TLS) -> ssl.SSLContext:
    """The TLS settings of a client: system authorities or one file, or no verification at all."""
    context = ssl.create_default_context(cafile=tls.ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _patience(others: int, deadline: float) -> float | None:
    """Seconds one address gets: all that is left for the last one, a share of it for those before."""
    if not others:
        return None
    return min(NEXT_ADDRESS_AFTER, max(deadline - monotonic(), 0) / (others + 1))


async def _connect(address: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    connected = False
    try:
        sock.setblocking(False)
        # A dead peer is noticed during a long wait for the first byte.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await loop.sock_connect(sock, (address, port))
        connected = True
    finally:
        if not connected:
            sock.close()
    return sock


def name_failure(error: OSError, origin: Origin) -> NotConnected:
    """What an error of the system or of TLS means, judged by its class and number."""
    reason = NotConnectedReason.UNREACHABLE
    if isinstance(error, TimeoutError):
        reason = NotConnectedReason.TIMEOUT
    elif isinstance(error, ConnectionRefusedError):
        reason = NotConnectedReason.REFUSED
    elif isinstance(error, (ssl.SSLError, FileNotFoundError, PermissionError)) or (
        origin.scheme == "https" and isinstance(error, ConnectionError)
    ):
        reason = NotConnectedReason.TLS
    elif error.errno in OUT_OF_RESOURCES:
        reason = NotConnectedReason.LOCAL
    return NotConnected(reason, f"No connection to {origin.host} port {origin.port}: {error or reason}")
