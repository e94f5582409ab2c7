"""The status routes: fields and their types, conditional requests, gzip, methods."""

from __future__ import annotations

import gzip
import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from endpoints import loading
from endpoints.models import EndpointHealth, ProberLease
from proxy.live import live
from proxy.status.conditional import encode_json, make_tag, matches, takes_gzip
from tests.fakes import ScriptedBackend, json_reply

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
PERCENT = re.compile(r"0%|100%|\d{1,3}\.\d%")
RATE = re.compile(rf"N/A|{PERCENT.pattern}")
SIZE = re.compile(r"\d+ B|\d+\.\d\d [KMGTP]B")
LATENCY = re.compile(r"\d{1,3}ms|\d+\.\ds")
AGO = re.compile(r"never|\d+[smhd] ago")
UNTIL = re.compile(r"unknown|now|in \d+[smhd]")
SHORT = re.compile(r"\d+s|\d+m|\d+h \d+m|\d+d \d+h")
LONG = re.compile(r"[\d.]+(ms|µs)|\d+s|\d+m\d+s|\d+h\d+m\d+s")
ID = re.compile(r"[0-9a-z]{1,7}(-\d+)?")
NUMBER = (int, float)
QUANTILES = {"p50": (*NUMBER, type(None)), "p95": (*NUMBER, type(None)), "p99": (*NUMBER, type(None))}

