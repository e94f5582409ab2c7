"""Every family `/internal/metrics` can have: name, kind, labels and meaning. (pure)

docs/metrics.md repeats this table and a test compares the two. Label values come from closed sets, from the
operator's endpoints, or from the models they list; what is beyond the most that is counted becomes `other`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a family's values do."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(NamedTuple):
    """One family of samples."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


C, G, H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_AT = ("endpoint", "endpoint_id")
_PAIR = ("model", *_AT)

# Dashboards made for the reference read these, so their names are not ours to choose.
KNOWN: tuple[Family, ...] = (
    Family("olla_info", G, ("version", "commit", "engine", "profile", "balancer"), "What runs; always 1"),
    Family("olla_system_status", G, (), "The installation: 2 healthy, 1 degraded, 0 critical"),
    Family("olla_endpoints_total", G, (), "Configured endpoints"),
    Family("olla_endpoints_healthy", G, (), "Endpoints with status healthy"),
    Family("olla_success_rate_percent", G, (), "Successes among successes and failures; NaN before there are any"),
    Family("olla_avg_latency_ms", G, (), "Mean time of a successful request"),
    Family("olla_total_traffic_bytes", G, (), "Bytes of answers sent to clients"),
    Family("olla_uptime_seconds", G, (), "Time since the process began"),
    Family("olla_active_connections", G, (), "Attempts under way"),
    Family("olla_security_violations_total", C, (), "Requests refused for their rate or size"),
    Family("olla_requests_total", C, (), "Requests to forward, each counted once"),
    Family("olla_failures_total", C, (), "Requests that failed"),
    Family("olla_security_blocked_ips", G, (), "Clients refused for their rate within the hour"),
    Family("olla_security_rate_limit_violations_total", C, (), "Requests refused for their rate"),
    Family("olla_security_size_limit_violations_total", C, (), "Requests refused for their size"),
    Family("olla_security_status", G, (), "1 normal, 0 when many requests are refused"),
    Family("olla_endpoint_up", G, (*_AT, "status"), "1 while the endpoint's status is healthy"),
    Family("olla_endpoint_requests_total", C, _AT, "Attempts made at the endpoint"),
    Family("olla_endpoint_connections", G, _AT, "Attempts under way there"),
    Family("olla_endpoint_success_rate_percent", G, _AT, "Successes among successes and failures there"),
    Family("olla_endpoint_avg_latency_ms", G, _AT, "Mean time of a successful attempt"),
    Family("olla_endpoint_traffic_bytes", C, _AT, "Bytes of answers from there"),
    Family("olla_endpoint_priority", G, _AT, "The operator's priority"),
    Family("olla_endpoint_models_count", G, _AT, "Models it lists"),
    Family("olla_models_total", G, (), "Models that were asked for"),
    Family("olla_models_active", G, (), "Models that were asked for within the hour"),
    Family("olla_models_requests_total", C, (), "Requests that name a model"),
    Family("olla_models_success_rate_percent", G, (), "Successes among successes and failures of them"),
    Family("olla_models_traffic_bytes", C, (), "Bytes of answers to them"),
    Family("olla_model_requests_total", C, ("model",), "Requests for the model"),
    Family("olla_model_successful_requests_total", C, ("model",), "Those that succeeded"),
    Family("olla_model_failed_requests_total", C, ("model",), "Those that failed"),
    Family("olla_model_success_rate_percent", G, ("model",), "Successes among successes and failures"),
    Family("olla_model_traffic_bytes", C, ("model",), "Bytes of answers"),
    Family("olla_model_avg_latency_ms", G, ("model",), "Mean time of a success"),
    Family("olla_model_p95_latency_ms", G, ("model",), "Time that 95 of 100 successes do not exceed"),
    Family("olla_model_p99_latency_ms", G, ("model",), "Time that 99 of 100 successes do not exceed"),
    Family("olla_model_unique_clients", G, ("model",), "Different clients, counted up to 1000"),
    Family("olla_model_routing_hits_total", C, ("model",), "Requests routed to an endpoint with the model"),
    Family("olla_model_routing_misses_total", C, ("model",), "Requests no endpoint could be found for"),
    Family("olla_model_routing_fallbacks_total", C, ("model",), "Requests routed elsewhere"),
    Family("olla_model_endpoint_requests_total", C, _PAIR, "Attempts for the model at the endpoint"),
    Family("olla_model_endpoint_success_rate_percent", G, _PAIR, "Successes among successes and failures"),
    Family("olla_model_endpoint_avg_latency_ms", G, _PAIR, "Mean time of a success"),
    Family("olla_model_endpoint_consecutive_errors", G, _PAIR, "Failures since the last success"),
)

