"""Every kind of server as its documentation shows it, through real sockets; the same tests for all.

`tests/endpoints/fixtures/<kind>.json` holds what a server of the kind answers (written by hand from its public
documentation; `server` names it and the version), the models that are to be read from it, and one chat, whole and
streamed, with what it tells of its cost (`told`) and OpenAI's path, where its own is another (`also`). A new kind
is one literal in `endpoints/profiles.py`, one such file and one row of the table of prefixes in `docs/api.md`.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from endpoints import loading, profiles
from endpoints.asking import ProbeTarget
from endpoints.detection import detect_type
from endpoints.enriching import MOST_SHOWN
from endpoints.health import Outcome
from endpoints.listed import ListedModel
from endpoints.local_servers import well_known_ports
from endpoints.models import Endpoint, ModelAlias, backend_types
from endpoints.prober_once import probe_all
from endpoints.probing import discover_models, probe_endpoint
from endpoints.profiles import PROFILES, Profile
from endpoints.transport import Transport
from proxy.finished import subscribe, unsubscribe
from proxy.metrics_log import build_provider_fields
from proxy.record import RequestRecord
from tests.fakes import Conn, Reply, ScriptedBackend, Silence, Step, json_reply, ndjson_reply, sse_reply
from tests.proxy.builders import NOW
from tests.proxy.conftest import Proxy

FOLDER = Path(__file__).parent.parent / "endpoints" / "fixtures"
KINDS = sorted(path.stem for path in FOLDER.glob("*.json"))


def read_fixture(kind: str) -> dict[str, Any]:
    fixture: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text())
    return fixture


def serve(fixture: dict[str, Any]) -> ScriptedBackend:
    """A server that answers as the fixture says; a chat by whether it is to be streamed."""
    chat = fixture["chat"]

    async def script(conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            if request.path in (chat["path"], chat.get("also")) and request.method == b"POST":
                await conn.play(chat_reply(chat, stream=request.json().get("stream") is True), request)
            else:
                answer = fixture["answers"].get(request.path) or fixture["answers"].get("*") or {"status": 404}
                await conn.play(build_reply(answer, request.body), request)

    return ScriptedBackend(script)


def build_reply(answer: dict[str, Any], body: bytes) -> Reply:
    headers = [(name.encode(), value.encode()) for name, value in answer.get("headers", {}).items()]
    if "by_model" in answer:
        return json_reply(answer["by_model"][json.loads(body)["model"]])
    if "json" in answer:
        return json_reply(answer["json"], answer.get("status", 200), headers)
    return Reply(answer.get("status", 200), headers, answer.get("text", "").encode())


def chat_reply(chat: dict[str, Any], *, stream: bool) -> Reply:
    if not stream:
        return json_reply(chat["answer"])
    return ndjson_reply(chat["lines"]) if "lines" in chat else sse_reply(chat["stream"])


def target_of(backend: ScriptedBackend, kind: str = "auto") -> ProbeTarget:
    return ProbeTarget(name="e", url=backend.url, backend_type=kind)


def told_of(record: RequestRecord) -> dict[str, Any]:
    """What a backend told of its answer, times to the microsecond."""
    told = {name.removeprefix("provider_"): value for name, value in build_provider_fields(record).items()}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}


@pytest.fixture
async def door() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.aclose()


def test_it_has_a_fixture_of_every_kind() -> None:
    assert {*KINDS, "openai"} == set(PROFILES)  # OpenAI itself answers as what is compatible with it


def test_the_docs_name_the_version_of_every_fixture() -> None:
    rows = (FOLDER.parents[2] / "docs" / "api.md").read_text().splitlines()
    for kind in KINDS:
        server = read_fixture(kind)["server"]
        assert any(letter.isdigit() for letter in server), kind
        prefixes = ", ".join(f"`/olla/{prefix}/`" for prefix in PROFILES[kind].prefixes)
        assert [row for row in rows if f"| {prefixes} |" in row and row.endswith(f"| {server} |")], kind


@pytest.mark.parametrize("kind", KINDS)
class TestKind:
    """What must hold for a server of any kind."""

    async def test_it_is_healthy(self, kind: str, door: Transport) -> None:
        async with serve(read_fixture(kind)) as backend:
            result = await probe_endpoint(target_of(backend, kind), door, NOW)
        assert (result.outcome, result.status_code) == (Outcome.ANSWERED, 200)

    async def test_it_is_detected(self, kind: str, door: Transport) -> None:
        async with serve(read_fixture(kind)) as backend:
            assert await detect_type(target_of(backend), door, timeout=10) == kind
        assert all(request.method == b"GET" for request in backend.requests)

    async def test_its_models_are_read_field_by_field(self, kind: str, door: Transport) -> None:
        fixture = read_fixture(kind)
        async with serve(fixture) as backend:
            discovery = await discover_models(target_of(backend, kind), door, timeout=20)
        expected = [
            ListedModel(**{**each, "capabilities": tuple(each.get("capabilities", ()))})
            for each in fixture["models"]
        ]
        assert list(discovery.models) == expected

    async def test_nothing_asked_of_it_generates(self, kind: str, door: Transport) -> None:
        async with serve(read_fixture(kind)) as backend:
            await discover_models(target_of(backend, kind), door, timeout=20)
        asked = {request.path for request in backend.requests}
        assert not {path for path in asked if "chat" in path or "generate" in path or "completion" in path}
        assert asked <= {"/api/show"} | {r.path for r in backend.requests if r.method == b"GET"}

    async def test_its_list_stands_when_nothing_else_is_told(self, kind: str, door: Transport) -> None:
        """Every path but the list's own is silent, fails or talks nonsense."""
        fixture = read_fixture(kind)
        path = PROFILES[kind].models_path
        listing = build_reply(fixture["answers"][path], b"")
        odd = json_reply([1, {"models": 3, "data": [7], "tags": "x"}])
        for other in (Reply(500), Reply(200, body=b"<html>"), odd, json_reply({})):
            async with ScriptedBackend({path: listing, "*": other}) as backend:
                discovery = await discover_models(target_of(backend, kind), door, timeout=20)
            assert [each.name for each in discovery.models] == [each["name"] for each in fixture["models"]]

    async def test_it_chats(self, kind: str, proxy: Proxy) -> None:
        chat = read_fixture(kind)["chat"]
        async with serve(read_fixture(kind)) as backend:
            await proxy.add(backend.url, models=[chat["model"]], backend_type=kind)
            prefix = PROFILES[kind].prefixes[0]
            done = await proxy.call("POST", f"/olla/{prefix}{chat['path']}", {"model": chat["model"]})
        assert (done.status, done.json()) == (200, chat["answer"])
        assert done.header("X-Olla-Backend-Type") == PROFILES[kind].header_name

    async def test_it_is_listed_by_the_names_it_gives(self, kind: str, proxy: Proxy) -> None:
        fixture = read_fixture(kind)
        async with serve(fixture) as backend:
            await proxy.add(backend.url, models=[], backend_type=kind, check_timeout=10.0)
            await look_again()
            listed = await proxy.call("GET", f"/olla/{PROFILES[kind].prefixes[0]}/v1/models")
        assert {each["id"] for each in listed.json()["data"]} == {each["name"] for each in fixture["models"]}

    @pytest.mark.parametrize("stream", [False, True])
    async def test_its_tokens_and_times_reach_the_record(self, kind: str, stream: bool, proxy: Proxy) -> None:
        chat, records = read_fixture(kind)["chat"], list[RequestRecord]()
        path = f"/olla/{PROFILES[kind].prefixes[0]}{chat['path']}"
        subscribe(records.extend)
        try:
            async with serve(read_fixture(kind)) as backend:
                await proxy.add(backend.url, models=[chat["model"]], backend_type=kind)
                await proxy.call("POST", path, {"model": chat["model"], "stream": stream})
        finally:
            unsubscribe(records.extend)
        [record] = records
        assert told_of(record) == chat["told"]
        assert record.total_tokens == chat["told"]["total_tokens"]

    async def test_it_streams(self, kind: str, proxy: Proxy) -> None:
        chat = read_fixture(kind)["chat"]
        body = {"model": chat["model"], "stream": True}
        async with serve(read_fixture(kind)) as backend:
            await proxy.add(backend.url, models=[chat["model"]], backend_type=kind)
            done = await proxy.call("POST", f"/olla/{PROFILES[kind].prefixes[0]}{chat['path']}", body)
        sent = chat_reply(chat, stream=True)
        assert done.complete
        assert done.body == b"".join(each for each in sent.chunks or () if isinstance(each, bytes))