LIVE_FACTS = {
    "usable": bool, "held_out_by": (str, type(None)), "state": str, "drain_then_disable": bool,
    "detected_type": (str, type(None)), "breaker": re.compile("closed|open|half-open"), "breaker_failures": int,
    "queued": int, "max_concurrent": (int, type(None)), "failures": int, "rejected": int, "hang_ups": int,
    "errors_by_cause": dict, "first_byte_ms": QUANTILES, "latency_ms": QUANTILES, "last_error": str,
}  # fmt: skip
STATUS = {
    "timestamp": TIME,
    "proxy": {"engine": str, "profile": str, "balancer": str},
    "endpoints": [{
        "next_check_at": TIME, "health_check_at": TIME, "models": {"last_updated": TIME, "count": int},
        "name": str, "status": str, "success_rate": RATE, "avg_latency": LATENCY, "traffic": SIZE,
        "last_check": AGO, "next_check": UNTIL, "issues": str, "url": str, "id": ID, "priority": int,
        "connections": int, "requests": int, "min_latency_ms": int, "max_latency_ms": int, "avg_latency_ms?": int,
        **LIVE_FACTS,
    }],
    "security": {
        "status": re.compile("normal|elevated"), "blocked_ips": int, "rate_limits_by_limit": dict,
        "violations": {"rate_limits": int, "size_limits": int},
    },
    "system": {
        "start_time": TIME, "status": re.compile("healthy|degraded|critical"),
        "endpoints_up": re.compile(r"\d+/\d+"),
        "success_rate": RATE, "avg_latency": LATENCY, "total_traffic": SIZE, "uptime": SHORT, "version": str,
        "commit": str, "active_connections": int, "security_violations": int, "total_requests": int,
        "total_failures": int, "has_traffic": bool, "successful_requests": int, "rejected_requests": int,
        "hang_ups": int, "endpoints_usable": int, "errors_by_cause": dict, "latency_ms": QUANTILES,
        "first_byte_ms": QUANTILES,
        "queue": {"waiting": int, "served": int, "refused": int, "timed_out": int, "length": int},
        "request_log": {"enabled": bool, "pending": int, "written": int, "dropped": int, "error": str},
        "snapshot": {"revision": int, "database_seen": AGO, "database_error": str, "prober_seen": AGO},
    },
}  # fmt: skip
ENDPOINTS = {
    "timestamp": TIME, "total_count": int, "healthy_count": int, "routable_count": int, "usable_count": int,
    "endpoints": [{
        "id": ID, "name": str, "type": str, "status": str, "url": str, "priority": int, "model_count": int,
        "request_count": int, "active_connections": int, "success_rate": RATE, "min_latency_ms": int,
        "max_latency_ms": int, "avg_latency_ms?": int, "health_check": AGO, "health_check_at": TIME,
        "next_check_at": TIME, "response_time": LATENCY, "last_model_sync": AGO, "last_model_sync_at": TIME,
        "issues?": str, "models_error": str, **LIVE_FACTS,
    }],
}  # fmt: skip
MODEL = {
    "last_seen_at": TIME, "name": str, "type?": str, "family?": str, "size?": SIZE, "params?": str, "quant?": str,
    "last_seen": AGO, "endpoints": [str], "endpoint_ids": [ID], "aliases?": [str], "capabilities?": [str],
    "available": bool,
}  # fmt: skip
MODELS = {
    "timestamp": TIME, "models_by_family": dict, "recent_models": [MODEL], "total_models": int,
    "total_families": int, "total_endpoints": int,
    "model_groups": [{"family": str, "models": [MODEL], "endpoints": [str], "model_count": int}],
}  # fmt: skip
COUNTS = {
    "request_count": int, "success_rate": (float, type(None)), "consecutive_errors": int, "endpoint_name": str,
    "last_used": AGO, "average_latency": LATENCY, "successes": int, "failures": int, "rejected": int,
    "hang_ups": int, "errors_by_cause": dict,
}  # fmt: skip
MODEL_STATS = {
    "timestamp": TIME, "endpoints": {"gpu": COUNTS},
    "models": [{
        "endpoint_breakdown": {"gpu": COUNTS}, "name": str, "success_rate": RATE, "total_traffic": SIZE,
        "average_latency": LATENCY, "p95_latency": LATENCY, "p99_latency": LATENCY, "last_requested": AGO,
        "total_requests": int, "successful_requests": int, "failed_requests": int, "unique_clients": int,
        "routing_hits": int, "routing_misses": int, "routing_fallbacks": int, "rejected_requests": int,
        "hang_ups": int, "errors_by_cause": dict, "input_tokens": int, "output_tokens": int,
        "tokens_per_second": QUANTILES, "first_byte_ms": QUANTILES, "latency_ms": QUANTILES,
    }],
    "summary": {
        "overall_success_rate": RATE, "total_traffic": SIZE, "most_popular_model": str, "least_popular_model": str,
        "total_models": int, "active_models": int, "total_requests": int,
    },
}  # fmt: skip
PROCESS = {
    "memory": {
        "heap_alloc": SIZE, "heap_sys": SIZE, "heap_inuse": SIZE, "heap_released": SIZE, "stack_inuse": SIZE,
        "total_alloc": SIZE, "memory_pressure": re.compile("HIGH|MEDIUM|LOW"), "resident_bytes": int,
        "virtual_bytes": int, "peak_bytes": int, "limit_bytes": int,
    },
    "garbage_collection": {
        "last_gc": re.compile(rf"|{TIME.pattern}"), "total_gc_time": re.compile(rf"|{LONG.pattern}"),
        "avg_gc_pause": re.compile(rf"|{LONG.pattern}"), "gc_cpu_fraction": float, "num_gc_cycles": int,
    },
    "goroutines": {
        "health_status": re.compile("CONCERNING|ELEVATED|NORMAL|HEALTHY"), "count": int, "cgo_calls": int,
        "tasks": int, "threads": int,
    },
    "runtime": {
        "uptime": LONG, "go_version": str, "python_version": str, "num_cpu": int, "gomaxprocs": int,
        "cpu_seconds": float,
    },
    "allocations": {"total_mallocs": int, "total_frees": int, "net_objects": int},
}  # fmt: skip
VERSION = {
    "name": str, "version": str, "edition": str, "description": str, "capabilities": [str],
    "api": {"version": re.compile("v1"), "endpoints": {
        name: re.compile(r"/[a-z/]+") for name in
        ("health", "metrics", "status", "process", "version", "models", "proxy", "ready")
    }}, "links": {"homepage": str, "documentation": str, "releases": str},
    "build": {"commit": str, "date": str, "go_version": str, "python_version": str, "platform": str},
    "capabilities_experimental": [str], "supported_backends": [str], "providers": [str],
}  # fmt: skip
READY = {
    "status": re.compile("ready"), "failing": [str],
    "checks": {
        "database": {"ok": bool, "age_seconds": float}, "prober": {"ok": bool, "age_seconds": float},
        "endpoints": {"ok": bool, "routable": int, "total": int},
    },
}  # fmt: skip
TRANSLATORS = {
    "timestamp": TIME,
    "translators": [{
        "translator_name": str, "success_rate": RATE, "passthrough_rate": RATE, "average_latency": LATENCY,
        "total_requests": int, "successful_requests": int, "failed_requests": int, "passthrough_requests": int,
        "translation_requests": int, "streaming_requests": int, "non_streaming_requests": int,
        "fallback_no_compatible_endpoints": int, "fallback_translator_does_not_support_passthrough": int,
        "fallback_cannot_passthrough": int, "upstream_errors": int, "stream_failures": int, "client_aborts": int,
        "repaired_tool_arguments": int, "malformed_tool_arguments": int, "estimated_usage": int,
        "dropped_features": dict, "input_tokens": int, "output_tokens": int, "by_endpoint": dict, "by_model": dict,
        "first_byte_p50_ms": (*NUMBER, type(None)), "first_byte_p95_ms": (*NUMBER, type(None)),
    }],
    "summary": {
        "overall_success_rate": RATE, "overall_passthrough_rate": RATE, "total_translators": int,
        "active_translators": int, "total_requests": int, "total_passthrough": int, "total_translations": int,
        "total_streaming": int, "total_non_streaming": int,
    },
}  # fmt: skip
STICKY = {
    "enabled": bool, "active_sessions": int, "insertions": int, "hits": int, "misses": int, "evictions": int,
    "max_sessions": int, "idle_ttl_seconds": int,
}  # fmt: skip
STICKY_OFF = {"enabled": bool}


