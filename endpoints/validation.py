"""What an endpoint must satisfy before it is saved, whoever saves it (admin, portal, API, import).

    review(draft, stored, surroundings)      every finding, errors and warnings
    secrets_to_enter_again(stored, draft)    the Secret rule alone

Nothing here touches the database or the network: addresses are looked up before (endpoints/lookup.py).
No message repeats a value that may be secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from endpoints.addressing import AddressError, Origin, check_address, parse_origin
from endpoints.credential_rules import check_credentials
from endpoints.fields import UnreadableSecret
from endpoints.findings import Finding, Severity, error, warning
from endpoints.lookup import Addresses
from endpoints.models import AuthType, Endpoint
from endpoints.rule_review import check_tags
from endpoints.rules import describe_bad_glob
from endpoints.secrets import Secret
from endpoints.write_only import KEEP, NO_SECRET, SecretAction, SecretEdit, kept_header_names

__all__ = ["Draft", "Finding", "Severity", "Surroundings", "hosts_of", "review", "secrets_to_enter_again"]

URL_FIELDS = ("url", "health_check_url", "model_url")
MOST_PROBE_SECONDS = 30
AGAIN = "Enter it again (or remove it): {}, and a stored secret never follows to another place unseen."
_ABSOLUTE = ("http://", "https://")
_UNSAFE_IN_URL = re.compile(r"[^\x21-\x7e]|[\\<>\"`]")


@dataclass(frozen=True, slots=True)
class Draft:
    """An endpoint as somebody wants it: every field that has rules beyond its type."""

    name: str
    url: str
    health_check_url: str = ""
    model_url: str = ""
    verify_tls: bool = True
    ca_file: str = ""
    check_interval: float = 5.0
    check_timeout: float = 2.0
    model_include: str = ""
    model_exclude: str = ""
    tags: str = ""
    auth_type: str = "none"
    auth_header: str = ""
    auth_username: SecretEdit = KEEP
    auth_secret: SecretEdit = KEEP
    extra_headers: Secret = NO_SECRET
    maintenance_from: datetime | None = None
    maintenance_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rules must know of this installation."""

    addresses: Addresses  # host -> what it resolved to; empty when it did not
    own_port: int
    is_own_address: Callable[[str], bool]
    env: Mapping[str, str]
    env_allow: tuple[str, ...]
    now: datetime | None = None


def review(draft: Draft, stored: Endpoint | None, around: Surroundings) -> list[Finding]:
    """Every error and warning of `draft`; `stored` is the row it replaces, None for a new endpoint."""
    return [
        *_check_name(draft.name),
        *(finding for field in URL_FIELDS for finding in check_url(field, getattr(draft, field), around)),
        *check_tags("tags", draft.tags),
        *_check_times(draft),
        *_check_window(draft, around.now),
        *check_patterns("model_include", draft.model_include),
        *check_patterns("model_exclude", draft.model_exclude),
        *check_credentials(draft, stored, around.env, around.env_allow),
        *(secrets_to_enter_again(stored, draft) if stored else ()),
    ]


def hosts_of(urls: Iterable[str]) -> set[str]:
    """The hosts whose addresses `review` wants to know; what is no absolute URL is passed over."""
    hosts = set()
    for text in urls:
        if text.lower().startswith(_ABSOLUTE):
            try:
                hosts.add(parse_origin(text).host)
            except AddressError:
                continue
    return hosts


# ---------------------------------------------------------------------------------------- the Secret rule


def destinations(row: Endpoint | Draft) -> frozenset[Origin]:
    """Every origin an endpoint's URLs name. Raises AddressError for a URL that is none."""
    origins = {parse_origin(row.url)}
    origins.update(
        parse_origin(text) for text in (row.health_check_url, row.model_url) if text.lower().startswith(_ABSOLUTE)
    )
    return frozenset(origins)


def describe_move(stored: Endpoint, draft: Draft) -> str:
    """What makes credentials go somewhere else, as part of a sentence; empty when nothing does."""
    if stored.verify_tls and not draft.verify_tls:
        return "TLS verification is switched off"
    if stored.ca_file != draft.ca_file:
        return "the CA file changes, and with it who can pass for this server"
    try:
        old_home, new_home = parse_origin(stored.url), parse_origin(draft.url)
        added = destinations(draft) - destinations(stored)
    except AddressError:
        return "the URL changes"
    if old_home != new_home:
        return "the URL's scheme, host or port changes"
    return "a probe URL points to another server" if added else ""


def secrets_to_enter_again(stored: Endpoint, draft: Draft) -> list[Finding]:
    """The Secret rule: whoever moves an endpoint must know its secrets.

    Otherwise everybody who may edit an endpoint could have its credentials sent to a server of their own.
    """
    move = describe_move(stored, draft)
    if not move:
        return _secrets_for_another_header(stored, draft)
    why = AGAIN.format(move)
    findings = [
        error(field, why)
        for field, edit, secret in (
            ("auth_username", draft.auth_username, stored.auth_username),
            ("auth_secret", draft.auth_secret, stored.auth_secret),
        )
        if edit.action is SecretAction.KEEP and is_stored(secret)
    ]
    kept = kept_header_names(draft.extra_headers, stored.extra_headers)
    if kept:
        findings.append(error("extra_headers", f"{', '.join(kept)}: {why[0].lower()}{why[1:]}"))
    return findings


