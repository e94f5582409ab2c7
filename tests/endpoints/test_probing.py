"""Asking one endpoint for its health, its models and its kind, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from endpoints.asking import ProbeTarget
from endpoints.conf import version
from endpoints.detection import detect_type, judge
from endpoints.health import Outcome
from endpoints.probing import DiscoveryError, discover_models, probe_endpoint
from endpoints.profiles import PROFILES
from endpoints.secrets import Secret
from endpoints.snapshot import ListedModel
from endpoints.transport import TLS, Transport
from tests.fakes import (
    Cut,
    Raw,
    Reply,
    ScriptedBackend,
    Silence,
    gzip_reply,
    json_reply,
    make_certificates,
    redirect_reply,
    refused_origin,
)

NOW = 1_000_000.0
KEY = ((b"Authorization", Secret("Bearer s3cret")), (b"X-Team", Secret("blue")))
OPENAI_LIST = {"object": "list", "data": [{"id": "gpt-x", "object": "model", "owned_by": "someone"}]}
TAGS = {"models": [{"name": "llama3:latest"}]}
LOADING = {"error": {"code": 503, "message": "any words", "type": "unavailable_error"}}


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


def target_of(backend, kind="openai-compatible", **more) -> ProbeTarget:
    url = backend if isinstance(backend, str) else backend.url
    more.setdefault("check_timeout", 30.0)
    return ProbeTarget(name="e", url=more.pop("url", url), backend_type=kind, **more)


# -- health


async def test_it_sends_one_plain_get(door):
    async with ScriptedBackend({"/v1/models": json_reply(OPENAI_LIST)}) as backend:
        result = await probe_endpoint(target_of(backend, headers=KEY), door, NOW)
    assert (result.outcome, result.status_code, result.error) == (Outcome.ANSWERED, 200, "")
    assert result.latency_ms is not None
    assert backend.requests[0].raw.replace(backend.origin.authority.encode(), b"HOST") == (
        b"GET /v1/models HTTP/1.1\r\nHost: HOST\r\nUser-Agent: Olla-Probe/" + version().encode() + b"\r\n"
        b"Accept: application/json, */*;q=0.5\r\nAccept-Encoding: identity\r\nCache-Control: no-cache\r\n"
        b"Authorization: Bearer s3cret\r\nX-Team: blue\r\n\r\n"
    )
    assert len(backend.requests) == 1


@pytest.mark.parametrize("kind", sorted(PROFILES))
async def test_it_asks_each_kind_at_its_own_path(door, kind):
    async with ScriptedBackend(Reply(200)) as backend:
        await probe_endpoint(target_of(backend, kind), door, NOW)
    assert [request.path for request in backend.requests] == [PROFILES[kind].health_path]


@pytest.mark.parametrize(
    ("base", "kind", "more", "path"),
    [
        ("/v1", "openai-compatible", {}, "/v1/models"),
        ("/api/v1/", "lemonade", {}, "/api/v1/health"),
        ("/team/a", "vllm", {}, "/team/a/health"),
        ("/av1", "openai-compatible", {}, "/av1/v1/models"),
        ("/base", "vllm", {"health_check_url": "/ping?x=1"}, "/base/ping?x=1"),
        ("", "vllm", {"health_check_url": "ping"}, "/ping"),
    ],
)
async def test_it_joins_paths_to_the_path_of_the_url(door, base, kind, more, path):
    async with ScriptedBackend(Reply(200)) as backend:
        await probe_endpoint(target_of(backend, kind, url=backend.url + base, **more), door, NOW)
    assert backend.requests[0].target.decode() == path


async def test_it_never_sends_credentials_to_another_origin(door):
    async with ScriptedBackend(Reply(200)) as own, ScriptedBackend(json_reply(OPENAI_LIST)) as other:
        target = target_of(own, headers=KEY, health_check_url=f"{other.url}/up", model_url=f"{other.url}/list")
        await probe_endpoint(target, door, NOW)
        await discover_models(target, door, timeout=2)
    assert not own.requests
    assert [request.path for request in other.requests] == ["/up", "/list"]
    for request in other.requests:
        assert b"s3cret" not in request.raw
        assert b"blue" not in request.raw


async def test_it_does_not_follow_redirects(door):
    async with ScriptedBackend({"/v1/models": redirect_reply("/elsewhere")}) as backend:
        result = await probe_endpoint(target_of(backend), door, NOW)
    assert result.status_code == 302
    assert len(backend.requests) == 1


async def test_it_reads_retry_after(door):
    async with ScriptedBackend(Reply(429, [(b"Retry-After", b"77")])) as backend:
        result = await probe_endpoint(target_of(backend), door, NOW)
    assert (result.status_code, result.retry_after) == (429, 77.0)


@pytest.mark.parametrize(
    ("body", "loading"),
    [
        (LOADING, True),
        ({"error": {"code": 503, "message": "Loading model", "type": "server_error"}}, False),
        ({"error": "Loading model"}, False),
        ([], False),
        (None, False),
    ],
)
async def test_it_knows_a_server_that_loads_its_model_by_shape(door, body, loading):
    step = Reply(503, body=b"not JSON") if body is None else json_reply(body, 503)
    async with ScriptedBackend(step) as backend:
        result = await probe_endpoint(target_of(backend, "llamacpp"), door, NOW)
    assert (result.status_code, result.loading) == (503, loading)


async def test_it_retries_a_broken_connection_twice_within_one_probe(door):
    async with ScriptedBackend([Cut(), Cut(rst=True), Reply(200)]) as backend:
        result = await probe_endpoint(target_of(backend), door, NOW)
    assert (result.outcome, len(backend.requests)) == (Outcome.ANSWERED, 3)


async def test_it_gives_up_after_three_broken_connections(door):
    async with ScriptedBackend(Cut()) as backend:
        result = await probe_endpoint(target_of(backend), door, NOW)
    assert (result.outcome, len(backend.requests)) == (Outcome.UNREACHABLE, 3)


async def test_it_calls_a_refused_connection_unreachable(door):
    with refused_origin() as origin:
        result = await probe_endpoint(target_of(f"http://{origin.authority}"), door, NOW)
    assert result.outcome is Outcome.UNREACHABLE
    assert result.error


@pytest.mark.parametrize("step", [Silence(), Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")])
async def test_it_stops_waiting_at_the_timeout(door, step):
    async with ScriptedBackend(step) as backend:
        began = time.monotonic()
        result = await probe_endpoint(target_of(backend, check_timeout=0.5), door, NOW)
        took = time.monotonic() - began
        await backend.wait_all_closed()
    assert result.outcome is Outcome.TIMEOUT
    assert 0.4 < took < 10
    assert len(backend.requests) == 1


async def test_it_reads_no_more_than_64_kb(door):
    endless = Reply(200, chunks=[b"x" * 65536] * 20 + [60.0])
    async with ScriptedBackend(endless) as backend:
        result = await probe_endpoint(target_of(backend), door, NOW)
        await backend.wait_all_closed()
    assert result.status_code == 200


async def test_it_refuses_metadata_addresses(door):
    result = await probe_endpoint(target_of("http://169.254.169.254"), door, NOW)
    assert result.outcome is Outcome.MISCONFIGURED


@pytest.mark.parametrize(
    "more",
    [
        {"headers": ((b"X-Key", Secret("a\r\nEvil: 1")),)},
        {"headers": ((b"X-Key", Secret("snowman \u2603")),)},
        {"health_check_url": "http://user:pw@127.0.0.1/"},
        {"health_check_url": "http://127.0.0.1:99999/"},
        {"problem": "The environment variable X_TOKEN is not set."},
    ],
)
async def test_it_sends_nothing_with_unusable_settings(door, more):
    async with ScriptedBackend(Reply(200)) as backend:
        result = await probe_endpoint(target_of(backend, **more), door, NOW)
    assert result.outcome is Outcome.MISCONFIGURED
    assert result.error
    assert "snowman" not in result.error
    assert not backend.requests


async def test_it_verifies_tls_as_told(door, tmp_path):
    files = make_certificates(tmp_path)
    async with ScriptedBackend(Reply(200), tls=files) as backend:
        strict = await probe_endpoint(target_of(backend), door, NOW)
        trusting = await probe_endpoint(target_of(backend, tls=TLS(ca_file=files.ca_file)), door, NOW)
        careless = await probe_endpoint(target_of(backend, tls=TLS(verify=False)), door, NOW)
    assert strict.outcome is Outcome.UNREACHABLE
    assert (trusting.status_code, careless.status_code) == (200, 200)


# -- models


async def names_of(target, door) -> list[str]:
    return [model.name for model in (await discover_models(target, door, timeout=5)).models]


async def test_it_lists_models(door):
    async with ScriptedBackend({"/v1/models": json_reply(OPENAI_LIST)}) as backend:
        discovery = await discover_models(target_of(backend, "vllm", headers=KEY), door, timeout=5)
    assert discovery.models == (ListedModel(name="gpt-x", owner="someone"),)
    assert backend.requests[0].header("Authorization") == "Bearer s3cret"


@pytest.mark.parametrize("first", [Reply(404), json_reply({"error": "Unexpected endpoint or method."})])
async def test_it_falls_back_to_the_openai_list(door, first):
    async with ScriptedBackend({"/api/v0/models": first, "/v1/models": json_reply(OPENAI_LIST)}) as backend:
        assert await names_of(target_of(backend, "lm-studio"), door) == ["gpt-x"]


async def test_it_does_not_fall_back_after_other_failures(door):
    async with ScriptedBackend({"/api/tags": Reply(500), "/v1/models": json_reply(OPENAI_LIST)}) as backend:
        with pytest.raises(DiscoveryError, match="HTTP 500"):
            await names_of(target_of(backend, "ollama"), door)
    assert len(backend.requests) == 1


async def test_it_filters_models(door):
    listing = {"data": [{"id": name} for name in ("llama3", "llama-embed", "phi")]}
    async with ScriptedBackend(json_reply(listing)) as backend:
        target = target_of(backend, include=("LLAMA*",), exclude=("*embed",))
        assert await names_of(target, door) == ["llama3"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Reply(404), "HTTP 404"),
        (redirect_reply("/x"), "HTTP 302"),
        (Reply(200, body=b"<html>"), "not JSON"),
        (gzip_reply(b'{"data": []}'), "not JSON"),
        (json_reply({"data": "none"}), "not a list"),
        (Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), "connection"),
        (Reply(200, body=b" " * (10 * 1024 * 1024) + b'{"data": []}'), "larger than 10 MiB"),
        (json_reply([{"id": f"m{n}"} for n in range(10_001)]), "more than 10000"),
    ],
)
async def test_it_says_why_there_is_no_list(door, step, words):
    async with ScriptedBackend(step) as backend:
        with pytest.raises(DiscoveryError, match=words):
            await discover_models(target_of(backend), door, timeout=20)


async def test_it_stops_waiting_for_a_list(door):
    async with ScriptedBackend(Silence()) as backend:
        with pytest.raises(DiscoveryError, match=r"within 0\.2 s"):
            await discover_models(target_of(backend), door, timeout=0.2)


async def test_it_lists_nothing_for_unusable_settings(door):
    with pytest.raises(DiscoveryError, match="not set"):
        await discover_models(target_of("http://127.0.0.1:1", problem="X is not set."), door, timeout=1)


# -- type auto

OLLAMA = {"/": Reply(200), "/api/version": json_reply({"version": "0.9"}), "/api/tags": json_reply(TAGS)}
SERVERS: dict[str, dict[str, Reply]] = {
    "ollama": {**OLLAMA, "/v1/models": json_reply({"data": [{"id": "llama3", "owned_by": "library"}]})},
    "vllm": {"/v1/models": json_reply({"data": [{"id": "m", "owned_by": "vllm"}]})},
    "vllm-mlx": {"/v1/models": json_reply({"data": [{"id": "m", "owned_by": "vllm-mlx"}]})},
    "sglang": {"/v1/models": json_reply({"data": [{"id": "m", "owned_by": "sglang"}]})},
    "lmdeploy": {"/v1/models": json_reply({"data": [{"id": "m", "owned_by": "lmdeploy"}]})},
    "llamacpp": {"/api/tags": json_reply(TAGS), "*": Reply(404, [(b"Server", b"llama.cpp")])},
    "lm-studio": {
        "/api/v0/models": json_reply({"data": [{"id": "m", "arch": "llama", "state": "loaded"}]}),
        "*": json_reply({"error": "Unexpected endpoint or method."}),
    },
    "docker-model-runner": {"/engines/v1/models": json_reply({"object": "list", "data": None})},
    "lemonade": {"/api/v1/health": json_reply({"status": "ok", "model_loaded": None})},
    "litellm": {"/health/liveliness": json_reply("I'm alive!"), "/v1/models": json_reply(OPENAI_LIST)},
    "omlx": {"/v1/models/status": json_reply({"models": []}), "/v1/models": json_reply(OPENAI_LIST)},
    "openai-compatible": {"/v1/models": json_reply(OPENAI_LIST)},
    "": {"*": Reply(200, body=b"<html>hello</html>")},
}


@pytest.mark.parametrize("kind", sorted(SERVERS))
async def test_it_detects_the_kind(door, kind):
    async with ScriptedBackend(SERVERS[kind]) as backend:
        assert await detect_type(target_of(backend, "auto"), door, timeout=5) == kind
    assert all(request.method == b"GET" for request in backend.requests)


@pytest.mark.parametrize(("late", "kind"), [("/api/version", ""), ("/v1/models", "ollama")])
async def test_it_concludes_nothing_from_answers_that_are_late(door, late, kind):
    """An Ollama that is late with one signature is no OpenAI-compatible server."""
    async with ScriptedBackend({**SERVERS["ollama"], late: Silence()}) as backend:
        assert await detect_type(target_of(backend, "auto"), door, timeout=1) == kind


async def test_it_detects_nothing_where_nothing_listens(door):
    with refused_origin() as origin:
        assert await detect_type(target_of(f"http://{origin.authority}", "auto"), door, timeout=5) == ""


def test_it_judges_nothing_by_nothing():
    assert judge({}) == ""


async def test_it_probes_a_detected_kind_in_its_own_way(door):
    async with ScriptedBackend(OLLAMA) as backend:
        result = await probe_endpoint(target_of(backend, "auto"), door, NOW, detect=True)
    assert (result.status_code, result.detected_type) == (200, "ollama")
    assert backend.requests[-1].path == "/"


async def test_it_gives_detection_more_time_than_a_check(door):
    """LiteLLM answers its health check at once, and takes longer for all of its first answers together."""
    slow = json_reply("I'm alive!", before=1.0)
    script = {"/health/liveliness": slow, "/v1/models": json_reply(OPENAI_LIST), "*": Reply(404)}
    async with ScriptedBackend(script) as backend:
        result = await probe_endpoint(target_of(backend, "auto", check_timeout=0.4), door, NOW, detect=True)
    assert result.detected_type == "litellm"


async def test_it_does_not_detect_what_is_known(door):
    async with ScriptedBackend(OLLAMA) as backend:
        result = await probe_endpoint(target_of(backend, "auto", detected_type="ollama"), door, NOW)
    assert (result.status_code, result.detected_type) == (200, "")
    assert len(backend.requests) == 1


async def test_it_detects_again_when_the_health_path_is_gone(door):
    script = {**SERVERS["vllm"], "/health": Reply(200)}
    async with ScriptedBackend(script) as backend:
        result = await probe_endpoint(target_of(backend, "auto", detected_type="ollama"), door, NOW)
    assert (result.status_code, result.detected_type) == (200, "vllm")


async def test_it_detects_again_when_the_model_list_does_not_fit(door):
    async with ScriptedBackend({**SERVERS["vllm"], "/api/tags": json_reply({"detail": "no"})}) as backend:
        discovery = await discover_models(target_of(backend, "auto", detected_type="ollama"), door, timeout=5)
    assert [model.name for model in discovery.models] == ["m"]


async def test_it_says_why_when_no_kind_fits_the_model_list(door):
    async with ScriptedBackend({"/api/tags": json_reply({"detail": "no"})}) as backend:
        with pytest.raises(DiscoveryError, match="HTTP 404"):
            await discover_models(target_of(backend, "auto", detected_type="ollama"), door, timeout=5)


async def test_it_knows_litellm_by_its_headers(door):
    async with ScriptedBackend(json_reply(OPENAI_LIST, headers=[(b"x-litellm-version", b"1")])) as backend:
        assert await detect_type(target_of(backend, "auto"), door, timeout=5) == "litellm"


async def test_it_is_not_misled_by_a_listing_that_is_none(door):
    async with ScriptedBackend(json_reply({"data": "x", "models": 3})) as backend:
        assert await detect_type(target_of(backend, "auto"), door, timeout=5) == ""


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_it_does_not_press_a_server_that_refuses(door, status):
    async with ScriptedBackend(Reply(status)) as backend:
        result = await probe_endpoint(target_of(backend, "auto"), door, NOW, detect=True)
    assert result.status_code == status
    assert len(backend.requests) == 1


def test_it_shows_no_secret_in_a_target():
    assert "s3cret" not in repr(target_of("http://h", headers=KEY))
