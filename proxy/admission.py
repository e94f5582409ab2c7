"""Who asks, and from where, as far as the request path needs it."""

from __future__ import annotations

from typing import Any

from proxy.inbound import RawHeaders, get_header


def client_address(scope: dict[str, Any]) -> str:
    """The address of the peer, "" when the server does not know it."""
    client = scope.get("client")
    return client[0] if client else ""


def request_host(headers: RawHeaders) -> str:
    """The Host header as sent."""
    return (get_header(headers, b"host") or b"").decode("latin-1")
