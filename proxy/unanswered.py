"""What a client is told when no endpoint's answer goes to it: nobody may answer, or nobody did."""

from __future__ import annotations

import time
from dataclasses import dataclass

from endpoints.snapshot import EndpointRecord
from endpoints.transport import DoorError
from proxy.answering import UnfitError
from proxy.decision import Action, Decision
from proxy.errors import ErrorCode, OllaError
from proxy.headers import header_text
from proxy.inbound import Inbound, RawHeaders
from proxy.live import live
from proxy.upstream import failure_code

_HINTS = {
    ErrorCode.UPSTREAM_TIMEOUT: "The endpoint may be loading the model; its timeouts can be raised in the admin.",
    ErrorCode.UPSTREAM_UNREACHABLE: "Is the server at its URL running?",
    ErrorCode.UPSTREAM_INVALID: "Its answer was not usable HTTP.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer."""

    endpoint: EndpointRecord
    error: DoorError | UnfitError


def build_rejection(decision: Decision) -> OllaError:
    """The error of a request that no endpoint may answer, with the routing headers."""
    headers: RawHeaders = []
    if decision.strategy:
        headers = [
            (b"X-Olla-Routing-Strategy", decision.strategy.encode()),
            (b"X-Olla-Routing-Decision", decision.action.encode()),
            (b"X-Olla-Routing-Reason", header_text(decision.reason)),
        ]
    code = decision.code or ErrorCode.INTERNAL_ERROR
    if code is ErrorCode.RATE_LIMITED:
        headers.append((b"Retry-After", b"%d" % live.rates.seconds_left(time.time())))
    return OllaError(code, decision.message, headers=tuple(headers))


def build_exhausted(inbound: Inbound, failure: Failure) -> OllaError:
    """Nobody answered: what happened at the last endpoint tried."""
    error, name = failure.error, failure.endpoint.name
    if isinstance(error, UnfitError):
        return error.error
    seconds = time.monotonic() - inbound.started
    code = failure_code(error)
    text = str(error).rstrip(".")
    return OllaError(code, f"Endpoint {name} failed after {seconds:.1f}s: {text}. {_HINTS[code]}", endpoint=name)


def build_untried(decision: Decision) -> OllaError:
    """Whoever could answer was taken out while the request waited; `decision` is what routing says by now."""
    if decision.action is Action.REJECTED:
        return build_rejection(decision)
    return OllaError(ErrorCode.NO_HEALTHY_ENDPOINTS, "No endpoint could be tried; send the request again.")