def check(shape, found, place=""):
    """Every field is there with its type or format, and no other; `name?` may be missing."""
    if isinstance(shape, dict):
        assert isinstance(found, dict), place
        wanted = {name.removesuffix("?") for name in shape}
        required = {name for name in shape if not name.endswith("?")}
        assert required <= set(found) <= wanted, (place, required - set(found), set(found) - wanted)
        for name, kind in shape.items():
            if name.removesuffix("?") in found:
                check(kind, found[name.removesuffix("?")], f"{place}.{name}")
    elif isinstance(shape, list):
        assert isinstance(found, list), place
        for each in found:
            check(shape[0], each, f"{place}[]")
    elif isinstance(shape, re.Pattern):
        assert isinstance(found, str), place
        assert shape.fullmatch(found), (place, found)
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        assert type(found) in kinds, (place, found)


@pytest.fixture
async def fleet(proxy):
    """Two endpoints with a prober that has just looked."""
    url = "http://localhost:11434"
    await proxy.add(url, "ollama-1", ["llama3.2:3b", "nomic-embed-text"], backend_type="auto")
    await proxy.add("http://localhost:8000/v1", "vllm-1", ["llama3.2:3b", "Qwen/Qwen3-8B"], backend_type="vllm")

    def probe():
        now = timezone.now()
        changes = {"last_checked": now, "next_check": now + timedelta(seconds=5), "models_checked": now}
        EndpointHealth.objects.update(latency_ms=3.2, **changes)
        EndpointHealth.objects.filter(endpoint__name="ollama-1").update(detected_type="ollama")
        ProberLease.objects.update_or_create(
            pk=1, defaults={"holder": "here", "renewed_at": now, "expires_at": now + timedelta(seconds=8)}
        )

    await sync_to_async(probe)()
    await proxy.refresh()
    return proxy


@pytest.mark.parametrize(
    ("path", "query", "shape"),
    [
        ("/internal/status", b"", STATUS),
        ("/internal/status/endpoints", b"", ENDPOINTS),
        ("/internal/status/models", b"detailed=true&group=family", MODELS),
        ("/internal/process", b"", PROCESS),
        ("/internal/ready", b"", READY),
        ("/internal/health", b"", {"status": re.compile("healthy")}),
        ("/internal/stats/translators", b"", TRANSLATORS),
        ("/internal/stats/sticky", b"", STICKY_OFF),
        ("/version", b"", VERSION),
    ],
)
async def test_it_answers_with_every_field_in_its_format(fleet, path, query, shape):
    exchange = await fleet.call("GET", path, query=query)
    assert (exchange.status, exchange.header("content-type")) == (200, "application/json")
    check(shape, exchange.json())


