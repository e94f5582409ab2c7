"""The two doors: machine traffic to APIHandler, pages to Django, sockets to Channels.

Every request passes the Host policy first. Background work (the snapshot loader) starts with the ASGI
lifespan, or with the first request under a server that speaks none.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "olla_site.settings")

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler

from endpoints import loading
from endpoints.snapshot import Snapshot
from olla_site import request_lines
from olla_site.draining import start_settling
from olla_site.handler import APIHandler, Receive, Scope, Send, error_answer, send_answer
from olla_site.host_policy import is_allowed_host, is_own_origin
from olla_site.portal.activity import activity, start_sampling
from olla_site.portal.consumer import build_sockets
from olla_site.portal.feed import feed
from olla_site.static_files import build_static_app
from proxy import finished
from proxy.admission import identify
from proxy.alerting import start_alerts
from proxy.client_identity import ClientIdentity, rewrite_scope
from proxy.errors import ErrorCode, OllaError
from proxy.inbound import get_header
from proxy.journal import start_journal, stop_journal
from proxy.live import live
from proxy.request_id import choose_request_id, current_request
from proxy.upstream import close_door

MACHINE_PREFIXES = ("/olla/", "/internal/", "/v1/", "/api/")
MACHINE_PATHS = frozenset({"/olla", "/internal", "/version"})


_host_passes = lru_cache(maxsize=256)(is_allowed_host)


def find_refused_host(sent: bytes | None, client: ClientIdentity) -> str | None:
    """The host name that the Host policy refuses, None when the request may be answered.

    Behind a trusted proxy both the Host header and the forwarded host are judged: a page that came here under a
    name of its own (DNS rebinding) can set the other one as it likes.
    """
    host = "" if sent is None else sent.decode("latin-1")
    if not _host_passes(host):
        return host
    return client.host if client.via_proxy and not _host_passes(client.host) else None


class Doors:
    """The ASGI application."""

    def __init__(self) -> None:
        self._machine = APIHandler()
        self._pages: Any = build_static_app(ASGIHandler())
        self._sockets = build_sockets(refuse_socket)
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send one connection through its door."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        self._start()
        if "olla.request_id" in scope:
            current_request.set(scope["olla.request_id"])
        client = identify(scope)
        refused = find_refused_host(get_header(scope["headers"], b"host"), client)
        if kind == "websocket":
            # A browser sends its cookies with a socket to whoever's page opens it: the page must be ours.
            own = is_own_origin(get_header(scope["headers"], b"origin"), client.host.encode("latin-1"))
            may_open = refused is None and own
            await (self._sockets if may_open else refuse_socket)(rewrite_scope(scope, client), receive, send)
            return
        if refused is not None:
            await refuse_host(scope, refused, send)
            return
        path = scope["path"]
        if path.startswith(MACHINE_PREFIXES) or path in MACHINE_PATHS:
            await self._machine(scope, receive, send)
        else:
            await self._pages(rewrite_scope(scope, client), receive, send)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            request_lines.start()
            start_alerts()
            loading.start_loader(_follow)
            start_settling()
            start_sampling()
            start_journal()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._start()
                await loading.look()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await stop_journal()
                await close_door()
                finished.flush()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _follow(snapshot: Snapshot) -> None:
    """Tell everybody who keeps something by endpoint of a new snapshot."""
    live.follow(snapshot)
    if activity.follow(snapshot):
        feed.hurry()


async def refuse_socket(_scope: Scope, receive: Receive, send: Send) -> None:
    """Close a WebSocket before it is accepted, which answers its handshake with 403."""
    await receive()
    await send({"type": "websocket.close"})


async def refuse_host(scope: Scope, host: str, send: Send) -> None:
    """Answer 400 to a Host this installation does not know, saying how to add it."""
    name = host[:200]
    error = OllaError(
        ErrorCode.INVALID_HOST,
        f"The host name {name!r} is not allowed here. Add it to OLLA_ALLOWED_HOSTS, or use an IP address.",
    )
    request_id = scope.get("olla.request_id") or choose_request_id(get_header(scope["headers"], b"x-request-id"))
    await send_answer(error_answer(error, scope["path"], request_id), scope["method"], send)


application = Doors()
