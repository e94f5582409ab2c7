"""How often somebody may try to sign in (django-ratelimit; sync views only)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase
from django_ratelimit.decorators import ratelimit

# Guessing one account's password, and trying one password on many accounts.
PER_ACCOUNT = "10/m"
PER_ADDRESS = "60/m"


def client_network(request: HttpRequest) -> str:
    """The client's IPv4 address or IPv6 /64, which one subscriber usually has to himself."""
    try:
        address = ipaddress.ip_address(str(request.META.get("REMOTE_ADDR", "")).split("%", 1)[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def by_account(group: str, request: HttpRequest) -> str:
    """One count for each address and user name."""
    return f"{client_network(request)} {request.POST.get('username', '').strip().lower()[:150]}"


def by_address(group: str, request: HttpRequest) -> str:
    """One count for each address."""
    return client_network(request)


def limit_logins(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Count each POST; the view finds `request.limited` set when there were too many."""
    inner = ratelimit(group="login", key=by_account, rate=PER_ACCOUNT, method="POST", block=False)(view)
    limited: Callable[..., HttpResponseBase] = ratelimit(
        group="login-address", key=by_address, rate=PER_ADDRESS, method="POST", block=False
    )(inner)
    return limited
