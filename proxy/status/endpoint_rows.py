"""`/internal/status/endpoints`: every endpoint with its health and traffic."""

from __future__ import annotations

from typing import Any

from endpoints.health import ROUTABLE, Status
from proxy.status import formats
from proxy.status.overview import build_check_times, build_live_facts, read_signs
from proxy.status.picture import EndpointFacts, Picture, read_endpoints
from proxy.status.verdicts import name_issue


def build_endpoints(picture: Picture) -> dict[str, Any]:
    """The whole answer."""
    endpoints = read_endpoints(picture)
    return {
        "timestamp": formats.stamp(picture.now),
        "endpoints": [_build_row(each, picture.now) for each in endpoints],
        "total_count": len(endpoints),
        "healthy_count": sum(each.status is Status.HEALTHY for each in endpoints),
        "routable_count": sum(each.status in ROUTABLE for each in endpoints),
        "usable_count": sum(each.usable for each in endpoints),
    }


def _build_row(endpoint: EndpointFacts, now: float) -> dict[str, Any]:
    record, tally, health = endpoint.record, endpoint.tally, endpoint.health
    latency = tally.latency
    row: dict[str, Any] = {
        "id": endpoint.public_id,
        "name": endpoint.name,
        "type": health.configured_type or record.backend_type,
        "status": endpoint.status.value,
        "url": endpoint.url,
        "priority": record.priority,
        "model_count": len(record.models),
        "request_count": tally.requests,
        "active_connections": endpoint.in_flight,
        "success_rate": formats.percent(tally.successes, tally.judged),
        "min_latency_ms": int(latency.smallest) if latency.count else 0,
        "max_latency_ms": int(latency.largest),
        "health_check": formats.ago(health.last_checked, now) if health.last_checked else "",
        **build_check_times(endpoint),
    }
    if latency.count:
        row["avg_latency_ms"] = int(latency.total / latency.count)
    if health.latency_ms:
        row["response_time"] = formats.latency(health.latency_ms)
    if health.models_checked:
        row["last_model_sync"] = formats.ago(health.models_checked, now)
        row["last_model_sync_at"] = formats.stamp(health.models_checked)
    if issue := name_issue(read_signs(endpoint)):
        row["issues"] = issue
    return row | build_live_facts(endpoint) | {"models_error": health.models_error}