async def test_it_tells_what_became_of_requests_by_model(proxy):
    async with ScriptedBackend(json_reply({"usage": {}})) as backend:
        await proxy.add(backend.url, "gpu", ["m", "n"])
        for model in ("n", "m", "n"):
            await proxy.chat(model=model)
    full = await proxy.call("GET", "/internal/stats/models", query=b"include_endpoints=true&include_summary=true")
    check(MODEL_STATS, full.json())
    assert [(each["name"], each["total_requests"]) for each in full.json()["models"]] == [("n", 2), ("m", 1)]
    summary = full.json()["summary"]
    assert (summary["most_popular_model"], summary["least_popular_model"]) == ("n", "m")
    short = (await proxy.call("GET", "/internal/stats/models")).json()
    assert short["endpoints"] == {}
    assert all("endpoint_breakdown" not in each for each in short["models"])


async def test_it_tells_what_became_of_messages_and_sessions(proxy, settings):
    settings.OLLA_STICKY_SESSIONS = True
    live.reset()
    completion = {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}]
    }
    async with ScriptedBackend(json_reply(completion)) as backend:
        await proxy.add(backend.url, "gpu", ["m"])
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(2):
            await proxy.call("POST", "/olla/anthropic/v1/messages", body)
    translators = (await proxy.call("GET", "/internal/stats/translators")).json()
    check(TRANSLATORS, translators)
    assert [each["translation_requests"] for each in translators["translators"]] == [2]
    sticky = (await proxy.call("GET", "/internal/stats/sticky")).json()
    check(STICKY, sticky)
    assert (sticky["enabled"], sticky["active_sessions"], sticky["hits"]) == (True, 1, 1)


async def test_it_has_no_model_statistics_before_the_first_request(proxy):
    answer = (await proxy.call("GET", "/internal/stats/models")).json()
    assert (answer["models"], answer["summary"]["most_popular_model"]) == ([], "")


async def test_it_shows_what_is_known_of_endpoints(fleet):
    rows = (await fleet.call("GET", "/internal/status/endpoints")).json()["endpoints"]
    assert [(row["name"], row["type"], row["detected_type"]) for row in rows] == [
        ("ollama-1", "auto", "ollama"), ("vllm-1", "vllm", None),
    ]  # fmt: skip
    assert rows[0]["id"] == "1gi2muj"
    assert [row["model_count"] for row in rows] == [2, 2]
    assert all(row["usable"] and row["response_time"] == "3ms" for row in rows)


async def test_it_shows_the_same_ids_everywhere(fleet):
    status = (await fleet.call("GET", "/internal/status")).json()["endpoints"]
    rows = (await fleet.call("GET", "/internal/status/endpoints")).json()["endpoints"]
    models = (await fleet.call("GET", "/internal/status/models")).json()["recent_models"]
    ids = {row["name"]: row["id"] for row in status}
    assert {row["name"]: row["id"] for row in rows} == ids
    shown = {pair for each in models for pair in zip(each["endpoints"], each["endpoint_ids"], strict=True)}
    assert shown == set(ids.items())


async def test_it_lists_models_by_family_once(fleet):
    answer = (await fleet.call("GET", "/internal/status/models")).json()
    names = [each["name"] for each in answer["recent_models"]]
    assert sorted(names) == ["Qwen/Qwen3-8B", "llama3.2:3b", "nomic-embed-text"]
    assert sorted(name for names in answer["models_by_family"].values() for name in names) == sorted(names)
    assert (answer["total_models"], answer["total_endpoints"]) == (3, 2)
    assert "model_groups" not in answer
    by_name = {each["name"]: each for each in answer["recent_models"]}
    assert by_name["llama3.2:3b"]["endpoints"] == ["ollama-1", "vllm-1"]
    assert by_name["nomic-embed-text"]["capabilities"] == ["embeddings", "vector_search"]


