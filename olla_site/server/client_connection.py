"""The client's transport: writing, flow control, closing and giving up; what leans on Twisted's internals.

What this needs of Twisted (tests/server/test_internals.py fails when an upgrade changes it): a registered push
producer is paused when more than 64 KiB wait to be written and resumed when they are gone; `connectionLost` of a
protocol that is not IHalfCloseableProtocol follows end of file at once; `abortConnection` resets;
`loseWriteConnection` flushes, then shuts the sending half; a plain TCP transport keeps unsent bytes in
`dataBuffer` (from `offset` on) and `_tempDataBuffer` (`_tempDataLen` of them) and its socket in `socket`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol

if TYPE_CHECKING:
    from olla_site.server.server import OllaServer

logger = logging.getLogger(__name__)

NEVER = float("inf")
# How long a refused client may go on sending while it reads its answer.
_LINGER = 1.0


class Phase(Enum):
    """What a connection is doing."""

    HEAD = 1  # waiting for a request head; idle between requests when nothing has come yet
    BODY = 2  # head accepted, body still coming
    ANSWERING = 3  # the application has the request; what the client pipelines waits as bytes
    CLOSING = 4  # the last answer is on its way; input is dropped
    LINGERING = 5  # the same, with the sending half to be closed first
    GONE = 6  # the connection is lost, or another protocol's


class ClientConnection(Protocol):
    """One client's connection as a place to write to; also the push producer of its own transport."""

    transport: Any  # Twisted types it as an interface without the producer and TCP methods used here

    def __init__(self, server: OllaServer) -> None:
        self.server = server
        self.phase = Phase.HEAD
        self.deadline = NEVER
        self.client: tuple[str, int] | None = None
        self.host: tuple[str, int] | None = None
        self.scheme = "http"
        # What is awaited before more is sent; None when there is room.
        self.room: asyncio.Future[None] | None = None
        self._buffer = b""
        self._reading_paused = False
        self._unsent = 0
        self._direct = False
        self._turn = -1

    # Twisted's events

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Called when the client has connected."""
        transport = self.transport
        self._direct = type(transport) is tcp.Server
        if self._direct:
            transport.setTcpNoDelay(True)  # a token must not wait for the next one (Nagle)
            transport.setTcpKeepAlive(True)  # a peer that lost its network is noticed in the end
            # In place of Twisted's own callback, which wraps each read in a logging context we do not use.
            self.server.loop.add_reader(transport.fileno(), self._readable)
        peer, host = transport.getPeer(), transport.getHost()
        if hasattr(peer, "port"):
            self.client, self.host = (peer.host, peer.port), (host.host, host.port)
        if ISSLTransport.providedBy(transport):
            self.scheme = "https"
        transport.registerProducer(self, True)
        self.deadline = self.server.clock + self.server.conf.keep_alive_timeout

    def _readable(self) -> None:
        transport = self.transport
        try:
            why = transport.doRead()
        except Exception as error:
            logger.exception("failure while reading from a client")
            why = error
        if why:
            transport.reactor._disconnectSelectable(transport, why, True)

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802 - Twisted's name
        """Called once, however the connection ended."""
        self.leave()
        self._make_room()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport holds enough unsent bytes."""
        if self.room is None:
            self.room = self.server.loop.create_future()
            self._watch_sending()

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport has handed everything to the system."""
        if self.room is not None:
            self._make_room()
            self.room_made()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport is gone; `connectionLost` follows."""

    def room_made(self) -> None:
        """More may be sent again."""

    def _make_room(self) -> None:
        room, self.room = self.room, None
        if room is not None and not room.done():
            room.set_result(None)

    # Writing and reading

    def write(self, data: bytes) -> None:
        """Send bytes.

        The first write of a turn of the event loop goes straight to the socket when nothing waits before it:
        Twisted would ask for writability, wait for the next turn and take the question back (a tenth of a small
        request's cost). Later writes of the same turn are collected by Twisted and leave together.
        """
        server, transport = self.server, self.transport
        if self._direct and self._turn != server.turn and not transport.dataBuffer and not transport._tempDataLen:
            self._turn = server.begin_turn()
            try:
                sent = transport.socket.send(data)
            except OSError:
                sent = 0  # full, or broken: Twisted finds out and acts
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def pause_reading(self) -> None:
        """Take no more bytes from the client; its leaving goes unseen meanwhile."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resumeProducing()

    # Ends

    def close(self, *, refused: bool = False) -> None:
        """Close when everything written has left.

        While the client may still be sending, only the sending half is closed and input is dropped: closing a
        socket with unread input resets it, and the client would lose the answer (RFC 9112, 9.6).
        """
        if self.phase in {Phase.CLOSING, Phase.LINGERING, Phase.GONE}:
            return
        lingering = self._direct and (refused or bool(self._buffer))
        self.phase = Phase.LINGERING if lingering else Phase.CLOSING
        self._buffer = b""
        self.transport.unregisterProducer()
        self._make_room()
        self.resume_reading()
        self._watch_sending()
        if refused:
            self.deadline = self.server.loop.time() + _LINGER
        if lingering:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def leave(self) -> None:
        """The connection is lost, or another protocol takes the transport over."""
        self.phase = Phase.GONE
        self.deadline = NEVER
        self._direct = False
        self._buffer = b""
        self.server.http_connections.discard(self)

    def abort(self) -> None:
        """Reset the connection now: what the client has must not look complete."""
        if self.phase is not Phase.GONE:
            self.phase = Phase.CLOSING
            self.deadline = NEVER
            self._direct = False
            self.transport.abortConnection()

    # Clients that take nothing

    def give_up_unless_sending(self) -> None:
        """Abort when the client has taken no byte since the last look; look again later when it has."""
        if self.phase is not Phase.LINGERING and self._count_unsent() != self._unsent:
            self._watch_sending()
        else:
            self.abort()

    def _watch_sending(self) -> None:
        """From now on the client must take some bytes within the idle timeout."""
        self._unsent = self._count_unsent()
        self.deadline = self.server.clock + self.server.conf.idle_timeout + 1

    def _count_unsent(self) -> int:
        """Bytes written that the client's system has not confirmed: ours and the kernel's (tcp(7), SIOCOUTQ)."""
        transport = self.transport
        if not self._direct:
            return 0
        ours = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        kernel = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int(ours + struct.unpack("i", kernel)[0])
