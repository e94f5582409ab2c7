"""One model on an Ollama, an LM Studio and a vLLM, before the real server process and its prober."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import list_models, wait_until
from tests.e2e.scripted_models import ScriptedThread
from tests.e2e.seed import seed_database
from tests.fakes import Reply, ScriptedBackend, json_reply
from tests.live import LiveServer

DIGEST = "sha256:46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e"
NATIVES = {
    "ollama": "llama3.1:8b", "lm-studio": "meta-llama-3.1-8b-instruct",
    "vllm": "meta-llama/Llama-3.1-8B-Instruct",
}  # fmt: skip
ALIAS = "llama-8b"
CHAT = json_reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]})


def script_of(kind: str) -> dict[str, Any]:
    """What a server of the kind answers: its health, its list, a chat."""
    name = NATIVES[kind]
    entry: dict[str, Any] = {"id": name, "object": "model", "owned_by": "vllm"}
    lists = {
        "ollama": {"/": Reply(200), "/api/tags": json_reply({"models": [{"name": name, "digest": DIGEST}]}),
                   "/api/version": json_reply({"version": "0.12.0"})},
        "lm-studio": {"/api/v0/models": json_reply({"data": [{**entry, "arch": "llama", "state": "loaded"}]}),
                      "/v1/models": json_reply({"data": [entry]})},
        "vllm": {"/health": Reply(200), "/v1/models": json_reply({"data": [entry]})},
    }  # fmt: skip
    return {**lists[kind], "/v1/chat/completions": CHAT}


@dataclass
class Fleet:
    server: LiveServer
    backends: dict[str, ScriptedThread]

    def chat(self, prefix: str, model: str) -> httpx.Response:
        """One chat completion."""
        url = f"{self.server.url}/olla/{prefix}/v1/chat/completions"
        return httpx.post(url, json={"model": model, "messages": []}, trust_env=False, timeout=60)

    def models(self, query: str = "") -> list[dict[str, Any]]:
        """The list of all models."""
        document = httpx.get(f"{self.server.url}/olla/models?{query}", trust_env=False, timeout=60).json()
        found: list[dict[str, Any]] = document["data"]
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The three servers, and an alias that says that their models are one."""
    backends = {kind: ScriptedThread(ScriptedBackend(script_of(kind))) for kind in NATIVES}
    for each in backends.values():
        each.start()
    rows = [
        {"name": f"gpu-{kind}", "url": each.backend.url, "kind": "auto", "models": []}
        for kind, each in backends.items()
    ]
    data_dir = tmp_path_factory.mktemp("same-data")
    aliases = [{"name": ALIAS, "targets": "\n".join(NATIVES.values()), "one_model": True}]
    seed_database(data_dir, rows, aliases)
    try:
        with LiveServer(data_dir=data_dir, args=()) as server:
            found = Fleet(server, backends)
            wait_until(lambda: [len(each["olla"]["availability"]) for each in found.models()] == [3], 90)
            yield found
    finally:
        for each in backends.values():
            each.close()


def test_it_is_one_entry_with_the_name_each_server_gives_it(fleet: Fleet) -> None:
    [entry] = fleet.models()
    assert entry["id"] == ALIAS
    assert {each["type"]: each["name"] for each in entry["olla"]["availability"]} == NATIVES


@pytest.mark.parametrize("asked", [*NATIVES.values(), ALIAS, "LLAMA3.1:8B"])
@pytest.mark.parametrize("kind", list(NATIVES))
def test_any_name_reaches_each_server_under_its_own(fleet: Fleet, kind: str, asked: str) -> None:
    prefix = {"lm-studio": "lmstudio"}.get(kind, kind)
    answer = fleet.chat(prefix, asked)
    assert (answer.status_code, answer.headers["x-olla-endpoint"]) == (200, f"gpu-{kind}")
    assert answer.headers["x-olla-model"] == asked
    sent = fleet.backends[kind].backend.requests[-1]
    assert (sent.path, sent.json()["model"]) == ("/v1/chat/completions", NATIVES[kind])


def test_any_name_reaches_all_of_them(fleet: Fleet) -> None:
    for asked in (*NATIVES.values(), ALIAS):
        reached: set[str] = set()
        for _ in range(30):
            reached.add(fleet.chat("proxy", asked).headers["x-olla-endpoint"])
            if len(reached) == len(NATIVES):
                break
        assert reached == {f"gpu-{kind}" for kind in NATIVES}, asked


def test_models_follow_what_the_backend_has(tmp_path: Path) -> None:
    """Deleted there: gone here at the next discovery. Backend gone: listed as unavailable, 503 and not 404."""
    two, one = ([{"name": name} for name in names] for names in (("a:1b", "b:1b"), ("a:1b",)))
    script: dict[str, Any] = {
        "/": Reply(200),
        "/api/tags": [json_reply({"models": each}) for each in (two, one)],
        "*": json_reply({}),
    }
    backend = ScriptedThread(ScriptedBackend(script))
    backend.start()
    columns = {"check_interval": 2.0, "check_timeout": 1.0}
    row = {
        "name": "o",
        "url": backend.backend.url,
        "kind": "ollama",
        "models": [],
        "columns": columns,
        "due": True,
    }
    seed_database(tmp_path / "data", [row])
    try:
        with LiveServer(data_dir=tmp_path / "data", args=(), env={"OLLA_DISCOVERY_INTERVAL": "5"}) as server:
            fleet = Fleet(server, {"ollama": backend})
            wait_until(lambda: list_models(server.url) == {"a:1b", "b:1b"}, 60)
            wait_until(lambda: list_models(server.url) == {"a:1b"}, 60)
            gone = fleet.chat("proxy", "b:1b")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
            backend.stop()
            wait_until(lambda: fleet.models() == [], 60)
            [entry] = fleet.models("include_unavailable=true")
            assert (entry["id"], entry["olla"]["availability"][0]["state"]) == ("a:1b", "unavailable")
            down = fleet.chat("proxy", "a:1b")
            assert (down.status_code, down.json()["error"]["code"]) == (503, "model_unavailable")
    finally:
        backend.close()
