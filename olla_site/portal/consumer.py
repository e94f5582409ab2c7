"""The WebSocket of pages: says where things stand, then what changes, once a second; takes nothing.

The Origin has been checked by `olla_site.asgi`; the account is checked here. The socket ends after LONGEST and the
page opens another, so that somebody who lost the right loses the picture too.
"""

from __future__ import annotations

import asyncio
from typing import Any

import django.db
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddleware
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from channels.sessions import SessionMiddlewareStack
from django.urls import path, re_path

from endpoints import tasks
from olla_site.portal.access import Right, rights_of
from olla_site.portal.broadcast import Broadcast
from olla_site.portal.feed import feed
from olla_site.portal.log_feed import log_feed

LONGEST = 900.0  # seconds
MOST_SOCKETS = 1000
FAREWELL = 4000  # close code: come again
NOT_ASKED = 4001  # close code: there is nothing to say here


def may_listen(scope: dict[str, Any]) -> bool:
    """Whether whoever opened a socket may look at the portal. Reads the database."""
    client = scope.get("client") or ("", 0)
    return Right.VIEW in rights_of(scope.get("user"), str(client[0]), scope["headers"])


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One page that listens."""

    source: Broadcast = feed
    _farewell: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Let in who may look; others get 403 before the handshake ends."""
        allowed = self.source.listeners < MOST_SOCKETS and await sync_to_async(may_listen)(self.scope)
        if not allowed:
            await self.close()
            return
        await self.accept()
        try:
            await self._tell(await self.source.join(self._tell))
        except django.db.Error:
            await self.close(code=FAREWELL)
            return
        loop = asyncio.get_running_loop()
        self._farewell = loop.call_later(LONGEST, self._end)

    async def disconnect(self, code: int) -> None:
        """The page is gone."""
        self.source.leave(self._tell)
        if self._farewell is not None:
            self._farewell.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages have nothing to say here."""
        self.source.leave(self._tell)
        await self.close(code=NOT_ASKED)

    async def _tell(self, text: str) -> None:
        await self.send(text_data=text)

    def _end(self) -> None:
        tasks.spawn(self.close(code=FAREWELL), "portal farewell")


class LogConsumer(LiveConsumer):
    """One page that shows the newest requests."""

    source = log_feed


def build_sockets(otherwise: Any) -> Any:
    """The WebSocket routes; `otherwise` answers every other path."""
    fleet, log = (
        SessionMiddlewareStack(AuthMiddleware(consumer.as_asgi())) for consumer in (LiveConsumer, LogConsumer)
    )
    return URLRouter([path("portal/live", fleet), path("portal/live/requests", log), re_path("", otherwise)])
