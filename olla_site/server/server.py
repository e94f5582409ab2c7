"""OllaServer: Daphne's server with our own HTTP protocol, one sweep a second and an orderly start and end.

Importing this module installs Twisted's asyncio reactor (Daphne does, at import), so nothing may have imported
`twisted.internet.reactor` before.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from daphne.server import Server as DaphneServer
from twisted.internet import defer
from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner
from zope.interface import implementer  # type: ignore[import-untyped]

from endpoints.conf import conf
from endpoints.tasks import spawn
from olla_site.server import access_log
from olla_site.server.drain import Drain
from olla_site.server.exchange import Exchange
from olla_site.server.http_protocol import HTTPProtocol
from olla_site.server.lifespan import Lifespan, LifespanError
from olla_site.server.limits import BodyBudget
from olla_site.server.websocket import OllaWebSocketFactory
from proxy.request_id import choose_request_id

logger = logging.getLogger(__name__)

# Twisted's own 50 makes a burst of 256 clients wait a second for their SYN to be sent again.
BACKLOG = 2048
# How long a head may wait for the first bytes of its body, so that both leave in one write.
_HEAD_DELAY = 0.01
# How long an application may go on after its client has left.
_ORPHAN_SECONDS = 10.0

Address = tuple[str, int]
# Twisted types it as a module with only the least of its methods.
reactor: Any = installed_reactor
_endpoint: Any = serverFromString


@implementer(IProtocolNegotiationFactory)
class HTTPFactory(Factory):
    """Builds one `HTTPProtocol` per connection."""

    noisy = False

    def __init__(self, server: OllaServer) -> None:
        self.server = server

    def buildProtocol(self, addr: object) -> HTTPProtocol:  # noqa: N802 - Twisted's name
        """The protocol for a new connection."""
        return HTTPProtocol(self.server)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        """What TLS clients with ALPN may choose; without an answer they are refused."""
        return [b"http/1.1"]


def _forward(event: dict[str, Any]) -> None:
    """Log failures Twisted caught (a bug of ours in a callback ends up here); its other lines go nowhere."""
    failure = event.get("log_failure")
    if failure is not None:
        logger.error("failure inside the server", exc_info=(failure.type, failure.value, failure.tb))


class OllaServer(DaphneServer):  # type: ignore[misc]
    """The server; `run` returns when it has ended, `exit_code` says how.

    `endpoints` are Twisted endpoint descriptions as for Daphne; `on_listening` gets the bound addresses.
    Daphne's table `connections` holds WebSockets only, HTTP connections are in `http_connections`.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        *,
        on_listening: Callable[[list[Address]], None] | None = None,
        shutdown_timeout: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(application, **options)
        self.conf = conf()
        self.shutdown_timeout = self.conf.shutdown_timeout if shutdown_timeout is None else shutdown_timeout
        self.budget = BodyBudget(self.conf.body_budget)
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_connections: set[HTTPProtocol] = set()
        self.exchanges: set[Exchange] = set()
        self.ports: list[Any] = []
        self.state: dict[str, Any] = {}
        self.lifespan = Lifespan(application)
        self.draining = False
        self.exit_code = 0
        self._stopped = False
        self.on_sweep: list[Callable[[float], None]] = []
        self._on_listening = on_listening
        self.turn = 0
        self._in_turn = False
        self._held_heads: list[Exchange] = []
        self._orphans: dict[Exchange, float] = {}

    # Start

    def run(self) -> None:
        """Serve until stopped."""
        # The loop Daphne gave the reactor; the thread that runs it may not be the one that imported Daphne.
        self.loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
        asyncio.set_event_loop(self.loop)
        self.http_factory = HTTPFactory(self)
        self.ws_factory = OllaWebSocketFactory(self, server=None)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        observers: list[Any] = [_forward]
        globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
        self._tick()
        self.access_log = access_log.AccessLog()
        self.drain = Drain(self)
        if self.signal_handlers:
            self.drain.install()
        reactor.addSystemEventTrigger("before", "shutdown", self.kill_all_applications)
        self.loop.call_soon(lambda: spawn(self._start(), "server start"))
        reactor.run(installSignalHandlers=False)
        self.access_log.flush()

    async def _start(self) -> None:
        """The application's startup, then the doors."""
        try:
            await self.lifespan.startup()
        except LifespanError as error:
            logger.critical("The application did not start: %s", error)
            self._give_up()
            return
        self.state = self.lifespan.state
        try:
            for description in self.endpoints:
                endpoint: Any = _endpoint(reactor, f"{description}:backlog={BACKLOG}")
                port = await endpoint.listen(self.http_factory).asFuture(self.loop)
                self.ports.append(port)
        except CannotListenError as error:
            logger.critical("Cannot listen: %s", error)
            self._give_up()
            return
        self.loop.call_later(1, self._sweep)
        # What exists now stays: collections then look at requests only, and rarely (a full one took 50 ms).
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        addresses = [(host.host, host.port) for host in (port.getHost() for port in self.ports)]
        self.listening_addresses.extend(addresses)
        if self._on_listening is not None:
            self._on_listening(addresses)

    def _give_up(self) -> None:
        self.exit_code = 1
        self.stop()

    def stop(self) -> None:
        """End the reactor, once: it does not like to be asked again."""
        if not self._stopped:
            self._stopped = True
            super().stop()

    # The one clock and sweep

    def _tick(self) -> None:
        self.clock = self.loop.time()
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode("ascii")

    def _sweep(self) -> None:
        """Once a second: every deadline of every connection, instead of timers per request."""
        self.loop.call_later(1, self._sweep)
        self._tick()
        clock = self.clock
        for connection in [each for each in self.http_connections if each.deadline < clock]:
            connection.expire()
        for exchange in [each for each, deadline in self._orphans.items() if deadline < clock]:
            del self._orphans[exchange]
            if exchange.task is not None and not exchange.task.done():
                logger.warning("request %s: still running after its client left, cancelled", exchange.request_id)
                exchange.task.cancel()
        self._check_websockets()
        for call in self.on_sweep:
            call(clock)

    def _check_websockets(self) -> None:
        """Daphne's timeouts and pings, one by one: in its own loop one that fails ends them for all."""
        for protocol in list(self.connections):
            try:
                protocol.check_timeouts()
            except Exception:
                logger.exception("a WebSocket's timeouts could not be checked")
                protocol.dropConnection(abort=True)

    def begin_turn(self) -> int:
        """The number of the loop's present turn; a connection writes straight to its socket once in each."""
        if not self._in_turn:
            self._in_turn = True
            self.loop.call_soon(self._end_turn)
        return self.turn

    def _end_turn(self) -> None:
        self._in_turn = False
        self.turn += 1

    def watch_orphan(self, exchange: Exchange) -> None:
        """Cancel the application of a client that left, if it does not end by itself."""
        self._orphans[exchange] = self.clock + _ORPHAN_SECONDS + 1

    def forget(self, exchange: Exchange) -> None:
        """The application of an exchange has ended."""
        self.exchanges.discard(exchange)
        self._orphans.pop(exchange, None)

    def hold_head(self, exchange: Exchange) -> None:
        """Let a head wait a moment for its body; one timer for all that wait."""
        if not self._held_heads:
            self.loop.call_later(_HEAD_DELAY, self._flush_heads)
        self._held_heads.append(exchange)

    def _flush_heads(self) -> None:
        held, self._held_heads = self._held_heads, []
        for exchange in held:
            exchange.flush_head()

    # WebSockets, in Daphne's table

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Start the application for a WebSocket and reap it as soon as it ends (Daphne: within a second)."""
        protocol.request_id = protocol.request_id or choose_request_id(None)
        scope["olla.request_id"] = protocol.request_id
        if self.state:
            scope["state"] = self.state.copy()
        queue = super().create_application(protocol, scope)
        task = self.connections.get(protocol, {}).get("application_instance")
        if task is not None:
            task.add_done_callback(lambda done: self._websocket_ended(protocol, done))
        return queue

    def protocol_disconnected(self, protocol: Any) -> None:
        """A WebSocket's connection is lost; its application gets a while to end."""
        details = self.connections.get(protocol)
        if details is None:
            return
        super().protocol_disconnected(protocol)
        task = details.get("application_instance")
        if task is None:
            del self.connections[protocol]
        else:
            self.loop.call_later(self.application_close_timeout, task.cancel)

    def _websocket_ended(self, protocol: Any, task: asyncio.Future[None]) -> None:
        details = self.connections.get(protocol)
        if details is None:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("the application failed on a WebSocket", exc_info=error)
        details.pop("application_instance", None)
        if "disconnected" in details:
            del self.connections[protocol]
        elif error is not None:
            protocol.handle_exception(error)
        elif protocol.state == protocol.STATE_CONNECTING:
            protocol.serverReject()
        elif protocol.state == protocol.STATE_OPEN:
            protocol.serverClose()

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Daphne's news of WebSockets, as lines of the access log."""
        if protocol == "websocket" and access_log.AccessLog.is_on():
            access_log.log_websocket(action, details["path"], details["client"])

    def kill_all_applications(self) -> Any:
        """Cancel whatever still runs and give it a moment; the reactor waits for it before it ends."""
        tasks = [each.task for each in self.exchanges if each.task is not None]
        tasks += [
            each["application_instance"] for each in self.connections.values() if "application_instance" in each
        ]
        for task in tasks:
            task.cancel()
        if not tasks:
            return None
        waiting = self.loop.create_task(asyncio.wait(tasks, timeout=2))
        return defer.Deferred.fromFuture(waiting)
