"""`/internal/metrics`: the counters in Prometheus' text format, read when somebody scrapes.

Counting into Prometheus' own objects would cost each request more than all else that is counted of it, so the
families are made from the plain counters here.
"""

from __future__ import annotations

import math
import time

from prometheus_client.core import Metric

from endpoints.conf import conf
from endpoints.durations import DISCOVERY, PROBE
from endpoints.health import Status
from proxy.breaker import GateState
from proxy.product import COMMIT, VERSION
from proxy.status.metric_sheet import Sheet
from proxy.status.model_stats import count_active, name_endpoint
from proxy.status.overview import ENGINE, PROFILE, success_share
from proxy.status.picture import EndpointFacts, Picture, read_endpoints
from proxy.status.process_facts import read_memory
from proxy.status.public_ids import ids_of_snapshot
from proxy.status.verdicts import SystemStatus, judge_security, judge_system
from proxy.tallies import Counts, ModelTally
from translation.mode import Mode

_VERDICTS = {SystemStatus.HEALTHY: 2, SystemStatus.DEGRADED: 1, SystemStatus.CRITICAL: 0}
_PROBER = {PROBE: "olla_probe_duration_seconds", DISCOVERY: "olla_discovery_duration_seconds"}
_GATES = {GateState.CLOSED: 0, GateState.HALF_OPEN: 1, GateState.OPEN: 2}


def build_metrics(picture: Picture) -> list[Metric]:
    """Every family that has a sample."""
    sheet = Sheet()
    endpoints = read_endpoints(picture)
    _put_system(sheet, picture, endpoints)
    _put_requests(sheet, picture)
    _put_line_and_limits(sheet, picture)
    for each in endpoints:
        _put_traffic(sheet, each)
        _put_gate(sheet, each, picture)
        _put_probes(sheet, each, picture.now)
    for what, family in _PROBER.items():
        for outcome, buckets in sorted(picture.durations.of(what).items()):
            sheet.put_buckets(family, buckets, outcome)
    _put_models(sheet, picture)
    _put_pairs(sheet, picture)
    _put_sessions(sheet, picture)
    _put_process(sheet, picture)
    return sheet.families()


def _percent(counts: Counts) -> float:
    """Not a number where there is none: 0 would look like an outage, and set off alerts."""
    share = success_share(counts)
    return math.nan if share is None else 100 * share


def _put_system(sheet: Sheet, picture: Picture, endpoints: list[EndpointFacts]) -> None:
    totals, refused, now = picture.tallies.all, picture.violations, picture.now
    healthy = sum(each.status is Status.HEALTHY for each in endpoints)
    clients, violations = picture.limited_clients, refused.rate_total + refused.size_total
    sheet.put("olla_info", 1, VERSION, COMMIT, ENGINE, PROFILE, conf().load_balancer)
    sheet.put_all([
        ("olla_system_status", _VERDICTS[judge_system(healthy, len(endpoints), success_share(totals))]),
        ("olla_endpoints_total", len(endpoints)),
        ("olla_endpoints_healthy", healthy),
        ("olla_success_rate_percent", _percent(totals)),
        ("olla_avg_latency_ms", totals.mean_latency or 0),
        ("olla_total_traffic_bytes", totals.bytes_out),
        ("olla_uptime_seconds", picture.uptime),
        ("olla_active_connections", sum(picture.live.in_flight.copy().values())),
        ("olla_security_violations_total", violations),
        ("olla_requests_total", totals.requests),
        ("olla_failures_total", totals.failures),
        ("olla_security_blocked_ips", clients),
        ("olla_security_rate_limit_violations_total", refused.rate_total),
        ("olla_security_size_limit_violations_total", refused.size_total),
        ("olla_security_status", int(judge_security(violations, clients) == "normal")),
        ("olla_hang_ups_total", totals.hang_ups),
        ("olla_snapshot_revision", picture.snapshot.revision),
        ("olla_snapshot_age_seconds", _age(picture.loader.confirmed_at, now)),
        ("olla_prober_age_seconds", _age(picture.loader.prober_seen, now)),
    ])  # fmt: skip


def _age(seen: float | None, now: float) -> float | None:
    return max(0.0, now - seen) if seen else None


