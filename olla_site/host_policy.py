"""Which Host headers are answered: the guard against DNS rebinding, the same for every door.

Pass: localhost and its subdomains, any IP literal (a literal cannot be rebound), this machine's names and
OLLA_ALLOWED_HOSTS (`.example.org` takes subdomains too). Everything else is refused with a hint.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache

from django.conf import settings

from endpoints.conf import conf

_LOCAL = ("localhost", ".localhost")
_PORT = re.compile(r"(?::[0-9]{0,5})?")


@lru_cache(maxsize=1)
def machine_names() -> frozenset[str]:
    """The names this machine goes by, without asking any network."""
    name = socket.gethostname().lower()
    short = name.split(".", 1)[0]
    return frozenset({name, short, f"{short}.local"})


def host_name(value: str) -> str:
    """The host of a Host header value, lower case, without port and brackets; "" when malformed."""
    text = value.strip().lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        # Brackets hold an IPv6 literal and nothing else (RFC 3986, section 3.2.2).
        return host if bracket and ":" in host and _is_address(host) and _PORT.fullmatch(rest) else ""
    host, colon, port = text.partition(":")
    return host.removesuffix(".") if _PORT.fullmatch(colon + port) else ""


def is_allowed_host(value: str) -> bool:
    """Whether a request with this Host header may be answered."""
    host = host_name(value)
    if not host:
        return False
    if _is_address(host) or host in machine_names():
        return True
    patterns = (*_LOCAL, *(each.lower() for each in conf().allowed_hosts))
    return any(_matches(host, pattern) for pattern in patterns)


def is_own_origin(origin: bytes | None, host: bytes) -> bool:
    """Whether the page behind a browser's request is this site's, or no browser sent it (RFC 6454).

    The scheme is left out of the comparison: a proxy in front may end TLS. A sandboxed page says `null`.
    """
    if origin is None:
        return True
    text = origin.decode("latin-1").strip().lower()
    if text in {each.lower() for each in settings.CSRF_TRUSTED_ORIGINS}:
        return True
    return text.partition("://")[2] == host.decode("latin-1").strip().lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _matches(host: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("."):
        return host.endswith(pattern) or host == pattern[1:]
    return host == pattern
