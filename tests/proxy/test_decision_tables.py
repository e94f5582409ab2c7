"""The tables of routing as a client meets them: status, headers and reason of each row, through the door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from endpoints.models import DiscoveredModel, EndpointHealth, ModelAlias
from proxy.live import live
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.conftest import Exchange, Proxy

OK = {"ok": True}
PICTURE = {"type": "image_url", "image_url": {"url": "data:x"}}
VISION: dict[str, Any] = {"messages": [{"role": "user", "content": [PICTURE]}]}


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    """What every endpoint that is up leads to."""
    async with ScriptedBackend(json_reply(OK)) as scripted:
        yield scripted


async def ask(proxy: Proxy, model: str | None, prefix: str = "proxy", **more: Any) -> Exchange:
    """A chat for a model; a GET of a path nobody knows when it is None."""
    if model is None:
        return await proxy.call("GET", f"/olla/{prefix}/v1/nobody/knows")
    return await proxy.call("POST", f"/olla/{prefix}/v1/chat/completions", {"model": model, **more})


def told(answer: Exchange) -> tuple[str | None, str | None, str | None]:
    """What the answer says of the decision: strategy, decision, reason."""
    return (
        answer.header("x-olla-routing-strategy"),
        answer.header("x-olla-routing-decision"),
        answer.header("x-olla-routing-reason"),
    )


def assert_refused(answer: Exchange, status: int, code: str) -> None:
    """Our error, with a request id, and no sign of an endpoint."""
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert answer.header("x-olla-request-id")
    assert answer.header("x-olla-endpoint") is None
    assert answer.json()["olla_context"]["endpoint"] is None


# -- which kinds a route reaches

PREFIX_REACHES = {
    # Docker Model Runner's chat stands at another path, so it is asked only where nobody else is.
    "proxy": {"ollama", "lm-studio", "vllm", "openai", "lemonade"},
    "openai": {"ollama", "lm-studio", "vllm", "openai", "lemonade", "docker-model-runner"},
    "openai-compatible": {"ollama", "lm-studio", "vllm", "openai", "lemonade", "docker-model-runner"},
    "ollama": {"ollama"},
    "lmstudio": {"lm-studio"},
    "lm-studio": {"lm-studio"},
    "LM_Studio": {"lm-studio"},
    "vllm": {"vllm"},
    "lemonade": {"lemonade"},
    "omlx": set(),
    "sglang": set(),
}
FLEET = sorted(PREFIX_REACHES["openai"])


@pytest.mark.parametrize("prefix", PREFIX_REACHES)
async def test_it_reaches_the_kinds_of_a_route_and_no_others(
    proxy: Proxy, backend: ScriptedBackend, prefix: str
) -> None:
    for kind in FLEET:
        await proxy.add(backend.url, name=kind, backend_type=kind)
    answers = [await ask(proxy, "m", prefix) for _ in range(2 * len(FLEET))]
    if not PREFIX_REACHES[prefix]:
        assert_refused(answers[0], 404, "no_endpoints")
        return
    assert {answer.status for answer in answers} == {200}
    assert {answer.header("x-olla-endpoint") for answer in answers} == PREFIX_REACHES[prefix]


@pytest.mark.parametrize("model", ["m", "elsewhere", None])
@pytest.mark.parametrize("prefix", ["ollama", "lmstudio"])
async def test_a_provider_route_fails_closed(
    proxy: Proxy, backend: ScriptedBackend, prefix: str, model: str | None
) -> None:
    """Its kind is down or not there, another would serve: 503 and 404, whatever model was asked for."""
    await proxy.add(backend.url, name="vllm", backend_type="vllm", models=["m", "elsewhere"])
    await proxy.add(backend.url, name="down", backend_type="ollama", models=["m"], status="offline")
    answer = await ask(proxy, model, prefix)
    if prefix == "lmstudio":
        assert_refused(answer, 404, "no_endpoints")
    elif model == "elsewhere":
        assert_refused(answer, 404, "model_not_found")
    else:
        assert_refused(answer, 503, "model_unavailable" if model else "no_healthy_endpoints")
    assert backend.requests == []


async def test_an_unknown_path_goes_to_anybody_of_the_route(proxy: Proxy, backend: ScriptedBackend) -> None:
    for kind in ("ollama", "vllm"):
        await proxy.add(backend.url, name=kind, backend_type=kind)
    seen = [await ask(proxy, None) for _ in range(4)]
    assert {answer.header("x-olla-endpoint") for answer in seen} == {"ollama", "vllm"}
    assert {told(answer) for answer in seen} == {(None, None, None)}
    assert {(await ask(proxy, None, "vllm")).header("x-olla-endpoint") for _ in range(4)} == {"vllm"}


# -- capabilities


@pytest.mark.parametrize(
    ("first", "second", "reached"),
    [
        (["vision"], ["chat"], {"first"}),
        (["vision"], [], {"first", "second"}),
        (["chat"], ["chat"], {"first", "second"}),
        ([], [], {"first", "second"}),
        (["vision", "tools"], ["vision"], {"first", "second"}),
    ],
)
async def test_it_judges_capabilities_of_the_model_asked_for(
    proxy: Proxy, backend: ScriptedBackend, first: list[str], second: list[str], reached: set[str]
) -> None:
    for name, capabilities in (("first", first), ("second", second)):
        await proxy.add(backend.url, name=name)
        models = DiscoveredModel.objects.filter(endpoint__name=name)
        await models.aupdate(capabilities=capabilities)
    # Another model that can see must draw no request for this one.
    await proxy.add(backend.url, name="other", models=["seeing"])
    await DiscoveredModel.objects.filter(name="seeing").aupdate(capabilities=["vision"])
    await proxy.refresh()
    answers = [await ask(proxy, "m", **VISION) for _ in range(4)]
    assert {answer.header("x-olla-endpoint") for answer in answers} == reached


# -- strategies

ROWS = [
    ("strict", "none", "have", 200, "routed", "model_found"),
    ("strict", "all", "nowhere", 404, "rejected", "model_not_found"),
    ("strict", "all", "gone", 503, "rejected", "model_unavailable"),
    ("optimistic", "none", "have", 200, "routed", "model_found"),
    ("optimistic", "none", "nowhere", 404, "rejected", "model_not_found"),
    ("optimistic", "none", "gone", 503, "rejected", "model_unavailable_no_fallback"),
    ("optimistic", "compatible_only", "nowhere", 404, "rejected", "model_not_found"),
    ("optimistic", "compatible_only", "gone", 503, "rejected", "model_unavailable_compatible_only"),
    ("optimistic", "all", "nowhere", 200, "fallback", "model_not_found_fallback"),
    ("optimistic", "all", "gone", 200, "fallback", "all_healthy_fallback"),
    ("discovery", "none", "have", 200, "routed", "model_found_no_refresh"),
    ("discovery", "all", "gone", 503, "rejected", "model_unavailable_no_refresh"),
    ("discovery", "all", "nowhere", 503, "rejected", "model_unavailable_no_refresh"),
]


async def add_fleet(proxy: Proxy, backend: ScriptedBackend) -> None:
    await proxy.add(backend.url, name="up", models=["have"])
    await proxy.add("http://127.0.0.1:9", name="down", models=["gone"], status="offline")


def assert_row(answer: Exchange, backend: ScriptedBackend, row: tuple[Any, ...]) -> None:
    """The answer is what the table says, and a refused request reached nobody."""
    strategy, _, model, status, decision, reason = row
    assert told(answer) == (strategy, decision, reason)
    if status == 200:
        assert (answer.status, answer.header("x-olla-endpoint")) == (200, "up")
        assert answer.header("x-olla-model") == model
        assert [request.json()["model"] for request in backend.requests] == [model]
    else:
        assert_refused(answer, status, "model_not_found" if status == 404 else "model_unavailable")
        assert backend.requests == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(str(part) for part in row[:3]))
async def test_it_answers_each_row_of_the_strategies(
    proxy: Proxy, backend: ScriptedBackend, settings: Any, row: tuple[Any, ...]
) -> None:
    settings.OLLA_ROUTING_STRATEGY, settings.OLLA_FALLBACK_BEHAVIOR = row[:2]
    settings.OLLA_DISCOVERY_REFRESH_ON_MISS = "0"
    await add_fleet(proxy, backend)
    assert_row(await ask(proxy, row[2]), backend, row)


REFRESHED = [
    (False, ("discovery", "none", "nowhere", 503, "rejected", "discovery_failed_no_fallback")),
    (False, ("discovery", "compatible_only", "gone", 503, "rejected", "discovery_failed_compatible_only")),
    (False, ("discovery", "all", "nowhere", 200, "fallback", "discovery_failed_all_fallback")),
    (True, ("discovery", "none", "nowhere", 503, "rejected", "model_unavailable_after_discovery")),
    (True, ("discovery", "compatible_only", "gone", 503, "rejected", "model_unavailable_after_discovery")),
    (True, ("discovery", "all", "nowhere", 200, "fallback", "all_healthy_after_discovery")),
    (True, ("discovery", "all", "have", 200, "routed", "model_found_no_refresh")),
]


@pytest.mark.parametrize(("read", "row"), REFRESHED, ids=[f"{read}-{row[1]}-{row[2]}" for read, row in REFRESHED])
async def test_it_answers_each_row_of_a_discovery(
    proxy: Proxy, backend: ScriptedBackend, settings: Any, read: bool, row: tuple[Any, ...]
) -> None:
    """With nobody there to read the lists anew the refresh fails; one that was read already is done."""
    settings.OLLA_ROUTING_STRATEGY, settings.OLLA_FALLBACK_BEHAVIOR = row[:2]
    settings.OLLA_DISCOVERY_REFRESH_ON_MISS = "1"
    settings.OLLA_DISCOVERY_MISS_TIMEOUT = 0.1
    await add_fleet(proxy, backend)
    if read:
        later = timezone.now() + timedelta(minutes=1)
        await EndpointHealth.objects.aupdate(models_checked=later)
    assert_row(await ask(proxy, row[2]), backend, row)


async def test_it_says_so_when_nobody_is_healthy_after_a_discovery(proxy: Proxy, settings: Any) -> None:
    settings.OLLA_ROUTING_STRATEGY, settings.OLLA_FALLBACK_BEHAVIOR = "discovery", "all"
    settings.OLLA_DISCOVERY_REFRESH_ON_MISS = "1"
    await proxy.add("http://127.0.0.1:9", name="down", status="offline")
    answer = await ask(proxy, "nowhere")
    assert_refused(answer, 503, "no_healthy_endpoints")
    assert told(answer) == ("discovery", "rejected", "no_healthy_after_discovery")


@pytest.mark.parametrize(
    ("columns", "status"),
    [({"state": "disabled"}, "healthy"), ({"state": "draining"}, "healthy"), ({"state": "maintenance"}, "healthy"),
     ({}, "offline"), ({}, "unhealthy"), ({}, "unknown"), ({}, "config_error"), ({}, "rate_limited")],
)  # fmt: skip
async def test_a_model_that_only_an_endpoint_out_of_service_has_is_unavailable_not_unknown(
    proxy: Proxy, backend: ScriptedBackend, columns: dict[str, str], status: str
) -> None:
    await proxy.add(backend.url, name="up", models=["have"])
    await proxy.add(backend.url, name="out", models=["gone"], status=status, **columns)
    answer = await ask(proxy, "gone")
    assert_refused(answer, 503, "model_unavailable")
    assert told(answer) == ("strict", "rejected", "model_unavailable")


# -- aliases


async def add_alias(proxy: Proxy, name: str, *targets: str) -> None:
    await ModelAlias.objects.acreate(name=name, targets="\n".join(targets))
    await proxy.refresh()


async def test_an_alias_is_sent_as_each_endpoints_own_model(proxy: Proxy, backend: ScriptedBackend) -> None:
    await proxy.add(backend.url, name="one", models=["llama3:8b", "second"])
    await proxy.add("http://127.0.0.1:9", name="down", models=["llama3:8b"], status="offline")
    await add_alias(proxy, "Fast", "first", "LLAMA3:8B", "second")
    answer = await ask(proxy, "fast")
    assert answer.status == 200
    assert told(answer) == ("alias", "routed", 'alias "fast" resolved to 1 endpoint(s)')
    assert (answer.header("x-olla-model"), answer.header("x-olla-model-used")) == ("fast", "llama3:8b")
    assert backend.requests[0].json()["model"] == "llama3:8b"


@pytest.mark.parametrize("prefix", ["proxy", "openai", "ollama"])
@pytest.mark.parametrize(
    ("target", "status", "reason"), [("gone", 503, "model_unavailable"), ("nowhere", 404, "model_not_found")]
)
async def test_an_alias_that_leads_nowhere_fails_fast(
    proxy: Proxy, backend: ScriptedBackend, prefix: str, target: str, status: int, reason: str
) -> None:
    await proxy.add(backend.url, name="up", backend_type="ollama", models=["have"])
    await proxy.add(backend.url, name="down", backend_type="ollama", models=["gone"], status="offline")
    await add_alias(proxy, "fast", target)
    answer = await ask(proxy, "fast", prefix)
    assert_refused(answer, status, reason)
    assert told(answer)[1:] == ("rejected", reason)
    assert backend.requests == []


@pytest.mark.parametrize(
    ("targets", "sent"),
    [(["m"], "m"), (["other", "m"], "m"), (["real"], "real"), (["loop", "real"], "real"),
     (["real", "real", "REAL"], "real"), (["", "  ", "real", ""], "real"), (["chain", "m"], "m")],
    ids=["itself", "itself-last", "another", "an-alias-first", "twice", "blank-lines", "chain"],
)  # fmt: skip
async def test_an_alias_that_bears_a_models_name_wins(
    proxy: Proxy, backend: ScriptedBackend, targets: list[str], sent: str
) -> None:
    """Aliases of aliases are not followed, so that no circle can be made of them."""
    await proxy.add(backend.url, models=["m", "real"])
    await add_alias(proxy, "m", *targets)
    await add_alias(proxy, "loop", "chain")
    await add_alias(proxy, "chain", "loop", "m")
    assert (await ask(proxy, "m")).status == 200
    assert backend.requests[0].json()["model"] == sent


@pytest.mark.parametrize("targets", [["self"], ["chain"], []], ids=["itself", "circle", "nothing"])
async def test_an_alias_without_a_model_behind_it_is_an_unknown_model(
    proxy: Proxy, backend: ScriptedBackend, targets: list[str]
) -> None:
    await proxy.add(backend.url)
    await add_alias(proxy, "self", *targets)
    await add_alias(proxy, "chain", "self")
    for name in ("self", "chain"):
        answer = await ask(proxy, name)
        assert_refused(answer, 404, "model_not_found")
    assert backend.requests == []


# -- sticky sessions

SESSION = ("X-Olla-Session-ID", "my-session-id")
STICKY_ROWS: list[tuple[bool, list[tuple[str, str]], dict[str, Any], list[dict[str, str]]]] = [
    (False, [SESSION], {}, [{}, {}]),
    (True, [], {}, [{"session": "disabled"}] * 2),
    (True, [SESSION], {}, [{"session": word, "source": "session_header", "id": SESSION[1]}
                           for word in ("miss", "hit")]),
    (True, [SESSION, ("Authorization", "Bearer x")], {},
     [{"session": word, "source": "session_header", "id": SESSION[1]} for word in ("miss", "hit")]),
    (True, [("Authorization", "Bearer x")], {}, [{"session": word, "source": "auth_header"}
                                                 for word in ("miss", "hit")]),
    (True, [("Authorization", "Bearer x")], {"messages": [1]},
     [{"session": word, "source": "prefix_hash"} for word in ("miss", "hit")]),
    (True, [], {"messages": [], "prompt": "once upon"}, [{"session": word, "source": "prefix_hash"}
                                                         for word in ("miss", "hit")]),
]  # fmt: skip


@pytest.mark.parametrize(("enabled", "headers", "fields", "expected"), STICKY_ROWS)
@pytest.mark.parametrize("prefix", ["proxy", "openai"])
async def test_it_tells_what_became_of_a_session(
    proxy: Proxy, backend: ScriptedBackend, settings: Any, prefix: str, enabled: bool,
    headers: list[tuple[str, str]], fields: dict[str, Any], expected: list[dict[str, str]],
) -> None:  # fmt: skip
    settings.OLLA_STICKY_SESSIONS = enabled
    live.reset()
    for name in ("one", "two"):
        await proxy.add(backend.url, name=name)
    names = {"session": "x-olla-sticky-session", "source": "x-olla-sticky-key-source", "id": "x-olla-session-id"}
    reached = set()
    for row in expected:
        body = {"model": "m", **fields}
        answer = await proxy.call("POST", f"/olla/{prefix}/v1/chat/completions", body, headers=headers)
        reached.add(answer.header("x-olla-endpoint"))
        assert {key: answer.header(name) for key, name in names.items() if answer.header(name)} == row
    assert len(reached) == (1 if expected[-1].get("session") == "hit" else 2)


async def test_it_moves_a_session_and_says_so_when_its_endpoint_is_down(
    proxy: Proxy, backend: ScriptedBackend, settings: Any
) -> None:
    settings.OLLA_STICKY_SESSIONS = True
    live.reset()
    for name in ("one", "two"):
        await proxy.add(backend.url, name=name)
    chat = ("POST", "/olla/proxy/v1/chat/completions", {"model": "m"})
    first = (await proxy.call(*chat, headers=[SESSION])).header("x-olla-endpoint")
    await sync_to_async(EndpointHealth.objects.filter(endpoint__name=first).update)(status="offline")
    await proxy.refresh()
    moved = await proxy.call(*chat, headers=[SESSION])
    assert moved.header("x-olla-sticky-session") == "repin"
    assert moved.header("x-olla-endpoint") != first
    refused = await proxy.call("POST", chat[1], {"model": "nowhere"}, headers=[SESSION])
    assert (refused.status, refused.header("x-olla-sticky-session")) == (404, None)