@pytest.mark.parametrize("query", [b"detailed=true", b"group=family", b"detailed=1&group=family"])
async def test_it_groups_models_only_when_asked_to_the_letter(fleet, query):
    assert "model_groups" not in (await fleet.call("GET", "/internal/status/models", query=query)).json()


async def test_it_answers_for_an_empty_fleet(proxy):
    status = (await proxy.call("GET", "/internal/status")).json()
    assert (status["endpoints"], status["system"]["status"]) == ([], "critical")
    assert (status["system"]["endpoints_up"], status["system"]["success_rate"]) == ("0/0", "N/A")
    assert (await proxy.call("GET", "/internal/status/endpoints")).json()["endpoints"] == []
    models = (await proxy.call("GET", "/internal/status/models")).json()
    assert (models["recent_models"], models["models_by_family"], models["total_endpoints"]) == ([], {}, 0)


async def test_it_sorts_by_priority_then_health_then_name(proxy):
    fleet: dict[str, dict[str, Any]] = {
        "b": {}, "a": {"status": "offline"}, "c": {"priority": 200, "status": "offline"}, "d": {},
    }  # fmt: skip
    for name, columns in fleet.items():
        await proxy.add(f"http://{name}.test", name, **columns)
    for path in ("/internal/status", "/internal/status/endpoints"):
        rows = (await proxy.call("GET", path)).json()["endpoints"]
        assert [row["name"] for row in rows] == ["c", "b", "d", "a"]


TAGGED = ("/internal/status", "/internal/status/endpoints", "/internal/status/models")


@pytest.mark.parametrize("path", TAGGED)
async def test_it_answers_304_while_nothing_but_time_and_probes_passes(fleet, path):
    first = await fleet.call("GET", path)
    tag = first.header("etag")
    assert re.fullmatch(r'W/"[0-9a-z]+"', tag)

    def probe():
        later = timezone.now() + timedelta(seconds=1)
        EndpointHealth.objects.update(last_checked=later, next_check=later + timedelta(seconds=5), latency_ms=9.9)

    await sync_to_async(probe)()
    await fleet.refresh()  # so that the new rows are read now
    again = await fleet.call("GET", path, headers=[("If-None-Match", tag)])
    assert (again.status, again.body) == (304, b"")
    assert again.header("etag") == tag
    assert again.header("cache-control") == first.header("cache-control") == "private, no-cache"
    assert again.header("vary") == first.header("vary") == "Accept-Encoding"
    assert (again.header("content-encoding"), again.header("content-type")) == (None, None)


@pytest.mark.parametrize("path", TAGGED)
async def test_it_answers_200_when_an_endpoint_changes(fleet, path):
    tag = (await fleet.call("GET", path)).header("etag")
    await fleet.add("http://third.test", "third", ["new"])
    again = await fleet.call("GET", path, headers=[("If-None-Match", tag)])
    assert again.status == 200
    assert again.header("etag") != tag


@pytest.mark.parametrize("path", TAGGED[:2])
async def test_it_answers_200_when_a_status_flips(fleet, path):
    tag = (await fleet.call("GET", path)).header("etag")
    await sync_to_async(EndpointHealth.objects.filter(endpoint__name="vllm-1").update)(status="offline")
    await fleet.refresh()
    assert (await fleet.call("GET", path, headers=[("If-None-Match", tag)])).status == 200


@pytest.mark.parametrize(
    ("sent", "is_match"),
    [
        (None, False), (b'W/"abc"', True), (b'"abc"', True), (b'"x", W/"abc" , "y"', True), (b"*", True),
        (b'"x"', False), (b"abc", False), (b"", False), (b'"abc",' + b" " * 1024, False), (b'"x",*', False),
    ],
)  # fmt: skip
def test_it_compares_tags_weakly(sent, is_match):
    assert matches(sent, 'W/"abc"') is is_match


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [
        (None, False), (b"gzip", True), (b"GZIP;q=0.1", True), (b"gzip;q=0", False), (b"*", True),
        (b"*;q=0", False), (b"gzip;q=0, *", False), (b"br, deflate", False), (b"identity, gzip ; q=1.0", True),
        (b"gzip;q=much", False),
        (b"gzip," + b" " * 1024, False),
    ],
)  # fmt: skip
def test_it_zips_for_those_who_take_it(sent, is_taken):
    assert takes_gzip(sent) is is_taken