def _secrets_for_another_header(stored: Endpoint, draft: Draft) -> list[Finding]:
    """A key sent as X-Request-Id, say, comes back in answers: it stays in the header it was entered for."""
    old = auth_header_of(stored.auth_type, stored.auth_header)
    new = auth_header_of(draft.auth_type, draft.auth_header)
    if new in {"", old} or draft.auth_secret.action is not SecretAction.KEEP or not is_stored(stored.auth_secret):
        return []
    return [error("auth_secret", AGAIN.format(f"it would be sent in another header ({new})"))]


def auth_header_of(auth_type: str, header: str) -> str:
    """The header, in small letters, that carries credentials of a kind."""
    if auth_type == AuthType.API_KEY:
        return (header or "X-Api-Key").lower()
    return "" if auth_type == AuthType.NONE else "authorization"


def is_stored(secret: Secret) -> bool:
    """Whether something is stored, readable or not."""
    return bool(secret) or isinstance(secret, UnreadableSecret)


# ------------------------------------------------------------------------------------------------ the rules


def _check_name(name: str) -> Iterator[Finding]:
    if not name.isprintable():
        yield error("name", "The name may not contain line breaks or other control characters.")


def check_url(field: str, text: str, around: Surroundings) -> Iterator[Finding]:
    """Rules of a URL field; probe URLs may also be paths or empty."""
    try:
        origin = _parse_url(field, text)
        if origin is None:
            return
        addresses = around.addresses.get(origin.host, ())
        for address in addresses:
            check_address(address)
        _refuse_own_address(origin, addresses, around)
    except AddressError as problem:
        yield error(field, str(problem))
        return
    if not addresses:
        yield warning(field, f"The name {origin.host} could not be resolved now. Saved; check the spelling.")


def _parse_url(field: str, text: str) -> Origin | None:
    """The origin of an absolute URL, None for a path. Raises AddressError."""
    if _UNSAFE_IN_URL.search(text):
        raise AddressError(
            "Spaces, control characters, quotes and letters outside ASCII cannot stand in a URL. "
            "Write international names in their xn-- form and other characters as %XX."
        )
    if field != "url" and not text.lower().startswith(_ABSOLUTE):
        if text and not text.startswith("/"):
            raise AddressError("Enter a path such as /health, or a URL that starts with http:// or https://.")
        return None
    origin = parse_origin(text)
    if origin.port == 0:
        raise AddressError("Port 0 cannot be connected to.")
    parts = urlsplit(text)
    if parts.fragment or (field == "url" and parts.query):
        raise AddressError("Leave out everything from ? or # on.")
    return origin


def _refuse_own_address(origin: Origin, addresses: tuple[str, ...], around: Surroundings) -> None:
    if origin.port == around.own_port and any(around.is_own_address(address) for address in addresses):
        raise AddressError(
            f"This server itself listens on {origin.authority}: requests would go round in circles. "
            "Enter the address of an inference server."
        )


def _check_times(draft: Draft) -> Iterator[Finding]:
    interval, timeout = draft.check_interval, draft.check_timeout
    if not math.isfinite(interval) or interval < 1:
        yield error("check_interval", "The interval must be at least 1 second.")
    if not math.isfinite(timeout) or not 0 < timeout <= MOST_PROBE_SECONDS:
        yield error("check_timeout", f"The timeout must be above 0 and at most {MOST_PROBE_SECONDS} seconds.")
    elif interval >= 1 and timeout >= interval:
        yield error(
            "check_timeout",
            f"The timeout ({timeout:g} s) must be shorter than the check interval ({interval:g} s), "
            "or probes would overlap.",
        )


def _check_window(draft: Draft, now: datetime | None) -> Iterator[Finding]:
    begin, end = draft.maintenance_from, draft.maintenance_until
    if begin and end and end <= begin:
        yield error("maintenance_until", "The window must end after it begins.")
    elif end and now and end <= now:
        yield warning("maintenance_until", "The maintenance window is over already.")


def parse_patterns(text: str) -> list[str]:
    """Model patterns as typed: one a line, blank lines ignored."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_patterns(field: str, text: str) -> Iterator[Finding]:
    """Patterns are shell globs: `*`, `?` and `[...]`, matched without regard to case."""
    for pattern in parse_patterns(text):
        fault = describe_bad_glob(pattern)
        if fault:
            yield error(field, fault)
        elif "," in pattern:
            yield error(field, f"{pattern}: write one pattern a line, without commas.")
        elif not pattern.isprintable():
            yield error(field, "A pattern contains a control character.")
