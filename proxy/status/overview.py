"""`/internal/status`: the installation at a glance."""

from __future__ import annotations

from typing import Any

from endpoints.conf import conf
from endpoints.health import Status
from endpoints.quantities import write_size
from proxy.product import COMMIT, VERSION
from proxy.sketch import Sketch
from proxy.status import formats
from proxy.status.picture import EndpointFacts, Picture, read_endpoints
from proxy.status.verdicts import EndpointSigns, judge_security, judge_system, list_issues
from proxy.tallies import Counts

ENGINE, PROFILE = "olla", "streaming"
SHARES = (0.5, 0.95, 0.99)


def build_status(picture: Picture) -> dict[str, Any]:
    """The whole answer."""
    endpoints = read_endpoints(picture)
    return {
        "timestamp": formats.stamp(picture.now),
        "proxy": {"engine": ENGINE, "profile": PROFILE, "balancer": conf().load_balancer},
        "endpoints": [_build_row(each, picture) for each in endpoints],
        "security": build_security(picture),
        "system": build_system(picture, endpoints),
    }


def build_security(picture: Picture) -> dict[str, Any]:
    """What was refused, and how many clients that concerned within the hour."""
    refused = picture.violations
    clients = picture.limited_clients
    return {
        "status": judge_security(refused.rate_total + refused.size_total, clients),
        "blocked_ips": clients,
        "violations": {"rate_limits": refused.rate_total, "size_limits": refused.size_total},
        "rate_limits_by_limit": dict(sorted(refused.rates.copy().items())),
    }


def build_system(picture: Picture, endpoints: list[EndpointFacts]) -> dict[str, Any]:
    """The verdict and the totals."""
    totals, refused = picture.tallies.all, picture.violations
    healthy = sum(each.status is Status.HEALTHY for each in endpoints)
    return {
        "start_time": formats.stamp(picture.started_at),
        "status": judge_system(healthy, len(endpoints), success_share(totals)).value,
        "endpoints_up": formats.ratio(healthy, len(endpoints)),
        "success_rate": formats.percent(totals.successes, totals.judged),
        "avg_latency": formats.latency(totals.latency.mean or 0),
        "total_traffic": write_size(totals.bytes_out),
        "uptime": formats.short_duration(picture.uptime),
        "version": VERSION,
        "commit": COMMIT,
        "active_connections": sum(picture.live.in_flight.copy().values()),
        "security_violations": refused.rate_total + refused.size_total,
        "total_requests": totals.requests,
        "total_failures": totals.failures,
        "has_traffic": totals.requests > 0,
        "successful_requests": totals.successes,
        "rejected_requests": totals.rejected,
        "hang_ups": totals.hang_ups,
        "endpoints_usable": sum(each.usable for each in endpoints),
        "errors_by_cause": dict(sorted(totals.causes.copy().items())),
        "latency_ms": build_percentiles(totals.latency),
        "first_byte_ms": build_percentiles(totals.first_byte),
        "queue": build_queue(picture),
        "snapshot": build_snapshot_age(picture),
        "request_log": build_journal(picture),
    }


def build_queue(picture: Picture) -> dict[str, int]:
    """The line before full endpoints."""
    queue = picture.live.queue
    return {
        "waiting": queue.waiting,
        "served": queue.served,
        "refused": queue.refused,
        "timed_out": queue.timed_out,
        "length": queue.length,
    }


def build_journal(picture: Picture) -> dict[str, Any]:
    """How the request log of this process fares; `pending` and `written` move by themselves for a moment."""
    journal = picture.journal
    return {
        "enabled": journal.enabled,
        "pending": journal.pending,
        "written": journal.written,
        "dropped": journal.dropped,
        "error": journal.error,
    }


def build_snapshot_age(picture: Picture) -> dict[str, Any]:
    """How old what routing goes by is."""
    loader = picture.loader
    return {
        "revision": picture.snapshot.revision,
        "database_seen": formats.ago(loader.confirmed_at, picture.now),
        "database_error": loader.error,
        "prober_seen": formats.ago(loader.prober_seen, picture.now),
    }


def build_percentiles(sketch: Sketch) -> dict[str, float | None]:
    """Median and tail, within a percent; null before the first."""
    found = map(formats.milliseconds, sketch.quantiles(SHARES))
    return dict(zip(("p50", "p95", "p99"), found, strict=True))


def success_share(tally: Counts) -> float | None:
    """The share of successes; None before there is any to tell."""
    return tally.successes / tally.judged if tally.judged else None


def read_signs(endpoint: EndpointFacts) -> EndpointSigns:
    """What an endpoint is judged by."""
    tally = endpoint.tally
    return EndpointSigns(
        status=endpoint.status,
        failed_probes=endpoint.health.failures,
        requests=tally.requests,
        success=success_share(tally),
        mean_latency=tally.latency.mean,
    )


def _build_row(endpoint: EndpointFacts, picture: Picture) -> dict[str, Any]:
    tally, health, now = endpoint.tally, endpoint.health, picture.now
    latency = tally.latency
    row: dict[str, Any] = {}
    if latency.count:
        row["avg_latency_ms"] = int(latency.total / latency.count)
    row |= build_check_times(endpoint)
    return row | {
        "models": {
            "last_updated": formats.stamp(health.models_checked) if health.models_checked else formats.NEVER,
            "count": len(endpoint.record.models),
        },
        "name": endpoint.name,
        "status": endpoint.status.value,
        "success_rate": formats.percent(tally.successes, tally.judged),
        "avg_latency": formats.latency(latency.mean or 0),
        "traffic": write_size(tally.bytes_out),
        "last_check": formats.ago(health.last_checked, now),
        "next_check": formats.until(health.next_check, now),
        "issues": ", ".join(list_issues(read_signs(endpoint))),
        "url": endpoint.url,
        "id": endpoint.public_id,
        "priority": endpoint.record.priority,
        "connections": endpoint.in_flight,
        "requests": tally.requests,
        "min_latency_ms": int(latency.smallest) if latency.count else 0,
        "max_latency_ms": int(latency.largest),
        **build_live_facts(endpoint),
    }


def build_check_times(endpoint: EndpointFacts) -> dict[str, str]:
    """When the endpoint was and will be probed, as far as there is such a time."""
    health = endpoint.health
    times = {"next_check_at": health.next_check, "health_check_at": health.last_checked}
    return {name: formats.stamp(moment) for name, moment in times.items() if moment}


def build_live_facts(endpoint: EndpointFacts) -> dict[str, Any]:
    """What this process knows of an endpoint beyond its health."""
    record, tally = endpoint.record, endpoint.tally
    return {
        "usable": endpoint.usable,
        "held_out_by": endpoint.held_out_by or None,
        "state": endpoint.state.value,
        "drain_then_disable": record.drain_then_disable,
        "detected_type": endpoint.health.detected_type or None,
        "breaker": endpoint.breaker.state.value,
        "breaker_failures": endpoint.breaker.failures,
        "queued": endpoint.queued,
        "max_concurrent": record.max_concurrent,
        "failures": tally.failures,
        "rejected": tally.rejected,
        "hang_ups": tally.hang_ups,
        "errors_by_cause": dict(sorted(tally.causes.copy().items())),
        "first_byte_ms": build_percentiles(tally.first_byte),
        "latency_ms": build_percentiles(tally.latency),
        "last_error": endpoint.health.last_error,
    }
