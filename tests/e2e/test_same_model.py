"""One model on an Ollama, an LM Studio and a vLLM, before the real server process and its prober; another Ollama
loses a model, and is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.scripted_models import ScriptedThread
from tests.e2e.seed import seed_database
from tests.fakes import Conn, Reply, ScriptedBackend, json_reply
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


class Loser:
    """An Ollama whose models can be deleted."""

    def __init__(self) -> None:
        self.models = ["a:1b", "b:1b"]
        self.thread = ScriptedThread(ScriptedBackend(self._serve))

    async def _serve(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            tags = {"models": [{"name": name} for name in self.models]}
            await conn.play(json_reply(tags if request.path == "/api/tags" else {}), request)


@dataclass
class Fleet:
    server: LiveServer
    backends: dict[str, ScriptedThread]
    loser: Loser

    def chat(self, prefix: str, model: str) -> httpx.Response:
        """One chat completion."""
        url = f"{self.server.url}/olla/{prefix}/v1/chat/completions"
        return httpx.post(url, json={"model": model, "messages": []}, trust_env=False, timeout=60)

    def chats(self, kind: str) -> list[str]:
        """The models of the chat completions a server was sent; the prober's requests come at any time."""
        requests = self.backends[kind].backend.requests
        return [each.json()["model"] for each in requests if each.path == "/v1/chat/completions"]

    def models(self, endpoint: str, query: str = "") -> dict[str, dict[str, Any]]:
        """What an endpoint has, by id."""
        url = f"{self.server.url}/olla/models?endpoint={endpoint}&{query}"
        document = httpx.get(url, trust_env=False, timeout=60).json()
        return {each["id"]: each["olla"] for each in document["data"]}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The three servers, and an alias that says that their models are one."""
    backends, loser = {kind: ScriptedThread(ScriptedBackend(script_of(kind))) for kind in NATIVES}, Loser()
    threads = [*backends.values(), loser.thread]
    for each in threads:
        each.start()
    # A busy machine may be slow to answer a probe: that must put no endpoint out of the tests' reach.
    patient = {"check_interval": 11.0, "check_timeout": 10.0}
    rows: list[dict[str, Any]] = [
        {"name": f"gpu-{kind}", "url": each.backend.url, "kind": "auto", "models": [], "columns": patient}
        for kind, each in backends.items()
    ]
    columns = {"check_interval": 2.0, "check_timeout": 1.0}
    url = loser.thread.backend.url
    rows.append({"name": "loser", "url": url, "kind": "ollama", "models": [], "columns": columns})
    for row in rows:
        row["due"] = True
    data_dir = tmp_path_factory.mktemp("same-data")
    aliases = [{"name": ALIAS, "targets": "\n".join(NATIVES.values()), "one_model": True}]
    seed_database(data_dir, rows, aliases)
    try:
        with LiveServer(data_dir=data_dir, args=(), env={"OLLA_DISCOVERY_INTERVAL": "5"}) as server:
            found = Fleet(server, backends, loser)
            wait_until(lambda: all(ALIAS in found.models(f"gpu-{kind}") for kind in NATIVES), 90)
            yield found
    finally:
        for each in threads:
            each.close()


def test_it_is_one_entry_with_the_name_each_server_gives_it(fleet: Fleet) -> None:
    entry = fleet.models("gpu-vllm")[ALIAS]
    assert {each["type"]: each["name"] for each in entry["availability"]} == NATIVES
    assert all(set(fleet.models(f"gpu-{kind}")) == {ALIAS} for kind in NATIVES)


@pytest.mark.parametrize("asked", [*NATIVES.values(), ALIAS, "LLAMA3.1:8B"])
@pytest.mark.parametrize("kind", list(NATIVES))
def test_any_name_reaches_each_server_under_its_own(fleet: Fleet, kind: str, asked: str) -> None:
    prefix = {"lm-studio": "lmstudio"}.get(kind, kind)
    before = fleet.chats(kind)
    answer = fleet.chat(prefix, asked)
    assert (answer.status_code, answer.headers["x-olla-endpoint"]) == (200, f"gpu-{kind}")
    assert answer.headers["x-olla-model"] == asked
    assert fleet.chats(kind) == [*before, NATIVES[kind]]


def test_any_name_reaches_all_of_them(fleet: Fleet) -> None:
    for asked in (*NATIVES.values(), ALIAS):
        reached: set[str] = set()
        for _ in range(30):
            reached.add(fleet.chat("proxy", asked).headers["x-olla-endpoint"])
            if len(reached) == len(NATIVES):
                break
        assert reached == {f"gpu-{kind}" for kind in NATIVES}, asked


def test_models_follow_what_the_backend_has(fleet: Fleet) -> None:
    """Deleted there: gone here at the next discovery. Backend gone: listed as unavailable, 503 and not 404."""
    wait_until(lambda: set(fleet.models("loser")) == {"a:1b", "b:1b"}, 60)
    fleet.loser.models.remove("b:1b")
    wait_until(lambda: set(fleet.models("loser")) == {"a:1b"}, 60)
    gone = fleet.chat("proxy", "b:1b")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    fleet.loser.thread.stop()
    wait_until(lambda: fleet.models("loser") == {}, 60)
    entry = fleet.models("loser", "include_unavailable=true")["a:1b"]
    assert entry["availability"][0]["state"] == "unavailable"
    down = fleet.chat("proxy", "a:1b")
    assert (down.status_code, down.json()["error"]["code"]) == (503, "model_unavailable")
