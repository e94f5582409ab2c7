"""The openai Python client against the real server, through every OpenAI-shaped route and both kinds."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests import canaries
from tests.e2e.conftest import EMBED_MODEL, OLLAMA_MODEL, OPENAI_MODEL, SHARED_MODEL, SLASH_MODEL, Site, wait_until

# (route, model, endpoint that has it, X-Olla-Backend-Type)
ROUTES = [
    ("openai/v1", OLLAMA_MODEL, "gpu-ollama", "openai"),
    ("openai/v1", OPENAI_MODEL, "gpu-openai", "openai"),
    ("openai-compatible/v1", OPENAI_MODEL, "gpu-openai", "openai"),
    ("proxy/v1", OLLAMA_MODEL, "gpu-ollama", "ollama"),
    ("proxy/v1", OPENAI_MODEL, "gpu-openai", "openai"),
    ("ollama/v1", OLLAMA_MODEL, "gpu-ollama", "ollama"),
]
# The client's parameter types are narrower than what it accepts; its answers are checked at run time.
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
SKY: Any = [{"role": "user", "content": "Why is the sky blue?"}]
LONDON: Any = [{"role": "user", "content": "What is the weather in London?"}]
every_route = pytest.mark.parametrize(("route", "model", "endpoint", "kind"), ROUTES)


def make_client(site: Site, route: str) -> Any:
    return openai.OpenAI(
        base_url=f"{site.url}/olla/{route}", api_key=canaries.OPENAI_KEY, max_retries=0, timeout=60
    )


@pytest.fixture
def client(site: Site) -> Iterator[Any]:
    with make_client(site, "openai/v1") as opened:
        yield opened


@every_route
def test_it_chats_and_says_who_answered(site, route, model, endpoint, kind):
    with make_client(site, route) as client:
        raw = client.chat.completions.with_raw_response.create(model=model, messages=SKY)
    answer = raw.parse()
    assert "wavelengths" in answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-olla-endpoint"] == endpoint
    assert raw.headers["x-olla-backend-type"] == kind
    assert raw.headers["x-olla-model"] == model
    assert raw.headers["x-olla-request-id"]
    assert raw.headers["x-olla-response-time"].endswith("ms")
    assert raw.headers["x-olla-routing-decision"] == "routed"


@every_route
def test_it_streams_a_chat(site, route, model, endpoint, kind):
    with make_client(site, route) as client:
        stream = client.chat.completions.create(
            model=model, messages=SKY, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert stream.response.headers["x-olla-endpoint"] == endpoint
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("[demo backend")
    assert chunks[-1].usage.completion_tokens > 10


@every_route
def test_it_calls_tools(site, route, model, endpoint, kind):
    with make_client(site, route) as client:
        answer = client.chat.completions.create(model=model, messages=LONDON, tools=[WEATHER])
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"location": "London"}


@every_route
def test_it_lists_and_retrieves_models(site, route, model, endpoint, kind):
    with make_client(site, route) as client:
        assert model in {each.id for each in client.models.list()}
        assert client.models.retrieve(model).id == model


@every_route
def test_it_raises_the_clients_own_error_for_an_unknown_model(site, route, model, endpoint, kind):
    with make_client(site, route) as client, pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="nobody-has-this", messages=SKY)
    assert raised.value.code == "model_not_found"
    assert raised.value.response.headers["x-olla-request-id"]


def test_it_streams_tool_calls(client):
    stream = client.chat.completions.create(
        model=OPENAI_MODEL, messages=LONDON, tools=[WEATHER], tool_choice="required", stream=True
    )
    parts = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert parts[0].function.name == "get_weather"
    assert json.loads("".join(part.function.arguments for part in parts)) == {"location": "London"}


def test_it_runs_the_tool_loop_to_a_text(client):
    called = client.chat.completions.create(model=OPENAI_MODEL, messages=LONDON, tools=[WEATHER])
    message = called.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12 degrees, rain"}
    answer = client.chat.completions.create(
        model=OPENAI_MODEL, messages=[*LONDON, message, result], tools=[WEATHER]
    )
    assert answer.choices[0].message.content.endswith("12 degrees, rain")


def test_it_calls_legacy_functions(client):
    answer = client.chat.completions.create(
        model=OPENAI_MODEL, messages=LONDON, functions=[WEATHER["function"]], function_call="auto"
    )
    assert answer.choices[0].finish_reason == "function_call"
    assert answer.choices[0].message.function_call.name == "get_weather"


@pytest.mark.parametrize("model", [OLLAMA_MODEL, OPENAI_MODEL])
def test_it_answers_in_json_mode(client, model):
    answer = client.chat.completions.create(model=model, messages=SKY, response_format={"type": "json_object"})
    assert json.loads(answer.choices[0].message.content)["prompt"] == "Why is the sky blue?"


def test_it_parses_structured_output(client):
    class Capital(BaseModel):
        city: str
        inhabitants: int

    messages = [{"role": "user", "content": "Tell about the capital Paris with 2100000 people"}]
    answer = client.chat.completions.parse(model=OPENAI_MODEL, messages=messages, response_format=Capital)
    assert answer.choices[0].message.parsed == Capital(city="Paris", inhabitants=2100000)


@pytest.mark.parametrize("model", [OLLAMA_MODEL, OPENAI_MODEL])
def test_it_completes_text(client, model):
    whole = client.completions.create(model=model, prompt="Write a haiku about programming:", max_tokens=50)
    stream = client.completions.create(
        model=model, prompt="Write a haiku about programming:", max_tokens=50, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_it_embeds_as_base64_and_as_floats(client):
    # The client asks for base64 unless told otherwise, and decodes it.
    packed = client.embeddings.create(model=EMBED_MODEL, input=["one", "two"])
    plain = client.embeddings.create(model=EMBED_MODEL, input=["one", "two"], encoding_format="float")
    assert [each.embedding for each in packed.data] == [each.embedding for each in plain.data]
    assert len(plain.data[0].embedding) == 64


def test_it_draws(client):
    answer = client.images.generate(model=OPENAI_MODEL, prompt="A mountain lake at sunset", n=1)
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word for translations
@pytest.mark.parametrize("kind", ["transcriptions", "translations"])
def test_it_uploads_audio_unharmed(client, kind):
    sound = b"RIFF" + bytes(range(256)) * 4096 + b"\r\n--x\r\n"
    answer = getattr(client.audio, kind).create(model=OPENAI_MODEL, file=("speech.wav", sound))
    assert answer.model_extra["demo"] == {
        "filename": "speech.wav",
        "bytes": len(sound),
        "sha256": hashlib.sha256(sound).hexdigest(),
    }


def test_it_speaks_binary(site, client):
    with client.audio.speech.with_streaming_response.create(
        model=OPENAI_MODEL, voice="alloy", input="The quick brown fox", response_format="wav"
    ) as answer:
        sound = b"".join(answer.iter_bytes())
        assert answer.headers["content-type"] == "audio/wav"
    # RFC 2361: bytes 4 to 8 say how long the rest is.
    assert int.from_bytes(sound[4:8], "little") == len(sound) - 8


def test_it_moderates(client):
    answer = client.moderations.create(model=OPENAI_MODEL, input=["kind words", "violence"])
    assert [each.flagged for each in answer.results] == [False, True]


def test_it_finds_a_shared_model_at_either_endpoint(site, client):
    seen = set()

    def both() -> bool:
        raw = client.chat.completions.with_raw_response.create(model=SHARED_MODEL, messages=SKY)
        seen.add(raw.headers["x-olla-endpoint"])
        return seen == {"gpu-ollama", "gpu-openai"}

    wait_until(both)


def test_it_passes_on_the_backends_own_refusal(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/chat/completions", cast_to=object, body={"model": OPENAI_MODEL, "messages": "no list"})
    assert raised.value.response.headers["x-olla-endpoint"] == "gpu-openai"
    # The OpenAI error of the backend gets our context beside it.
    assert raised.value.response.json()["olla_context"]["endpoint"] == "gpu-openai"


def test_it_stops_the_backend_when_the_client_leaves(site, client):
    state = site.openai.backend.state
    before = state.hang_ups
    state.delay = 0.05
    try:
        messages = [{"role": "user", "content": "count to 500"}]
        stream = client.chat.completions.create(model=OPENAI_MODEL, messages=messages, stream=True)
        next(iter(stream))
        stream.close()
        wait_until(lambda: state.hang_ups == before + 1)
    finally:
        state.delay = 0.0


async def test_it_serves_the_async_client(site):
    opened: Any = openai.AsyncOpenAI(
        base_url=f"{site.url}/olla/openai/v1", api_key=canaries.OPENAI_KEY, max_retries=0, timeout=60
    )
    async with opened as client:
        answer = await client.chat.completions.create(model=OLLAMA_MODEL, messages=SKY)
        stream = await client.chat.completions.create(model=OLLAMA_MODEL, messages=SKY, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == answer.choices[0].message.content
        assert [each.id async for each in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nobody-has-this", messages=SKY)


@pytest.mark.parametrize("route", ["openai/v1", "proxy/v1"])
def test_it_finds_and_asks_a_model_with_a_slash(site, route):
    with make_client(site, route) as opened:
        assert SLASH_MODEL in {each.id for each in opened.models.list()}
        assert opened.models.retrieve(SLASH_MODEL).id == SLASH_MODEL
        answer = opened.chat.completions.create(model=SLASH_MODEL, messages=SKY)
    assert answer.model == SLASH_MODEL
