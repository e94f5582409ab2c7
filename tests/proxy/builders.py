"""Builders of the records routing works on: everything has a default, tests name what matters to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from endpoints.addressing import TLS, parse_base_path, parse_origin
from endpoints.health import OperatorState, Status
from endpoints.outgoing import Limits
from endpoints.profiles import profile_for
from endpoints.secrets import Secret
from endpoints.snapshot import (
    DEFAULT_RETRY_STATUSES,
    UNIVERSAL,
    EndpointRecord,
    ListedModel,
    Snapshot,
    build_snapshot,
    fold_names,
)
from proxy.errors import OllaError, choose_shape
from proxy.inbound import INFERENCE, BodyFacts, Inbound, RawHeaders, parse_body, parse_target
from proxy.sieve import LiveView

NOW = 1_750_000_000.0


def make_endpoint(
    name: str = "gpu-1",
    kind: str = "ollama",
    *,
    models: Iterable[str | ListedModel] = (),
    headers: Iterable[tuple[str, str]] = (),
    **changes: Any,
) -> EndpointRecord:
    """A healthy, active endpoint checked just now. `changes` replace any field of EndpointRecord."""
    url = changes.setdefault("url", f"http://{name}.local:11434")
    listed = tuple(each if isinstance(each, ListedModel) else ListedModel(each) for each in models)
    values: dict[str, Any] = {
        "id": sum(name.encode()),
        "name": name,
        "backend_type": kind,
        "profile": profile_for(kind),
        "origin": parse_origin(url),
        "base_path": parse_base_path(url),
        "preserve_path": False,
        "priority": 100,
        "weight": 1.0,
        "tags": frozenset(),
        "state": OperatorState.ACTIVE,
        "status": Status.HEALTHY,
        "status_since": NOW - 60,
        "next_check": NOW + 5,
        "check_interval": 5.0,
        "last_checked": NOW - 1,
        "last_error": "",
        "latency_ms": 3.0,
        "headers": tuple((key.encode(), Secret(value)) for key, value in headers),
        "uses_own_key": bool(headers),
        "forward_client_auth": None,
        "retry_statuses": DEFAULT_RETRY_STATUSES,
        "limits": Limits(connect=1, first_byte=2, idle=3, total=0),
        "tls": TLS(),
        "max_concurrent": None,
        "requests_per_minute": 0,
        "models": listed,
        "model_names": fold_names(listed),
    }
    return EndpointRecord(**{**values, **changes})


def make_snapshot(*endpoints: EndpointRecord, revision: int = 1) -> Snapshot:
    """A snapshot of these endpoints."""
    return build_snapshot(revision, NOW, endpoints)


def make_view(**changes: Any) -> LiveView:
    """What the process knows at NOW: a prober alive, nothing demoted."""
    return LiveView(**{"now": NOW, "prober_seen": NOW - 1, **changes})


def make_inbound(
    target: str = "/v1/chat/completions",
    *,
    prefix: str = UNIVERSAL,
    method: str = "POST",
    body: bytes = b"",
    model: str | None = None,
    headers: RawHeaders | None = None,
    **changes: Any,
) -> Inbound:
    """A request to `target` (path as sent, after the prefix). `model` stands for a body that names it."""
    path, decoded = parse_target(target.encode())
    headers = headers or []
    inference = method == "POST" and INFERENCE.search(decoded) is not None
    if model is None and body:
        facts = parse_body(body, headers, inference=inference, limit=0)
    else:
        facts = BodyFacts(model=model, is_json=model is not None)
    values: dict[str, Any] = {
        "method": method,
        "prefix": prefix,
        "path": path,
        "decoded_path": decoded,
        "query": b"",
        "headers": headers,
        "body": body,
        "facts": facts,
        "client": "192.0.2.7",
        "scheme": "http",
        "host": "olla.example:40114",
        "request_id": "req-1",
        "started": 0.0,
        "shape": choose_shape(f"/olla/{prefix}{decoded}"),
    }
    return Inbound(**{**values, **changes})


def outcome_of(call: Callable[[], Any]) -> Any:
    """What a call returns, or the OllaError it raises; any other exception fails the test."""
    try:
        return call()
    except OllaError as error:
        return error
