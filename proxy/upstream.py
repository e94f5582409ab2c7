"""One attempt: a request sent to one endpoint through the network door.

The door (connection pools included) belongs to this process's event loop and is made on first use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from endpoints.conf import installation_id
from endpoints.snapshot import EndpointRecord
from endpoints.transport import (
    Answer,
    DoorError,
    FirstByteTimeout,
    IdleTimeout,
    NotConnected,
    NotConnectedReason,
    NothingReceived,
    Request,
    Target,
    TotalTimeout,
    Transport,
)
from proxy.errors import ErrorCode
from proxy.header_lines import HeaderLines
from proxy.headers import HeaderPlan, build_length, plan_headers
from proxy.inbound import Inbound, join_target
from proxy.product import PROXIED_BY
from proxy.rewriting import rewrite_model

_REMEMBERED_TARGETS = 4096
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


_TIMEOUTS = (FirstByteTimeout, IdleTimeout, TotalTimeout)


def failure_code(error: DoorError) -> ErrorCode:
    """The error code that tells a client what went wrong between us and the backend."""
    if isinstance(error, _TIMEOUTS):
        return ErrorCode.UPSTREAM_TIMEOUT
    if isinstance(error, NotConnected) and error.reason is NotConnectedReason.TIMEOUT:
        return ErrorCode.UPSTREAM_TIMEOUT
    if isinstance(error, NotConnected | NothingReceived):
        return ErrorCode.UPSTREAM_UNREACHABLE
    return ErrorCode.UPSTREAM_INVALID


def failure_word(error: DoorError) -> str:
    """The kind of a failure as one word for records: `first_byte_timeout`, `not_connected_refused`"""
    if isinstance(error, NotConnected):
        return f"not_connected_{error.reason}"
    return _WORD_START.sub("_", type(error).__name__).lower()


@cache
def via_token() -> bytes:
    """What our Via entries carry, by which a request that comes round again is known."""
    return f"olla-{installation_id()}".encode()


@dataclass(frozen=True, slots=True)
class _Known:
    """An endpoint with what is the same in every request to it."""

    endpoint: EndpointRecord
    target: Target
    plans: dict[str, HeaderPlan]  # by prefix


class Door:
    """The network door of this process with what it needs of each endpoint at hand."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.transport = transport or Transport()
        self._known: dict[int, _Known] = {}
        self._lines = HeaderLines(b"1.1 " + via_token(), PROXIED_BY)

    def _know(self, endpoint: EndpointRecord) -> _Known:
        known = self._known.get(endpoint.id)
        if known is not None:
            if known.endpoint is endpoint:
                return known
            self._lines.forget(known.plans.values())
        if len(self._known) >= _REMEMBERED_TARGETS:
            self._known.clear()
            self._lines.forget_all()
        known = _Known(endpoint, Target(endpoint.origin, endpoint.tls), {})
        self._known[endpoint.id] = known
        return known

    def _plan(self, endpoint: EndpointRecord, prefix: str) -> HeaderPlan:
        plans = self._know(endpoint).plans
        plan = plans.get(prefix)
        if plan is None:
            plan = plans[prefix] = plan_headers(endpoint, prefix)
        return plan

    async def send(self, endpoint: EndpointRecord, inbound: Inbound, model: str | None = None) -> Answer:
        """Send the request and wait for the answer's head; `model` replaces the one it names. Raises DoorError.

        A pooled connection that died before any answer byte says nothing of the endpoint: the request goes out
        once more, on a fresh one.
        """
        request = self._build(endpoint, inbound, model)
        target = self._know(endpoint).target
        try:
            return await self.transport.send(target, request, endpoint.limits)
        except NothingReceived as error:
            if not error.reused:
                raise
        return await self.transport.send(target, request, endpoint.limits, fresh=True)

    def _build(self, endpoint: EndpointRecord, inbound: Inbound, model: str | None) -> Request:
        body = inbound.body
        if model is not None:
            body = rewrite_model(body, inbound.headers, inbound.facts, model)
        path = join_target(endpoint.base_path, inbound.path, preserve=endpoint.preserve_path).encode("ascii")
        return Request(
            method=inbound.method.encode("ascii"),
            path=path + b"?" + inbound.query if inbound.query else path,
            headers=build_length(inbound.method, len(body)),
            body=body,
            lines=self._lines.write(inbound, self._plan(endpoint, inbound.prefix)),
        )


_doors: list[Door] = []


def open_door(transport: Transport | None = None) -> Door:
    """A new door for this process, with a transport of one's own if given. The one before must be closed."""
    if _doors:
        raise RuntimeError("The door is open already.")
    _doors.append(Door(transport))
    return _doors[0]


def door() -> Door:
    """The door of this process."""
    return _doors[0] if _doors else open_door()


async def close_door() -> None:
    """Close every upstream connection; the next request opens a new door."""
    while _doors:
        await _doors.pop().transport.aclose()
