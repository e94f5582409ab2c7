"""How talking to an endpoint can fail, named by when it happened. (pure)

    DoorError
    +- NotConnected        no byte of the request went out; `reason` says why
    +- NothingReceived     the connection died after the request was (perhaps partly) written, before any answer
    +- FirstByteTimeout    the request was written, no whole answer head came in time
    +- BadAnswer           what came is not an HTTP/1.x answer, or is framed in two ways
    |  +- CutHead          the connection died inside the head of the answer
    +- LostMidBody         the head was good, then the connection died before the body was whole
    +- IdleTimeout         the head was good, then the body made no progress in time
    +- TotalTimeout        the whole answer took longer than allowed

An answer cut inside its head is a BadAnswer: bytes came, so the request may have been acted on, but there is
nothing to relay. The classes decide what may be retried; messages are for people and are never parsed.
"""

# ruff: noqa: N818 - the names say when it happened; the base class says that it is an error

from __future__ import annotations

from enum import StrEnum


class NotConnectedReason(StrEnum):
    """Why no connection was made."""

    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    FORBIDDEN_ADDRESS = "forbidden_address"
    CLOSED = "closed"  # accepted, then closed before the request was written
    NO_FREE_CONNECTION = "no_free_connection"  # all max_connections stayed busy for the whole connect limit
    LOCAL = "local"  # this machine is out of sockets, ports or memory: not the endpoint's fault


class DoorError(Exception):
    """Any failure of one exchange with an endpoint."""


class NotConnected(DoorError):
    """No connection was made, so no byte of the request was sent."""

    def __init__(self, reason: NotConnectedReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class NothingReceived(DoorError):
    """The connection died after the request was (perhaps partly) written and before any answer byte."""

    def __init__(self, *, reused: bool) -> None:
        super().__init__("The connection closed before any byte of the answer.")
        self.reused = reused


class FirstByteTimeout(DoorError):
    """No whole answer head within the limit, counted from the last progress of the request on the socket."""


class BadAnswer(DoorError):
    """Garbage, ambiguous framing, an oversized or cut head, an unasked protocol switch."""


class CutHead(BadAnswer):
    """The connection died after the first byte of the answer and before the end of its head."""


class LostMidBody(DoorError):
    """The connection died after the head and before the declared end of the body."""


class IdleTimeout(DoorError):
    """The body made no progress within the limit while somebody waited for it."""


class TotalTimeout(DoorError):
    """The whole exchange took longer than its limit."""
