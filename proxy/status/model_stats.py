"""`/internal/stats/models`: what became of requests by model, and by model and endpoint."""

from __future__ import annotations

from typing import Any

from endpoints.quantities import write_size
from proxy.status import formats
from proxy.status.overview import build_percentiles, success_share
from proxy.status.picture import Picture
from proxy.tallies import Counts, ModelTally

ACTIVE_SECONDS = 3600.0
GONE = "(gone)"  # an endpoint that was deleted since


def build_model_stats(
    picture: Picture, *, include_endpoints: bool = False, include_summary: bool = False
) -> dict[str, Any]:
    """The whole answer; the endpoints of each model and of all are there when asked for."""
    models = picture.tallies.models.copy()
    ordered = sorted(models.items(), key=lambda pair: (-pair[1].requests, pair[0]))
    rows = [_build_row(name, tally, picture.now) for name, tally in ordered]
    if include_endpoints:
        pairs = _pairs_by_model(picture)
        for row in rows:
            if row["name"] in pairs:
                row["endpoint_breakdown"] = pairs[row["name"]]
    return {
        "timestamp": formats.stamp(picture.now),
        "endpoints": _build_endpoints(picture) if include_summary else {},
        "models": rows,
        "summary": build_summary(picture),
    }


def build_summary(picture: Picture) -> dict[str, Any]:
    """All models together."""
    models = picture.tallies.models.copy()
    ordered = sorted(models, key=lambda name: (-models[name].requests, name))
    judged = sum(tally.judged for tally in models.values())
    return {
        "overall_success_rate": formats.percent(sum(tally.successes for tally in models.values()), judged),
        "total_traffic": write_size(sum(tally.bytes_out for tally in models.values())),
        "most_popular_model": ordered[0] if ordered else "",
        "least_popular_model": ordered[-1] if ordered else "",
        "total_models": len(models),
        "active_models": count_active(picture),
        "total_requests": sum(tally.requests for tally in models.values()),
    }


def count_active(picture: Picture) -> int:
    """Models that were asked for within the hour."""
    oldest = picture.now - ACTIVE_SECONDS
    return sum((tally.last_at or 0) > oldest for tally in picture.tallies.models.copy().values())


def _build_row(name: str, tally: ModelTally, now: float) -> dict[str, Any]:
    p95, p99 = tally.latency.quantiles((0.95, 0.99))
    return {
        "name": name,
        "success_rate": formats.percent(tally.successes, tally.judged),
        "total_traffic": write_size(tally.bytes_out),
        "average_latency": formats.latency(tally.latency.mean or 0),
        "p95_latency": formats.latency(p95 or 0),
        "p99_latency": formats.latency(p99 or 0),
        "last_requested": formats.ago(tally.last_at, now),
        "total_requests": tally.requests,
        "successful_requests": tally.successes,
        "failed_requests": tally.failures,
        "unique_clients": len(tally.clients),
        "routing_hits": tally.hits,
        "routing_misses": tally.misses,
        "routing_fallbacks": tally.fallbacks,
        "rejected_requests": tally.rejected,
        "hang_ups": tally.hang_ups,
        "errors_by_cause": dict(sorted(tally.causes.copy().items())),
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "tokens_per_second": build_percentiles(tally.speed),
        "first_byte_ms": build_percentiles(tally.first_byte),
        "latency_ms": build_percentiles(tally.latency),
    }


def _pairs_by_model(picture: Picture) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (name, endpoint_id), tally in sorted(picture.tallies.pairs.copy().items()):
        endpoint = name_endpoint(picture, endpoint_id)
        found.setdefault(name, {})[endpoint] = _build_part(endpoint, tally, picture.now)
    return found


def _build_endpoints(picture: Picture) -> dict[str, Any]:
    named = {name_endpoint(picture, key): tally for key, tally in sorted(picture.tallies.endpoints.copy().items())}
    return {name: _build_part(name, tally, picture.now) for name, tally in named.items()}


def name_endpoint(picture: Picture, endpoint_id: int) -> str:
    """An endpoint's name, which is unique."""
    record = picture.snapshot.by_id.get(endpoint_id)
    return record.name if record is not None else f"{GONE} {endpoint_id}"


def _build_part(name: str, tally: Counts, now: float) -> dict[str, Any]:
    share = success_share(tally)
    return {
        "endpoint_name": name,
        "average_latency": formats.latency(tally.mean_latency or 0),
        "last_used": formats.ago(tally.last_at, now),
        "request_count": tally.requests,
        "success_rate": None if share is None else round(100 * share, 1),
        "consecutive_errors": tally.failures_in_a_row,
        "successes": tally.successes,
        "failures": tally.failures,
        "rejected": tally.rejected,
        "hang_ups": tally.hang_ups,
        "errors_by_cause": dict(sorted(tally.causes.copy().items())),
    }
