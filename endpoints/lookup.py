"""Name look-ups with a deadline, and which addresses are this server's own."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping

Addresses = Mapping[str, tuple[str, ...]]
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def resolve_host(host: str) -> tuple[str, ...]:
    """The addresses of a name or literal in any spelling the system takes; empty when there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve_hosts(hosts: Iterable[str], timeout: float = 2.0) -> dict[str, tuple[str, ...]]:
    """Addresses of each host; one that is unknown, or unanswered after `timeout` seconds, has none.

    getaddrinfo cannot be interrupted, so each name is asked in a daemon thread that may outlive the call.
    """
    wanted = set(hosts)
    found: dict[str, tuple[str, ...]] = {}

    def ask(host: str) -> None:
        found[host] = resolve_host(host)

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in wanted]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {host: found.get(host, ()) for host in wanted}


def is_machine_address(address: str) -> bool:
    """Whether `address` belongs to this machine: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def own_address_test(host: str) -> Callable[[str], bool]:
    """A test for the addresses a server bound to `host` answers on."""
    if host in WILDCARDS:
        return is_machine_address
    own = frozenset(ipaddress.ip_address(text.split("%", 1)[0]) for text in resolve_host(host))
    return lambda address: ipaddress.ip_address(address.split("%", 1)[0]) in own
