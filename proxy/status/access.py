"""Who may read `/internal/*`: everyone, listed networks, or staff who are signed in.

Staff always may. An address counts only when it is known to be the client's: a request that carries proxies'
headers and does not come from a trusted proxy is from nowhere, whoever is connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from endpoints.conf import InternalAccess, conf
from proxy.admission import identify
from proxy.client_identity import ClientIdentity, is_within, networks_of
from proxy.errors import ErrorCode, OllaError
from proxy.session_rights import is_staff


async def require_access(scope: dict[str, Any], cookies: Mapping[str, str]) -> None:
    """Let the request pass, or raise OllaError(forbidden_path) that says what would let it."""
    client, rule = identify(scope), InternalAccess(conf().internal_access)
    if rule is InternalAccess.EVERYONE:
        return
    if rule is InternalAccess.NETWORKS and is_within(client, networks_of(conf().internal_networks)):
        return
    if await is_staff(cookies):
        return
    raise OllaError(ErrorCode.FORBIDDEN_PATH, _explain(client, rule))


def _explain(client: ClientIdentity, rule: InternalAccess) -> str:
    if rule is InternalAccess.STAFF:
        return "Only staff who are signed in here may read this (OLLA_INTERNAL_ACCESS=staff)."
    if not client.is_known:
        return (
            "This request came through a proxy that is not trusted, so it is not known whose it is. "
            "Name the proxy in OLLA_TRUSTED_PROXIES, or sign in."
        )
    return (
        f"The address {client.address or 'of this client'} is not among OLLA_INTERNAL_NETWORKS. Add its network "
        "there, set OLLA_INTERNAL_ACCESS=everyone, or sign in."
    )