def _put_requests(sheet: Sheet, picture: Picture) -> None:
    tallies = picture.tallies
    for (provider, outcome), count in tallies.outcomes.copy().items():
        sheet.put("olla_request_outcomes_total", count, provider, outcome.value)
    for cause, count in tallies.all.causes.copy().items():
        sheet.put("olla_request_errors_total", count, cause)
    for provider, buckets in sorted(tallies.duration.copy().items()):
        sheet.put_buckets("olla_request_duration_seconds", buckets, provider)
    sheet.put_buckets("olla_time_to_first_byte_seconds", tallies.first_byte)
    sheet.put_buckets("olla_overhead_seconds", tallies.overhead)
    sheet.put_buckets("olla_chunk_gap_seconds", tallies.chunk_gap)
    sheet.put_buckets("olla_queue_wait_seconds", tallies.queue_wait)
    sheet.put("olla_streams_total", tallies.streams)
    for reason, count in tallies.retries.copy().items():
        sheet.put("olla_retries_total", count, reason)


def _put_line_and_limits(sheet: Sheet, picture: Picture) -> None:
    queue, refused = picture.live.queue, picture.violations
    sheet.put("olla_queue_waiting", queue.waiting)
    sheet.put("olla_queue_served_total", queue.served)
    sheet.put("olla_queue_refused_total", queue.refused)
    sheet.put("olla_queue_timed_out_total", queue.timed_out)
    journal = picture.journal
    sheet.put("olla_request_log_pending", journal.pending)
    sheet.put("olla_request_log_written_total", journal.written)
    sheet.put("olla_request_log_dropped_total", journal.dropped)
    for limit, count in refused.rates.copy().items():
        sheet.put("olla_rate_limited_total", count, limit)
    for code, count in refused.sizes.copy().items():
        sheet.put("olla_size_refused_total", count, code)


def _put_traffic(sheet: Sheet, endpoint: EndpointFacts) -> None:
    tally, record, at = endpoint.tally, endpoint.record, (endpoint.name, endpoint.public_id)
    sheet.put("olla_endpoint_up", int(endpoint.status is Status.HEALTHY), *at, endpoint.status.value)
    sheet.put_all([
        ("olla_endpoint_requests_total", tally.requests),
        ("olla_endpoint_connections", endpoint.in_flight),
        ("olla_endpoint_success_rate_percent", _percent(tally)),
        ("olla_endpoint_avg_latency_ms", tally.mean_latency or 0),
        ("olla_endpoint_traffic_bytes", tally.bytes_out),
        ("olla_endpoint_priority", record.priority),
        ("olla_endpoint_models_count", len(record.models)),
    ], *at)  # fmt: skip
    outcomes = {
        "success": tally.successes, "failure": tally.failures, "rejected": tally.rejected,
        "client_gone": tally.hang_ups,
    }  # fmt: skip
    for outcome, count in outcomes.items():
        sheet.put("olla_attempts_total", count, *at, outcome)
    for cause, count in tally.causes.copy().items():
        sheet.put("olla_attempt_errors_total", count, *at, cause)
    sheet.put_quantiles("olla_endpoint_first_byte_ms", tally.first_byte, *at)
    sheet.put_quantiles("olla_endpoint_latency_ms", tally.latency, *at)


def _put_gate(sheet: Sheet, endpoint: EndpointFacts, picture: Picture) -> None:
    at = (endpoint.name, endpoint.public_id)
    sheet.put("olla_endpoint_state", 1, *at, endpoint.state.value)
    sheet.put_all([
        ("olla_endpoint_usable", int(endpoint.usable)),
        ("olla_endpoint_queue_waiting", endpoint.queued),
        ("olla_endpoint_breaker_state", _GATES[endpoint.breaker.state]),
        ("olla_endpoint_breaker_failures", endpoint.breaker.failures),
        ("olla_endpoint_breaker_opened_total", picture.live.breaker.opened.get(endpoint.record.id, 0)),
    ], *at)  # fmt: skip