async def test_it_asks_no_more_than_it_may_about_single_models(door: Transport) -> None:
    names = [f"m{number}" for number in range(MOST_SHOWN + 20)]
    script = {
        "/api/tags": json_reply({"models": [{"name": name} for name in names]}),
        "/api/ps": json_reply({"models": []}),
        "/api/show": json_reply({"capabilities": ["completion"]}),
    }  # fmt: skip
    async with ScriptedBackend(script) as backend:
        discovery = await discover_models(target_of(backend, "ollama"), door, timeout=30)
    assert sum(request.path == "/api/show" for request in backend.requests) == MOST_SHOWN
    assert sum(model.capabilities == ("chat",) for model in discovery.models) == MOST_SHOWN
    assert len(discovery.models) == len(names)


async def test_it_asks_about_a_digest_once(door: Transport) -> None:
    fixture = read_fixture("ollama")
    async with serve(fixture) as backend:
        first = await discover_models(target_of(backend, "ollama"), door, timeout=20)
        again = await discover_models(target_of(backend, "ollama"), door, timeout=20)
    assert again == first
    assert sum(request.path == "/api/show" for request in backend.requests) == len(fixture["models"])


async def test_it_keeps_the_list_when_details_never_come(door: Transport) -> None:
    answers = read_fixture("ollama")["answers"]
    script: dict[str, Step] = {"/api/tags": build_reply(answers["/api/tags"], b""), "*": Silence()}
    async with ScriptedBackend(script) as backend:
        began = time.monotonic()
        discovery = await discover_models(target_of(backend, "ollama"), door, timeout=2)
    assert [model.state for model in discovery.models] == ["", ""]
    assert time.monotonic() - began < 20