def test_it_tags_the_same_content_in_any_order_alike():
    assert make_tag({"a": 1, "b": [{"c": 2, "uptime": "1s"}]}) == make_tag(
        {"b": [{"uptime": "2s", "c": 2}], "a": 1}
    )


@pytest.mark.parametrize("path", TAGGED)
async def test_it_zips_answers(fleet, path):
    plain = await fleet.call("GET", path, headers=[("Accept-Encoding", "gzip")])
    assert plain.header("content-encoding") == "gzip"
    assert plain.header("vary") == "Accept-Encoding"
    assert int(plain.header("content-length")) == len(plain.body)
    assert "timestamp" in json.loads(gzip.decompress(plain.body))


async def test_it_zips_no_short_answer(proxy):
    answer = await proxy.call("GET", "/internal/status/models", headers=[("Accept-Encoding", "gzip")])
    assert (answer.header("content-encoding"), answer.header("vary")) == (None, "Accept-Encoding")


ROUTES = [
    *TAGGED, "/internal/stats/models", "/internal/metrics", "/internal/stats/sticky", "/internal/process",
    "/internal/stats/translators", "/internal/ready", "/internal/health", "/version",
]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
async def test_it_answers_head_without_a_body(fleet, path):
    head = await fleet.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert int(head.header("content-length")) > 10


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_it_changes_nothing_by_any_method(fleet, path, method):
    refused = await fleet.call(method, path)
    assert (refused.status, refused.header("allow")) == (405, "GET, HEAD")
    assert refused.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ROUTES)
async def test_it_gives_every_answer_a_request_id(fleet, path):
    answer = await fleet.call("GET", path)
    assert answer.header("x-olla-request-id")
    assert answer.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("path", ["/internal/health/", "/internal/status/", "/internal/status/foo", "/internal"])
async def test_it_knows_its_paths_exactly(fleet, path):
    assert (await fleet.call("GET", path)).status == 404


def test_it_writes_json_that_is_harmless_in_pages():
    assert encode_json({"a": "</script>&"}) == b'{"a":"\\u003c/script\\u003e\\u0026"}'


async def test_it_is_ready_when_requests_can_be_routed(fleet):
    ready = await fleet.call("GET", "/internal/ready")
    assert (ready.status, ready.json()["failing"]) == (200, [])
    assert ready.json()["checks"]["endpoints"] == {"ok": True, "routable": 2, "total": 2}


async def test_it_says_what_keeps_it_from_being_ready(proxy):
    ready = await proxy.call("GET", "/internal/ready")
    assert (ready.status, ready.json()["status"]) == (503, "not_ready")
    assert "endpoints" in ready.json()["failing"]


async def test_it_is_not_ready_once_the_prober_has_been_gone_too_long(fleet, settings):
    settings.OLLA_READY_MAX_AGE = 0.001
    ready = await fleet.call("GET", "/internal/ready")
    assert ready.status == 503
    assert "prober" in ready.json()["failing"]
    settings.OLLA_READY_MAX_AGE = 0
    assert (await fleet.call("GET", "/internal/ready")).status == 200


async def test_it_shows_an_endpoint_that_a_breaker_keeps_out(proxy):
    async with ScriptedBackend() as backend:
        await proxy.add(backend.url)
        for _ in range(live.breaker.threshold):
            ticket = live.breaker.try_enter(loading.current().endpoints[0].id, 0.0)
            assert ticket is not None
            live.breaker.fail(ticket, time.monotonic())
        row = (await proxy.call("GET", "/internal/status/endpoints")).json()["endpoints"][0]
    assert (row["breaker"], row["held_out_by"], row["usable"]) == ("open", "breaker_open", False)
