"""The ollama and openai Python clients before a fleet with a server of every kind, found by the real prober."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import ollama
import openai
import pytest

from endpoints.profiles import PROFILES
from olla_site.demo import DemoBackend
from tests.e2e.conftest import EMBED_MODEL, OLLAMA_MODEL, BackendThread, wait_until
from tests.e2e.scripted_models import ScriptedThread
from tests.e2e.seed import seed_database
from tests.live import LiveServer
from tests.proxy.test_kinds import KINDS, read_fixture, serve

SKY: Any = [{"role": "user", "content": "Why is the sky blue?"}]
FIXTURES = {kind: read_fixture(kind) for kind in KINDS}


@dataclass
class Fleet:
    url: str

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=60).json()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A demo Ollama and a scripted server of every other kind; models are what the prober finds."""
    demo = BackendThread(DemoBackend(kind="ollama", name="o", models=(OLLAMA_MODEL, EMBED_MODEL)))
    scripted = {kind: ScriptedThread(serve(FIXTURES[kind])) for kind in KINDS if kind != "ollama"}
    demo.start()
    for each in scripted.values():
        each.start()
    rows: list[dict[str, Any]] = [{"name": "ollama", "url": demo.backend.url, "kind": "auto", "models": []}]
    rows += [{"name": k, "url": each.backend.url, "kind": "auto", "models": []} for k, each in scripted.items()]
    for row in rows:
        row["columns"] = {"check_timeout": 10.0, "check_interval": 11.0}
    data_dir = tmp_path_factory.mktemp("fleet-data")
    seed_database(data_dir, rows)
    try:
        with LiveServer(data_dir=data_dir, args=()) as server:
            found = Fleet(server.url)
            wait_until(lambda: len(listed(found)) >= len(expected()), 90)
            yield found
    finally:
        demo.close()
        for other in scripted.values():
            other.close()


def expected() -> set[str]:
    """Every model of the fleet by the name its own server gives it."""
    names = {model["name"] for kind in KINDS if kind != "ollama" for model in FIXTURES[kind]["models"]}
    return names | {OLLAMA_MODEL, EMBED_MODEL}


def listed(fleet: Fleet) -> set[str]:
    return {each["id"] for each in fleet.get("/olla/proxy/v1/models")["data"]}


@pytest.fixture
def own(fleet: Fleet) -> Iterator[ollama.Client]:
    client = ollama.Client(host=f"{fleet.url}/olla/ollama", timeout=60)
    yield client
    client.close()


@pytest.fixture
def client(fleet: Fleet) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/olla/openai/v1", api_key="x", max_retries=0, timeout=60) as opened:
        yield opened


def test_the_ollama_client_is_shown_ollamas_models_alone(own: ollama.Client) -> None:
    models = {each.model: each for each in own.list().models}
    assert set(models) == {OLLAMA_MODEL, EMBED_MODEL}
    assert models[OLLAMA_MODEL].details is not None
    assert all(each.modified_at is not None and each.size is not None for each in models.values())


def test_the_ollama_client_works_through(own: ollama.Client) -> None:
    assert own.show(OLLAMA_MODEL).capabilities
    assert {each.model for each in own.ps().models} <= {OLLAMA_MODEL, EMBED_MODEL}
    assert "wavelengths" in (own.chat(model=OLLAMA_MODEL, messages=SKY).message.content or "")
    assert own.generate(model=OLLAMA_MODEL, prompt="Why is the sky blue?").response
    assert len(own.embed(model=EMBED_MODEL, input=["one", "two"]).embeddings) == 2


def test_the_openai_client_lists_every_model(client: openai.OpenAI) -> None:
    models = {each.id: each for each in client.models.list()}
    assert set(models) == expected()
    assert all(each.object == "model" and each.owned_by for each in models.values())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ollama"])
def test_the_openai_client_retrieves_models_of_every_kind(kind: str, client: openai.OpenAI) -> None:
    for model in FIXTURES[kind]["models"]:  # some with slashes
        assert client.models.retrieve(model["name"]).id == model["name"]


def test_the_openai_client_chats_with_ollamas_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=OLLAMA_MODEL, messages=SKY)
    assert "wavelengths" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ollama"])
def test_the_openai_client_chats_with_every_kind(kind: str, fleet: Fleet, client: openai.OpenAI) -> None:
    chat = FIXTURES[kind]["chat"]
    raw = client.chat.completions.with_raw_response.create(model=chat["model"], messages=SKY)
    assert raw.parse().choices[0].message.content == chat["answer"]["choices"][0]["message"]["content"]
    own = httpx.post(
        f"{fleet.url}/olla/{PROFILES[kind].prefixes[0]}{chat['path']}", json={"model": chat["model"]},
        trust_env=False, timeout=60,
    )  # fmt: skip
    assert own.headers["x-olla-backend-type"] == PROFILES[kind].header_name


@pytest.mark.parametrize(
    ("path", "kind", "key"),
    [("lmstudio/api/v0/models", "lm-studio", "id"), ("lmstudio/api/v1/models", "lm-studio", "key"),
     ("lemonade/api/v1/models", "lemonade", "id"), ("dmr/engines/v1/models", "docker-model-runner", "id")],
)  # fmt: skip
def test_kinds_answer_their_own_lists(path: str, kind: str, key: str, fleet: Fleet) -> None:
    document = fleet.get(f"/olla/{path}")
    items = document.get("data") or document["models"]
    assert {each[key] for each in items} == {each["name"] for each in FIXTURES[kind]["models"]}


def test_anthropics_list_has_every_model(fleet: Fleet) -> None:
    document = fleet.get("/olla/anthropic/v1/models?limit=1000")
    assert {each["id"] for each in document["data"]} == expected()