def _put_probes(sheet: Sheet, endpoint: EndpointFacts, now: float) -> None:
    health = endpoint.health
    sheet.put_all([
        ("olla_endpoint_probe_age_seconds", _age(health.last_checked, now)),
        ("olla_endpoint_probe_latency_ms", health.latency_ms),
        ("olla_endpoint_probe_failures", health.failures),
        ("olla_endpoint_health_updates_total", health.updates),
        ("olla_endpoint_discovery_age_seconds", _age(health.models_checked, now)),
        ("olla_endpoint_discovery_failing", int(bool(health.models_error))),
    ], endpoint.name, endpoint.public_id)  # fmt: skip


def _put_models(sheet: Sheet, picture: Picture) -> None:
    models = picture.tallies.models.copy()
    successes, judged = (sum(getattr(each, name) for each in models.values()) for name in ("successes", "judged"))
    sheet.put_all([
        ("olla_models_total", len(models)),
        ("olla_models_active", count_active(picture)),
        ("olla_models_requests_total", sum(each.requests for each in models.values())),
        ("olla_models_success_rate_percent", 100 * successes / judged if judged else math.nan),
        ("olla_models_traffic_bytes", sum(each.bytes_out for each in models.values())),
    ])  # fmt: skip
    for name, tally in models.items():
        _put_model(sheet, name, tally)


def _put_model(sheet: Sheet, name: str, tally: ModelTally) -> None:
    p95, p99 = tally.latency.quantiles((0.95, 0.99))
    sheet.put_all([
        ("olla_model_requests_total", tally.requests),
        ("olla_model_successful_requests_total", tally.successes),
        ("olla_model_failed_requests_total", tally.failures),
        ("olla_model_success_rate_percent", _percent(tally)),
        ("olla_model_traffic_bytes", tally.bytes_out),
        ("olla_model_avg_latency_ms", tally.mean_latency or 0),
        ("olla_model_p95_latency_ms", p95 or 0),
        ("olla_model_p99_latency_ms", p99 or 0),
        ("olla_model_unique_clients", len(tally.clients)),
        ("olla_model_routing_hits_total", tally.hits),
        ("olla_model_routing_misses_total", tally.misses),
        ("olla_model_routing_fallbacks_total", tally.fallbacks),
    ], name)  # fmt: skip
    sheet.put("olla_tokens_total", tally.input_tokens, name, "input")
    sheet.put("olla_tokens_total", tally.output_tokens, name, "output")
    sheet.put_quantiles("olla_model_tokens_per_second", tally.speed, name)
    sheet.put_quantiles("olla_model_first_byte_ms", tally.first_byte, name)


def _put_pairs(sheet: Sheet, picture: Picture) -> None:
    ids = ids_of_snapshot(picture.snapshot)
    for (model, endpoint_id), counts in picture.tallies.pairs.copy().items():
        if endpoint_id not in ids:
            continue  # deleted since
        sheet.put_all([
            ("olla_model_endpoint_requests_total", counts.requests),
            ("olla_model_endpoint_success_rate_percent", _percent(counts)),
            ("olla_model_endpoint_avg_latency_ms", counts.mean_latency or 0),
            ("olla_model_endpoint_consecutive_errors", counts.failures_in_a_row),
        ], model, name_endpoint(picture, endpoint_id), ids[endpoint_id])  # fmt: skip


def _put_sessions(sheet: Sheet, picture: Picture) -> None:
    table, totals = picture.live.sticky, picture.live.anthropic.totals
    sheet.put_all([
        ("olla_sticky_sessions", picture.sessions),
        ("olla_sticky_hits_total", table.hits),
        ("olla_sticky_misses_total", table.misses),
        ("olla_sticky_insertions_total", table.insertions),
        ("olla_sticky_evictions_total", table.evictions),
    ])  # fmt: skip
    sheet.put("olla_translator_requests_total", totals.passthrough, totals.name, Mode.PASSTHROUGH.value)
    sheet.put("olla_translator_requests_total", totals.translated, totals.name, Mode.TRANSLATION.value)
    sheet.put("olla_translator_successes_total", totals.successes, totals.name)
    for reason, count in totals.fallbacks.copy().items():
        sheet.put("olla_translator_fallbacks_total", count, totals.name, str(reason))


def _put_process(sheet: Sheet, picture: Picture) -> None:
    sheet.put("olla_process_resident_bytes", read_memory().resident)
    sheet.put("olla_process_cpu_seconds_total", time.process_time())
    sheet.put("olla_process_tasks", picture.tasks)