OWN: tuple[Family, ...] = (
    Family("olla_request_outcomes_total", C, ("provider", "outcome"), "Requests by what became of them"),
    Family("olla_request_errors_total", C, ("cause",), "Requests without success: error code or status"),
    Family("olla_request_duration_seconds", H, ("provider",), "From the request to the end of its answer"),
    Family("olla_time_to_first_byte_seconds", H, (), "From the request to the first byte of a backend's answer"),
    Family("olla_overhead_seconds", H, (), "Time a request spent here, outside of attempts and not in line"),
    Family("olla_chunk_gap_seconds", H, (), "Mean time between the chunks of a stream, one value a stream"),
    Family("olla_streams_total", C, (), "Answered requests for a stream"),
    Family("olla_attempts_total", C, (*_AT, "outcome"), "Attempts by what became of them"),
    Family("olla_attempt_errors_total", C, (*_AT, "cause"), "Attempts without success: failure or status"),
    Family("olla_retries_total", C, ("reason",), "Attempts after which another one was made"),
    Family("olla_queue_waiting", G, (), "Requests in line for a full endpoint"),
    Family("olla_queue_served_total", C, (), "Requests that waited and got a place"),
    Family("olla_queue_refused_total", C, (), "Requests the line had no room for"),
    Family("olla_queue_timed_out_total", C, (), "Requests that waited in vain"),
    Family("olla_queue_wait_seconds", H, (), "Time in line, of those that waited"),
    Family("olla_rate_limited_total", C, ("limit",), "Requests refused for their rate, by the limit they met"),
    Family("olla_size_refused_total", C, ("code",), "Requests refused for their size"),
    Family("olla_hang_ups_total", C, (), "Clients that left before the end of their answer"),
    Family("olla_endpoint_usable", G, _AT, "1 while the endpoint takes requests"),
    Family("olla_endpoint_state", G, (*_AT, "state"), "The operator's state; always 1"),
    Family("olla_endpoint_queue_waiting", G, _AT, "Requests in line that the endpoint could answer"),
    Family("olla_endpoint_breaker_state", G, _AT, "0 closed, 1 half-open, 2 open"),
    Family("olla_endpoint_breaker_failures", G, _AT, "Failures in a row the breaker has counted"),
    Family("olla_endpoint_breaker_opened_total", C, _AT, "Times the breaker has opened"),
    Family("olla_endpoint_first_byte_ms", G, (*_AT, "quantile"), "Time to the first byte of an attempt"),
    Family("olla_endpoint_latency_ms", G, (*_AT, "quantile"), "Time to the end of a successful attempt"),
    Family("olla_endpoint_probe_age_seconds", G, _AT, "Time since the last probe"),
    Family("olla_endpoint_probe_latency_ms", G, _AT, "How long the last probe took"),
    Family("olla_endpoint_probe_failures", G, _AT, "Failed probes in a row"),
    Family("olla_endpoint_health_updates_total", C, _AT, "Times the health was written, probes for the most part"),
    Family("olla_endpoint_discovery_age_seconds", G, _AT, "Time since its models were last read"),
    Family("olla_endpoint_discovery_failing", G, _AT, "1 while its models cannot be read"),
    Family("olla_probe_duration_seconds", H, ("outcome",), "How long the prober's probes took since it began"),
    Family(
        "olla_discovery_duration_seconds", H, ("outcome",), "How long the prober took to read a list of models"
    ),
    Family("olla_snapshot_age_seconds", G, (), "Time since the database was last read"),
    Family("olla_snapshot_revision", G, (), "Revision of the endpoints that routing goes by"),
    Family("olla_prober_age_seconds", G, (), "Time since the prober's last sign of life"),
    Family("olla_tokens_total", C, ("model", "direction"), "Tokens, as backends count them"),
    Family("olla_model_tokens_per_second", G, ("model", "quantile"), "Speed of generation"),
    Family("olla_model_first_byte_ms", G, ("model", "quantile"), "Time to the first byte of an answer"),
    Family("olla_sticky_sessions", G, (), "Sessions pinned to an endpoint"),
    Family("olla_sticky_hits_total", C, (), "Requests whose session was pinned"),
    Family("olla_sticky_misses_total", C, (), "Requests whose session was not"),
    Family("olla_sticky_insertions_total", C, (), "Sessions pinned"),
    Family("olla_sticky_evictions_total", C, (), "Sessions forgotten"),
    Family("olla_translator_requests_total", C, ("translator", "mode"), "Requests by how they were put"),
    Family("olla_translator_successes_total", C, ("translator",), "Those that succeeded"),
    Family("olla_translator_fallbacks_total", C, ("translator", "reason"), "Translated for want of a passthrough"),
    Family("olla_request_log_pending", G, (), "Requests that wait to be written to the request log"),
    Family("olla_request_log_written_total", C, (), "Requests written to it"),
    Family("olla_request_log_dropped_total", C, (), "Requests it lacks: there was no room, or no database"),
    Family("olla_process_resident_bytes", G, (), "Memory of the process"),
    Family("olla_process_cpu_seconds_total", C, (), "CPU time of the process"),
    Family("olla_process_tasks", G, (), "Tasks on the event loop"),
)

FAMILIES: tuple[Family, ...] = tuple(sorted((*KNOWN, *OWN)))
