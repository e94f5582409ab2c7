"""How often somebody may try to sign in (django-ratelimit; sync views only)."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase
from django_ratelimit.decorators import ratelimit

from proxy.client_identity import client_network

# Guessing one account's password, and trying one password on many accounts.
PER_ACCOUNT = "10/m"
PER_ADDRESS = "60/m"


def network_of(request: HttpRequest) -> str:
    """The client's IPv4 address or IPv6 /64."""
    return client_network(str(request.META.get("REMOTE_ADDR", "")))


def by_account(group: str, request: HttpRequest) -> str:
    """One count for each address and user name."""
    return f"{network_of(request)} {request.POST.get('username', '').strip().lower()[:150]}"


def by_address(group: str, request: HttpRequest) -> str:
    """One count for each address."""
    return network_of(request)


def limit_logins(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Count each POST; the view finds `request.limited` set when there were too many."""
    inner = ratelimit(group="login", key=by_account, rate=PER_ACCOUNT, method="POST", block=False)(view)
    limited: Callable[..., HttpResponseBase] = ratelimit(
        group="login-address", key=by_address, rate=PER_ADDRESS, method="POST", block=False
    )(inner)
    return limited
