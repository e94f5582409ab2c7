"""Operator tokens: what lets a request ask for its trace, or for one named endpoint.

    token = issue_token(user_id, scopes, now)     for a user who may; good for ten minutes
    order = read_order(headers, answer, now)      None for every request that asks for nothing

A token is signed text (`django.core.signing`), so that checking one costs no query and a request without one
costs a look at its header names. It is sent as `X-Olla-Operator`; like every X-Olla header it stays here.
Nothing takes a token back before its time: whoever loses a permission keeps it for up to ten minutes.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_to_bytes

from django.core import signing

from proxy.errors import ErrorCode, OllaError
from proxy.inbound import Order, RawHeaders

LIFETIME = 600  # seconds
TOKEN_HEADER = b"x-olla-operator"
PIN_HEADER = b"x-olla-pin"
_SALT = "olla.operator"
_LONGEST = 1024


class Scope(StrEnum):
    """What a token allows."""

    TRACE = "trace"
    PIN = "pin"


def issue_token(user_id: int, scopes: Collection[Scope | str], now: float) -> str:
    """A token of one user, good from `now` (seconds since the epoch) for LIFETIME. Raises ValueError."""
    names = sorted({Scope(each) for each in scopes})
    if not names:
        raise ValueError("A token needs at least one scope.")
    claims = {"user": user_id, "scopes": names, "until": int(now) + LIFETIME}
    return signing.Signer(salt=_SALT).sign_object(claims)


def read_token(text: str, now: float) -> frozenset[Scope]:
    """The scopes of a token. Raises OllaError(invalid_key) for one that is forged, damaged or past its time."""
    try:
        claims: Any = signing.Signer(salt=_SALT).unsign_object(text) if len(text) <= _LONGEST else {}
    except signing.BadSignature:
        claims = {}
    if not claims:
        raise OllaError(ErrorCode.INVALID_KEY, "The operator token in X-Olla-Operator is not one of ours.")
    if not now < claims["until"]:
        raise OllaError(ErrorCode.INVALID_KEY, "The operator token in X-Olla-Operator has expired. Get a new one.")
    return frozenset(Scope(each) for each in claims["scopes"])


def read_order(headers: RawHeaders, answer: RawHeaders, now: float) -> Order | None:
    """What a request asks as an operator; `answer` are the headers of its answer. Raises OllaError(invalid_key).

    A pin without a token that allows it is refused, for the client would believe another endpoint's answer to be
    the pinned one's.
    """
    token = pin = None
    for name, value in headers:
        if name == TOKEN_HEADER:
            token = value
        elif name == PIN_HEADER:
            pin = value
    if token is None and pin is None:
        return None
    scopes = read_token(token.decode("latin-1"), now) if token is not None else frozenset()
    if pin is not None and Scope.PIN not in scopes:
        message = "X-Olla-Pin needs an operator token of scope pin in X-Olla-Operator."
        raise OllaError(ErrorCode.INVALID_KEY, message)
    wanted = None if pin is None else unquote_to_bytes(pin).decode("utf-8", "replace").strip()
    return Order(pin=wanted, trace_to=answer if Scope.TRACE in scopes else None)
