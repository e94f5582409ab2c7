"""The ollama Python client against the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import ollama
import pytest

from tests.e2e.conftest import EMBED_MODEL, OLLAMA_MODEL, OPENAI_MODEL, SHARED_MODEL, Site, wait_until

SKY = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(params=["ollama", "proxy"])
def client(site: Site, request: pytest.FixtureRequest) -> Iterator[ollama.Client]:
    opened = ollama.Client(host=f"{site.url}/olla/{request.param}", timeout=60)
    yield opened
    opened.close()


@pytest.fixture
def own_client(site: Site) -> Iterator[ollama.Client]:
    """Through Ollama's own prefix, whose lists are answered here."""
    opened = ollama.Client(host=f"{site.url}/olla/ollama", timeout=60)
    yield opened
    opened.close()


def test_it_chats(client):
    answer = client.chat(model=OLLAMA_MODEL, messages=SKY)
    assert "wavelengths" in answer.message.content
    assert answer.done
    assert answer.eval_count > 10


def test_it_streams_a_chat(client):
    whole = client.chat(model=OLLAMA_MODEL, messages=SKY)
    parts = list(client.chat(model=OLLAMA_MODEL, messages=SKY, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_it_generates(client):
    whole = client.generate(model=OLLAMA_MODEL, prompt="Why is the sky blue?")
    parts = list(client.generate(model=OLLAMA_MODEL, prompt="Why is the sky blue?", stream=True))
    assert "".join(part.response for part in parts) == whole.response


def test_it_calls_tools(client):
    def get_weather(location: str) -> str:
        """Get the current weather.

        Args:
          location: The city
        """
        return location

    messages = [{"role": "user", "content": "What is the weather in London?"}]
    answer = client.chat(model=OLLAMA_MODEL, messages=messages, tools=[get_weather])
    call = answer.message.tool_calls[0].function
    assert get_weather(**call.arguments) == "London"


def test_it_answers_in_json(client):
    answer = client.chat(model=OLLAMA_MODEL, messages=SKY, format="json")
    assert json.loads(answer.message.content)["prompt"] == "Why is the sky blue?"


def test_it_embeds(client):
    many = client.embed(model=EMBED_MODEL, input=["one", "two"])
    one = client.embeddings(model=EMBED_MODEL, prompt="one")
    assert many.embeddings[0] == one.embedding


def test_it_shows_a_model(client):
    shown = client.show(OLLAMA_MODEL)
    assert shown.details.family == "llama"
    assert shown.modelinfo["general.name"] == f"{OLLAMA_MODEL} (demo)"


def test_it_lists_the_models_of_ollama_endpoints(own_client):
    names = {each.model for each in own_client.list().models}
    assert {OLLAMA_MODEL, SHARED_MODEL, EMBED_MODEL} <= names
    assert OPENAI_MODEL not in names


def test_it_lists_running_models(site):
    # Relayed; Ollama's own prefix answers from what its prober saw (`test_mixed_fleet`), and here is none.
    client = ollama.Client(host=f"{site.url}/olla/proxy", timeout=60)
    client.generate(model=OLLAMA_MODEL, prompt="hello")
    assert OLLAMA_MODEL in {each.model for each in client.ps().models}
    client.close()


def test_it_raises_the_clients_own_error_for_an_unknown_model(client):
    with pytest.raises(ollama.ResponseError) as raised:
        client.chat(model="nobody-has-this", messages=SKY)
    assert raised.value.status_code == 404
    assert "nobody-has-this" in raised.value.error


@pytest.mark.parametrize("action", ["pull", "push", "delete"])
def test_it_refuses_model_management(own_client, action):
    with pytest.raises(ollama.ResponseError) as raised:
        getattr(own_client, action)(OLLAMA_MODEL)
    assert raised.value.status_code == 501


def test_it_stops_the_backend_when_the_client_leaves(site, own_client):
    state = site.ollama.backend.state
    before = state.hang_ups
    state.delay = 0.05
    try:
        stream = own_client.generate(model=OLLAMA_MODEL, prompt="count to 500", stream=True)
        next(stream)
        stream.close()
        wait_until(lambda: state.hang_ups == before + 1)
    finally:
        state.delay = 0.0


async def test_it_serves_the_async_client(site):
    client = ollama.AsyncClient(host=f"{site.url}/olla/ollama", timeout=60)
    try:
        answer = await client.chat(model=OLLAMA_MODEL, messages=SKY)
        stream = await client.chat(model=OLLAMA_MODEL, messages=SKY, stream=True)
        assert "".join([part.message.content or "" async for part in stream]) == answer.message.content
    finally:
        await client.close()
