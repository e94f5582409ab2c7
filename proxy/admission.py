"""Who asks, and whether there is room for the request: the first stage of every forwarded one.

Counts are kept in this process, on its event loop. What is refused here has cost no parsing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol

from endpoints.conf import conf
from proxy.client_identity import ClientIdentity, Networks, client_network, identify_client, networks_of
from proxy.errors import ErrorCode, OllaError
from proxy.finished import finish, note_error
from proxy.inbound import RawHeaders
from proxy.rates import OpenRequests, RateLimits, Refusal, RequestRates, Verdict
from proxy.record import RequestRecord
from proxy.violations import violations

_IDENTITY = "olla.client"
# Set in the scope of a request that has a record, and so a log line as a forwarded one.
RECORDED = "olla.recorded"
_MOST_PREFIX = 100  # characters kept of a provider prefix, which may be any text
_MESSAGES = {
    Refusal.CLIENT: "More than {limit} requests a minute came from your address.",
    Refusal.BURST: "More than {burst} requests within one second came from your address.",
    Refusal.TOTAL: "All clients together sent more than {limit} requests a minute.",
}


class Admittable(Protocol):
    """What admission needs of a request of the API door."""

    scope: dict[str, Any]
    # Set on whatever answer the request gets.
    answer_headers: RawHeaders
    # Called once, when the answer has ended in whatever way.
    closers: list[Callable[[], None]]


class Admission:
    """This process's counts."""

    def __init__(self) -> None:
        self.requests = RequestRates()
        self.health = RequestRates()
        self.open_requests = OpenRequests()

    def admit(self, request: Admittable, now: float) -> ClientIdentity:
        """Count a request that will be forwarded. Raises OllaError(rate_limited)."""
        identity = identify(request.scope)
        client = client_network(identity.address)
        most = conf().per_ip_concurrent_requests
        if most and not self.open_requests.open(client, most):
            violations.note_rate("concurrent", client, now)
            raise _too_many_open(most)
        if most:
            request.closers.append(partial(self.open_requests.close, client))
        _take(self.requests, request, client, _limits(), now)
        return identity

    def foresee(self, identity: ClientIdentity, now: float) -> OllaError | None:
        """The refusal that `admit` would raise now, if any. Counts nothing."""
        client = client_network(identity.address)
        most = conf().per_ip_concurrent_requests
        if most and not self.open_requests.has_room(client, most):
            return _too_many_open(most)
        limits = _limits()
        verdict = self.requests.foresee(client, limits, now)
        return _build_refusal(verdict, limits) if verdict.refusal is not None else None

    def admit_health(self, request: Admittable, now: float) -> None:
        """Count a health request, by client: one that asks too often blinds no other. Raises OllaError."""
        limits = RateLimits(client_per_minute=conf().health_requests_per_minute)
        _take(self.health, request, client_network(identify(request.scope).address), limits, now)

    def forget(self) -> None:
        """Start every window anew."""
        self.requests.forget()
        self.health.forget()
        violations.forget()


admission = Admission()


def admit(request: Admittable) -> ClientIdentity:
    """Count a request that will be forwarded, now. Raises OllaError(rate_limited)."""
    return admission.admit(request, time.time())


def identify(scope: dict[str, Any]) -> ClientIdentity:
    """The client of an ASGI connection, remembered in its scope."""
    known: ClientIdentity | None = scope.get(_IDENTITY)
    if known is None:
        client = scope.get("client")
        known = identify_client(
            client[0] if client else "", scope.get("scheme", "http"), scope["headers"], trusted_networks()
        )
        scope[_IDENTITY] = known
    return known


def begin_record(scope: dict[str, Any], request_id: str, prefix: str) -> RequestRecord:
    """The record of a request that asks to be forwarded, and enters now."""
    client = identify(scope)
    scope[RECORDED] = True
    return RequestRecord(
        request_id,
        time.time(),
        time.monotonic(),
        scope["method"],
        scope["path"],
        prefix[:_MOST_PREFIX],
        client.address,
        client.peer,
    )


def begin_refused(scope: dict[str, Any], request_id: str, error: OllaError) -> RequestRecord | None:
    """The record of a request refused before any view saw it; None for one that would not be forwarded."""
    parts = scope["path"].split("/", 3)
    if len(parts) < 3 or parts[1] != "olla" or parts[2] in ("", "models"):
        return None
    record = begin_record(scope, request_id, parts[2].lower())
    note_error(record, error)
    return record


def record_refusal(scope: dict[str, Any], request_id: str, error: OllaError, size: int) -> bool:
    """Record a request that the server refused by its head or its body; `size` is that of the answer's body.

    Whether it was one that would have been forwarded, and so was recorded.
    """
    record = begin_refused(scope, request_id, error)
    if record is not None:
        record.status, record.response_bytes = record.answer_status, size
        finish(record)
    return record is not None


def trusted_networks() -> Networks:
    """The networks of reverse proxies whose word is taken."""
    return networks_of(conf().trusted_proxies)


def _limits() -> RateLimits:
    settings = conf()
    return _limits_once(
        settings.global_requests_per_minute, settings.per_ip_requests_per_minute, settings.burst_size
    )


_limits_once = lru_cache(maxsize=4)(RateLimits)


def _take(rates: RequestRates, request: Admittable, client: str, limits: RateLimits, now: float) -> None:
    """Count the request and put what is left on its answer, or refuse it."""
    verdict = rates.take(client, limits, now)
    if verdict.limit:
        request.answer_headers.extend(build_rate_headers(verdict))
    if verdict.refusal is not None:
        violations.note_rate(verdict.refusal.value, client, now)
        raise _build_refusal(verdict, limits)


def _too_many_open(most: int) -> OllaError:
    message = f"{most} requests from your address are being answered already."
    return OllaError(ErrorCode.RATE_LIMITED, message, headers=((b"Retry-After", b"1"),))


def _build_refusal(verdict: Verdict, limits: RateLimits) -> OllaError:
    """The error of a verdict that refuses."""
    refusal = verdict.refusal or Refusal.CLIENT
    message = _MESSAGES[refusal].format(limit=verdict.limit, burst=limits.client_per_second)
    seconds = verdict.retry_after
    return OllaError(
        ErrorCode.RATE_LIMITED,
        f"{message} Try again in {seconds} {'second' if seconds == 1 else 'seconds'}.",
        headers=((b"Retry-After", b"%d" % seconds),),
    )


def build_rate_headers(verdict: Verdict) -> RawHeaders:
    """What a client may know of its minute."""
    return [
        (b"X-RateLimit-Limit", b"%d" % verdict.limit),
        (b"X-RateLimit-Remaining", b"%d" % verdict.remaining),
        (b"X-RateLimit-Reset", b"%d" % verdict.reset),
    ]
