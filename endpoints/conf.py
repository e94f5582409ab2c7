"""Every `OLLA_*` setting of the product: type, default and meaning, read in this one place.

A value comes from Django's settings (`OLLA_MAX_BODY_SIZE = ...`, what tests override) or else from the
environment variable of that name, or else from the default below. `conf()` parses once and keeps the result
until Django's settings change. System checks (`endpoints/checks.py`) report values that do not parse.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.crypto import salted_hmac

from endpoints.rules import RULE_STRATEGIES, Fallback, Policy

MIB = 1024 * 1024


class InternalAccess(StrEnum):
    """Who may read `/internal/*`."""

    EVERYONE = "everyone"
    NETWORKS = "networks"
    STAFF = "staff"


def option(
    default: Any,
    text: str,
    *,
    minimum: float | None = None,
    choices: tuple[str, ...] = (),
    each: Callable[[str], object] | None = None,
) -> Any:
    """Declare one setting: default, what it does (docs/configuration.md repeats it), least value or choices.

    `each` parses one item of a list and raises ValueError when it is not what is wanted.
    """
    rules = {"help": text, "minimum": minimum, "choices": choices, "each": each}
    return dataclasses.field(default=default, metadata=rules)


@dataclasses.dataclass(frozen=True, slots=True)
class Conf:
    """The parsed settings; each field is `OLLA_` plus its name in capitals."""

    host: str = option("127.0.0.1", "Address the server listens on. 0.0.0.0 makes it reachable for others.")
    port: int = option(40114, "Port the server listens on.", minimum=1)
    allowed_hosts: tuple[str, ...] = option(
        (),
        "Host names accepted besides localhost, IP addresses and this machine's names. `.example.org` "
        "also accepts its subdomains.",
    )
    max_body_size: int = option(100 * MIB, "Largest request body in bytes; 0 is no limit.", minimum=0)
    max_header_size: int = option(65536, "Largest request line and headers in bytes.", minimum=4096)
    body_budget: int = option(
        512 * MIB,
        "Bytes of request bodies held in memory at once; beyond it uploads get 503.",
        minimum=MIB,
    )
    header_timeout: float = option(10.0, "Seconds a client may take to send its request headers.", minimum=0.1)
    body_stall_timeout: float = option(60.0, "Seconds a request body may make no progress.", minimum=0.1)
    keep_alive_timeout: float = option(75.0, "Seconds an idle client connection is kept open.", minimum=1)
    shutdown_timeout: float = option(120.0, "Seconds in-flight requests may finish after SIGTERM.", minimum=0)
    connect_timeout: float = option(10.0, "Seconds to connect to an endpoint (DNS, TCP, TLS).", minimum=0.1)
    first_byte_timeout: float = option(
        0.0,
        "Seconds an endpoint may take before its first answer byte; 0 is as its type needs: 900 where models are "
        "loaded on demand, else 300.",
        minimum=0,
    )
    idle_timeout: float = option(600.0, "Seconds an answer may make no progress.", minimum=0.1)
    total_timeout: float = option(0.0, "Seconds a whole answer may take; 0 is no limit.", minimum=0)
    load_balancer: str = option(
        "least-connections",
        "How one of several candidates is chosen: least-connections, priority or round-robin.",
        choices=tuple(Policy),
    )
    routing_strategy: str = option(
        "strict",
        "What to do when no endpoint that has the model can answer: strict (404 or 503), optimistic (see the "
        "fallback) or discovery (read the models anew first).",
        choices=RULE_STRATEGIES,
    )
    fallback_behavior: str = option(
        "compatible_only",
        "Where optimistic and discovery may send a request whose model is not available: compatible_only and none "
        "refuse it, all tries every endpoint of the route.",
        choices=tuple(Fallback),
    )
    discovery_refresh_on_miss: bool = option(
        False, "Let the discovery strategy read the endpoints' models anew when a model is missing."
    )
    discovery_miss_timeout: float = option(2.0, "Seconds a request waits for that.", minimum=0.1)
    loaded_first: bool = option(
        True, "Prefer endpoints that have the model in memory over those that would have to load it."
    )
    loaded_first_requests: int = option(
        4,
        "Requests open at each such endpoint beyond which the others are chosen from as well; 0 is no limit.",
        minimum=0,
    )
    loaded_interval: float = option(
        15.0,
        "Seconds between looks at what an endpoint has in memory, where models are loaded on demand.",
        minimum=1,
    )
    sticky_sessions: bool = option(False, "Send the requests of one conversation to the same endpoint.")
    sticky_idle_ttl: float = option(
        600.0, "Seconds without a request after which a session is forgotten; 0 is never.", minimum=0
    )
    sticky_max_sessions: int = option(10_000, "Sessions remembered; the least recently used go first.", minimum=1)
    sticky_prefix_hash_bytes: int = option(
        512, "Bytes of `messages` or `prompt` that tell conversations apart; 0 is all.", minimum=0
    )
    sticky_key_sources: tuple[str, ...] = option(
        ("session_header", "prefix_hash", "auth_header"),
        "What names a session, first that is there: session_header, prefix_hash, auth_header, ip.",
        choices=("session_header", "prefix_hash", "auth_header", "ip"),
    )
    breaker_threshold: int = option(
        5, "Failures in a row after which an endpoint gets no more requests for a while; 0 is off.", minimum=0
    )
    breaker_open_time: float = option(
        30.0, "Seconds before such an endpoint is tried again, with one request.", minimum=0.1
    )
    queue_length: int = option(
        100, "Requests that may wait while every endpoint has as many as it may take at once.", minimum=0
    )
    queue_timeout: float = option(30.0, "Seconds a request may wait there in all.", minimum=0)
    translators_anthropic_enabled: bool = option(
        True, "Answer Anthropic's Messages API under /olla/anthropic; off, those addresses are 404."
    )
    translators_anthropic_passthrough_enabled: bool = option(
        True, "Pass Messages requests untouched to endpoints that speak that API; off, all are translated."
    )
    translators_anthropic_max_message_size: int = option(
        10 * MIB, "Largest Messages request in bytes; 0 is OLLA_MAX_BODY_SIZE alone.", minimum=0
    )
    translators_anthropic_clamp_max_tokens: bool = option(
        False, "Cut `max_tokens` of translated requests to what the model's window leaves, where it is known."
    )
    translators_anthropic_live_arguments: bool = option(
        False, "Stream tool arguments of translated answers as they come, unchecked, instead of whole."
    )
    translators_anthropic_start_after: float = option(
        20.0,
        "Seconds a streamed Messages request waits for a backend before its answer begins with pings; 0 is never.",
        minimum=0,
    )
    translators_anthropic_ping_interval: float = option(
        12.0, "Seconds of silence after which a stream of Anthropic events gets a ping.", minimum=0.1
    )
    translators_anthropic_count_timeout: float = option(
        1.5, "Seconds count_tokens waits for an endpoint's own tokenizer before it estimates.", minimum=0.05
    )
    discovery_interval: float = option(300.0, "Seconds between model discoveries of an endpoint.", minimum=5)
    discovery_timeout: float = option(30.0, "Seconds one model discovery may take.", minimum=0.1)
    probe_concurrency: int = option(32, "Endpoints probed at once.", minimum=1)
    snapshot_interval: float = option(0.5, "Seconds between looks for changed endpoints.", minimum=0.05)
    env_allow: tuple[str, ...] = option(
        ("*_API_KEY", "*_TOKEN", "OLLA_BACKEND_*"),
        "Names of environment variables that `${...}` in credentials may read.",
    )
    ca_dir: str = option(
        "",
        "Folder of the PEM files that endpoints may name as their CA file; empty allows the system's authorities "
        "only.",
    )
    secrets_dir: str = option("", "Folder of the files `${file:name}` in credentials may read; empty is none.")
    open_guarded_paths: tuple[str, ...] = option(
        (),
        "Endpoint types whose guarded paths (model management and the like) are open, or `*` for all.",
    )
    request_log: bool = option(
        True, "Keep a row of metadata of every forwarded request (never its body) in the database."
    )
    request_log_days: float = option(
        14.0, "Days a row of the request log is kept; 0 keeps them for ever.", minimum=0
    )
    request_log_rollup_days: float = option(
        365.0, "Days the hourly sums of the request log are kept; 0 keeps them for ever.", minimum=0
    )
    request_log_buffer: int = option(
        10_000,
        "Requests that may wait to be written to the log; what does not fit is dropped and counted.",
        minimum=1,
    )
    error_context: bool = option(
        True,
        "Add `olla_context` (endpoint, request id, time) to JSON errors of backends on OpenAI routes.",
    )
    allow_scripts: bool = option(
        False,
        "Send `sandbox allow-scripts` instead of `sandbox` with relayed answers (never same-origin).",
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "Networks (CIDR) of reverse proxies whose X-Forwarded-* headers are believed.",
        each=ipaddress.ip_network,
    )
    portal_anonymous_networks: tuple[str, ...] = option(
        (),
        "Networks (CIDR) from which the portal can be looked at without an account; empty asks everyone to "
        "sign in.",
        each=ipaddress.ip_network,
    )
    internal_access: str = option(
        "networks",
        "Who may read `/internal/*` besides signed-in staff: networks (those listed), everyone, or staff alone.",
        choices=tuple(InternalAccess),
    )
    internal_networks: tuple[str, ...] = option(
        ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"),
        "Networks (CIDR) that may read `/internal/*`: this host and private networks unless set.",
        each=ipaddress.ip_network,
    )
    ready_max_age: float = option(
        60.0,
        "Seconds the database or the prober may be away before `/internal/ready` says 503; 0 never.",
        minimum=0,
    )
    alert_interval: float = option(5.0, "Seconds between looks for what alert hooks are told.", minimum=0.05)
    alert_hold: float = option(
        30.0, "Seconds an endpoint must be down (or back) before alert hooks are told.", minimum=0
    )
    alert_repeat: float = option(900.0, "Seconds in which the same trouble is told once at most.", minimum=0)
    alert_prober_silence: float = option(
        60.0, "Seconds without a sign of the prober that count as silence.", minimum=1
    )
    access_log: str = option(
        "other",
        "Requests that get a line in the access log: `other` than the forwarded ones, which have their own; "
        "`all`; `off`.",
        choices=("other", "all", "off"),
    )
    # Requests: how many a client may send. 0 is no limit, each by itself.
    global_requests_per_minute: int = option(
        1000, "Requests forwarded a minute for all clients together; 0 is no limit.", minimum=0
    )
    per_ip_requests_per_minute: int = option(
        100, "Requests forwarded a minute for one client address; 0 is no limit.", minimum=0
    )
    burst_size: int = option(
        50, "Requests forwarded within one second for one client address; 0 is no limit.", minimum=0
    )
    per_ip_concurrent_requests: int = option(
        0, "Requests of one client address being answered at once; 0 is no limit.", minimum=0
    )
    health_requests_per_minute: int = option(
        1000, "Requests to /internal/health a minute for one client address; 0 is no limit.", minimum=0
    )
    openai_requests_per_minute: int = option(
        200, "Requests a minute to an endpoint of type openai without a rate of its own; 0 is no limit.", minimum=0
    )


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use 1 or 0")


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: int,
    float: float,
    str: str,
    tuple: _parse_list,
}


def parse_option(field: dataclasses.Field[Any], raw: object) -> Any:
    """`raw` (text of the environment, or a value of Django's settings) as the field's type.

    Raises ValueError with a message that says what is wanted.
    """
    kind: Callable[[Any], Any] = type(field.default)
    value = _PARSERS[type(field.default)](raw.strip()) if isinstance(raw, str) else kind(raw)
    minimum = field.metadata["minimum"]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if minimum is not None and value < minimum:
        raise ValueError(f"must be at least {minimum}")
    choices = field.metadata["choices"]
    if choices and not set(value if isinstance(value, tuple) else (value,)) <= set(choices):
        raise ValueError(f"choose {'from' if isinstance(value, tuple) else 'one of'} {', '.join(choices)}")
    if parse_item := field.metadata["each"]:
        for item in value:
            parse_item(item)
    return value


def read_option(field: dataclasses.Field[Any]) -> object | None:
    """The raw value of one field from Django's settings or the environment; None when neither has it."""
    name = f"OLLA_{field.name.upper()}"
    if hasattr(settings, name):
        value: object = getattr(settings, name)
        return value
    return os.environ.get(name, "").strip() or None


@lru_cache(maxsize=1)
def conf() -> Conf:
    """The settings in force. Raises ImproperlyConfigured naming the first value that does not parse."""
    values = {}
    for field in dataclasses.fields(Conf):
        raw = read_option(field)
        if raw is None:
            continue
        try:
            values[field.name] = parse_option(field, raw)
        except (ValueError, TypeError) as error:
            raise ImproperlyConfigured(f"OLLA_{field.name.upper()} is {raw!r}: {error}.") from error
    return Conf(**values)


def version() -> str:
    """The product's version, for User-Agent headers and status."""
    return str(settings.VERSION)


def _forget(*, setting: str, **_: object) -> None:
    if setting.startswith("OLLA_"):
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="endpoints.conf")


@lru_cache(maxsize=1)
def installation_id() -> str:
    """A short name of this installation that reveals nothing: the same in all its processes, other elsewhere."""
    return salted_hmac("olla.installation", "id", secret=settings.SECRET_KEY).hexdigest()[:12]


@lru_cache(maxsize=1)
def thinking_key() -> bytes:
    """The key that signs thinking blocks of translated answers, so that they are known when they come back."""
    return salted_hmac("olla.thinking", "key", secret=settings.SECRET_KEY, algorithm="sha256").digest()