@pytest.fixture
def newcomer() -> Iterator[Profile]:
    """A thirteenth kind, known to nothing but its profile; forgotten after the test."""
    tables: tuple[dict[str, Any], ...] = (profiles.PROFILES, profiles.PREFIXES, profiles._TYPE_SPELLINGS)
    before = [dict(table) for table in tables]
    kind = Profile(
        name="newcomer", title="Newcomer", prefixes=("newcomer", "new-comer"), header_name="newcomer",
        health_path="/up", models_path="/v1/models", listed_owner="newcomer", default_ports=(9999,),
        paths=("/v1/models", "/v1/chat/completions"),
    )  # fmt: skip
    profiles.register(kind)
    yield kind
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


async def test_a_new_kind_is_one_literal(newcomer: Profile, door: Transport, proxy: Proxy) -> None:
    listing = {"data": [{"id": "m", "owned_by": "newcomer", "max_model_len": 4096}]}
    answers = {"/up": {"text": "ok"}, "/v1/models": {"json": listing}}
    chat = {"path": "/v1/chat/completions", "model": "m", "answer": {"id": "1"}, "stream": [{"id": "2"}]}
    assert profiles.parse_backend_type("New-Comer") == "newcomer"
    assert ("newcomer", "Newcomer") in backend_types()
    assert 9999 in well_known_ports()
    async with serve({"answers": answers, "chat": chat}) as backend:
        assert await detect_type(target_of(backend), door, timeout=10) == "newcomer"
        probed = await probe_endpoint(target_of(backend, "newcomer"), door, NOW)
        (model,) = (await discover_models(target_of(backend, "newcomer"), door, timeout=10)).models
        await proxy.add(backend.url, models=["m"], backend_type="newcomer")
        done = await proxy.call("POST", "/olla/new-comer/v1/chat/completions", {"model": "m"})
        listed = await proxy.call("GET", "/olla/newcomer/v1/models")
    assert (probed.status_code, model.context_length) == (200, 4096)
    assert (done.json(), done.header("X-Olla-Backend-Type")) == ({"id": "1"}, "newcomer")
    assert [each["id"] for each in listed.json()["data"]] == ["m"]


LISTS = [
    ("ollama", "/olla/ollama/api/tags", "models"), ("lm-studio", "/olla/lmstudio/api/v0/models", "data"),
    ("lm-studio", "/olla/lm_studio/api/v1/models", "models"), ("lemonade", "/olla/lemonade/api/v1/models", "data"),
    ("docker-model-runner", "/olla/dmr/engines/v1/models", "data"),
    ("docker-model-runner", "/olla/dmr/engines/llama.cpp/v1/models", "data"),
    ("vllm", "/olla/vllm/v1/models", "data"), ("omlx", "/olla/omlx/v1/models", "data"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "key"), LISTS)
async def test_it_answers_a_kinds_own_list(kind: str, path: str, key: str, proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:1", models=["org/m"], backend_type=kind)
    await proxy.add("http://127.0.0.1:2", "other", models=["else"], backend_type="sglang")
    done = await proxy.call("GET", path)
    (item,) = done.json()[key]
    assert (done.status, item.get("id") or item.get("key") or item["name"]) == (200, "org/m")


@pytest.mark.parametrize(
    "path",
    ["/olla/lmstudio/api/v0/models/org/m", "/olla/lmstudio/v1/models/org/m", "/olla/models/org/m",
     "/olla/proxy/v1/models/org/m"],
)  # fmt: skip
async def test_it_answers_for_one_model_with_a_slash(path: str, proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:1", models=["org/m", "n"], backend_type="lm-studio")
    done = await proxy.call("GET", path)
    assert (done.status, done.json()["id"]) == (200, "org/m")


async def test_it_refuses_a_query_that_means_nothing(proxy: Proxy) -> None:
    done = await proxy.call("GET", "/olla/models", query=b"format=xml")
    assert (done.status, done.json()["error"]["code"]) == (400, "invalid_request")


async def test_one_model_is_reached_by_any_name_under_the_name_each_backend_has(proxy: Proxy) -> None:
    """Ollama, LM Studio and vLLM have the same model; an alias says so. Each is sent its own name."""
    natives = {
        "ollama": "llama3.1:8b", "lm-studio": "meta-llama-3.1-8b-instruct",
        "vllm": "meta-llama/Llama-3.1-8B-Instruct",
    }  # fmt: skip
    await sync_to_async(ModelAlias.objects.create)(
        name="llama-8b", targets="\n".join(natives.values()), one_model=True
    )
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        for number, (kind, name) in enumerate(natives.items()):
            # Tried in this order; the one before is taken out when it has answered.
            await proxy.add(f"{backend.url}/{kind}", kind, [name], backend_type=kind, priority=100 - number)
        for asked in (*natives.values(), "llama-8b"):
            for kind in natives:
                rows = Endpoint.objects.all()
                await sync_to_async(rows.update)(state="disabled")
                await sync_to_async(rows.filter(name=kind).update)(state="active")
                await sync_to_async(loading.refresh)(force=True)
                done = await proxy.call("POST", "/olla/proxy/v1/chat/completions", {"model": asked})
                assert (done.status, done.header("X-Olla-Endpoint")) == (200, kind)
                assert backend.requests[-1].json() == {"model": natives[kind]}
                assert done.header("X-Olla-Model") == asked


async def look_again() -> None:
    """Ask every endpoint once, as the prober does, and take its findings over."""
    await probe_all()
    await sync_to_async(loading.refresh)(force=True)


async def listed(proxy: Proxy, query: bytes = b"") -> dict[str, str]:
    """The models of the unified list, each with its state at the only endpoint."""
    document = (await proxy.call("GET", "/olla/models", query=query)).json()
    return {each["id"]: each["olla"]["availability"][0]["state"] for each in document["data"]}


async def test_models_follow_what_the_backend_has(proxy: Proxy) -> None:
    """Deleted there: gone here at the next discovery. Backend gone: listed as unavailable, 503 and not 404."""
    two, one = ({"models": [{"name": name} for name in names]} for names in (("a:1b", "b:1b"), ("a:1b",)))
    tags = [json_reply(two), json_reply(one)]
    chat = {"/api/ps": json_reply({"models": [{"name": "a:1b"}]}), "*": json_reply({})}
    async with ScriptedBackend({"/": Reply(200), "/api/tags": tags, **chat}) as backend:
        await proxy.add(backend.url, models=[], backend_type="ollama", check_timeout=10.0)
        await look_again()
        assert await listed(proxy) == {"a:1b": "loaded", "b:1b": "not-loaded"}
        await look_again()
        assert await listed(proxy) == {"a:1b": "loaded"}
        gone = await proxy.call("POST", "/olla/ollama/api/chat", {"model": "b:1b"})
        assert gone.status == 404
    await look_again()
    assert await listed(proxy) == {}
    assert await listed(proxy, b"include_unavailable=true") == {"a:1b": "unavailable"}
    down = await proxy.call("POST", "/olla/ollama/api/chat", {"model": "a:1b"})
    assert (down.status, down.json()["code"]) == (503, "model_unavailable")
