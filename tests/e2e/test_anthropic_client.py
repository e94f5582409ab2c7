"""The anthropic Python client against the real server: the same tests passed through and translated."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from pydantic import BaseModel

from endpoints.profiles import PROFILES
from tests.e2e.conftest import wait_until
from tests.e2e.scripted_models import USAGE, ScriptedThread, serve, serve_models
from tests.fakes import Received, ScriptedBackend
from tests.translation.grammar import read_stream
from tests.translation.test_client_shapes import agent_request, agent_turns

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the current weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
BETAS = [
    "claude-code-20250219", "interleaved-thinking-2025-05-14", "context-management-2025-06-27",
    "prompt-caching-scope-2026-01-05", "effort-2025-11-24", "fine-grained-tool-streaming-2025-05-14",
    "structured-outputs-2025-12-15", "advanced-tool-use-2025-11-20", "token-counting-2024-11-01",
]  # fmt: skip


@dataclass
class Way:
    """A kind of backend in one of the two modes: its model, its endpoint and what the endpoint has seen."""

    kind: str
    mode: str
    url: str
    backend: ScriptedBackend

    @property
    def endpoint(self) -> str:
        """The endpoint's name."""
        return name_endpoint(self.kind, self.mode)

    @property
    def model(self) -> str:
        """The one model it has."""
        return f"{self.endpoint}-model"

    @property
    def last(self) -> Received:
        """The last request its backend got."""
        return self.backend.requests[-1]


def name_endpoint(kind: str, mode: str) -> str:
    return f"{kind}-{mode}"


NATIVE = [name for name, profile in PROFILES.items() if profile.native_anthropic]
# Each kind in the modes it has; of those without the API, gateways that pass it on if the operator says so.
GATEWAYS = ["litellm", "sglang", "openai-compatible"]
EVERY_WAY = [(kind, "passthrough") for kind in [*NATIVE, *GATEWAYS]] + [(kind, "translation") for kind in PROFILES]
# All tests run for one kind in each mode, one that repeats most of them for the rest; the long form does all.
FEW_WAYS = [("vllm", "passthrough"), ("openai-compatible", "translation")]
WAYS = EVERY_WAY if os.environ.get("OLLA_TEST_SIZE") == "long" else FEW_WAYS


def overrule(kind: str, mode: str) -> dict[str, str]:
    """The operator's word where a kind would do otherwise."""
    if (kind in NATIVE) == (mode == "passthrough"):
        return {}
    return {"anthropic_mode": "passthrough" if mode == "passthrough" else "translate"}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Way]]:
    """A server with an endpoint for each way, over one backend that speaks both APIs."""
    with ScriptedThread(ScriptedBackend(serve)) as backend:
        rows = [
            {
                "name": name_endpoint(kind, mode), "url": backend.backend.url, "kind": kind,
                "models": [f"{name_endpoint(kind, mode)}-model"],
                "columns": overrule(kind, mode),
            }
            for kind, mode in EVERY_WAY
        ]  # fmt: skip
        with serve_models(tmp_path_factory.mktemp("anthropic-data"), rows) as server:
            yield {each: Way(*each, server.url, backend.backend) for each in EVERY_WAY}


def each_of(chosen: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", chosen, indirect=True, ids=lambda pair: name_endpoint(*pair))


@pytest.fixture(params=WAYS, ids=lambda pair: name_endpoint(*pair))
def way(request: pytest.FixtureRequest, ways: dict[tuple[str, str], Way]) -> Way:
    """Each way in turn."""
    return ways[request.param]


class Checking(httpx2.HTTPTransport):
    """Puts every stream of events that a client reads to its end through the checker of the grammar."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = CheckedStream(response.stream)
        return response


class CheckedStream(httpx2.SyncByteStream):
    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[bytes]:
        whole = b""
        for chunk in self.source:
            whole += chunk
            yield chunk
        read_stream(whole)

    def close(self) -> None:
        self.source.close()


@pytest.fixture
def client(way: Way) -> Iterator[Any]:
    with anthropic.Anthropic(
        base_url=f"{way.url}/olla/anthropic", api_key="not-needed", max_retries=0, timeout=60,
        http_client=httpx2.Client(transport=Checking(), trust_env=False),
    ) as opened:  # fmt: skip
        yield opened


def say(way: Way, text: Any, **more: Any) -> dict[str, Any]:
    """The arguments of a small request."""
    return {"model": way.model, "max_tokens": 200, "messages": [{"role": "user", "content": text}], **more}


@each_of([each for each in EVERY_WAY if each not in FEW_WAYS])
def test_it_serves_every_kind(way, client):
    test_it_answers_and_says_how(way, client)
    test_it_streams_with_the_clients_helper(way, client)
    test_it_streams_events(way, client)
    test_it_calls_tools_in_parallel_and_takes_their_results(way, client)
    test_it_streams_tool_calls(way, client)
    test_it_shows_pictures(way, client)
    for streaming in (False, True):
        test_it_thinks_and_takes_its_thoughts_back(way, client, streaming)
        test_it_raises_the_clients_own_errors(way, client, 429, anthropic.RateLimitError, streaming)
    test_it_counts_tokens(way, client)
    test_it_answers_what_a_coding_agent_sends(way)


def test_it_answers_and_says_how(way, client):
    raw = client.messages.with_raw_response.create(**say(way, "hello"))
    answer = raw.parse()
    assert answer.content[0].text == "You said: hello (0 pictures, 0 rounds)"
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == (
        "message", "assistant", way.model, "end_turn",
    )  # fmt: skip
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == USAGE
    assert raw.headers["x-olla-mode"] == way.mode
    assert raw.headers["x-olla-endpoint"] == way.endpoint
    assert raw.headers["request-id"] == raw.headers["x-olla-request-id"] == answer._request_id


def test_it_streams_events(way, client):
    with client.messages.create(**say(way, "hello"), stream=True) as stream:
        assert stream.response.headers["x-olla-mode"] == way.mode
        kinds = [event.type for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]


def test_it_streams_with_the_clients_helper(way, client):
    with client.messages.stream(**say(way, "hello")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "You said: hello (0 pictures, 0 rounds)"
    assert (final.usage.input_tokens, final.usage.output_tokens) == USAGE
    assert final.model == way.model


def test_it_calls_tools_in_parallel_and_takes_their_results(way, client):
    question = say(way, "weather in London and Paris", tools=[WEATHER])
    called = client.messages.create(**question)
    assert called.stop_reason == "tool_use"
    calls = [block for block in called.content if block.type == "tool_use"]
    assert [(each.name, each.input) for each in calls] == [
        ("get_weather", {"city": "London"}), ("get_weather", {"city": "Paris"}),
    ]  # fmt: skip
    results = [{"type": "tool_result", "tool_use_id": each.id, "content": "rain"} for each in calls]
    turns = [
        *question["messages"], {"role": "assistant", "content": called.content},
        {"role": "user", "content": results},
    ]  # fmt: skip
    final = client.messages.create(**{**question, "messages": turns})
    assert final.content[0].text.endswith("1 rounds)")


def test_it_streams_tool_calls(way, client):
    with client.messages.stream(**say(way, "weather in London and Paris", tools=[WEATHER])) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert "input_json" in events
    assert [block.input for block in final.content if block.type == "tool_use"] == [
        {"city": "London"}, {"city": "Paris"},
    ]  # fmt: skip
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}, {"type": "none"}])
def test_it_takes_every_tool_choice(way, client, choice):
    client.messages.create(**say(way, "hello", tools=[WEATHER], tool_choice=choice))
    sent = way.last.json()["tool_choice"]
    named = {"type": "function", "function": {"name": "get_weather"}}
    translated = {"any": "required", "none": "none", "tool": named}[choice["type"]]
    assert sent == (choice if way.mode == "passthrough" else translated)


@pytest.mark.parametrize("streaming", [False, True])
def test_it_works_ten_rounds_with_two_tools_each(way, client, streaming):
    tools = [{**WEATHER, "name": name} for name in ("read", "write")]
    turns: list[Any] = [{"role": "user", "content": "work for 10 rounds"}]
    for number in range(11):
        asked = {"model": way.model, "max_tokens": 100, "messages": turns, "tools": tools}
        if streaming:
            with client.messages.stream(**asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**asked)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            break
        assert [each.input for each in calls] == [{"round": number, "part": part} for part in range(2)]
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": calls[0].id, "content": [{"type": "text", "text": "ok"}]},
            {"type": "tool_result", "tool_use_id": calls[1].id, "content": "broken", "is_error": True},
        ]
        turns += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert number == 10
    assert answer.content[0].text.endswith("10 rounds)")
    assert answer.stop_reason == "end_turn"


def test_it_shows_pictures(way, client):
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what is it"}]
    answer = client.messages.create(**say(way, content))
    assert "(1 pictures" in answer.content[0].text
    if way.mode == "translation":
        parts = way.last.json()["messages"][0]["content"]
        assert parts[0]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"


@pytest.mark.parametrize("streaming", [False, True])
def test_it_thinks_and_takes_its_thoughts_back(way, client, streaming):
    asked = say(way, "think about it", thinking={"type": "enabled", "budget_tokens": 1024})
    asked["max_tokens"] = 2000
    if streaming:
        with client.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**asked)
    thought = answer.content[0]
    assert (thought.type, thought.thinking) == ("thinking", "Let me see. It is simple.")
    assert thought.signature
    assert answer.content[1].type == "text"
    turns = [
        *asked["messages"], {"role": "assistant", "content": answer.content},
        {"role": "user", "content": "and now"},
    ]  # fmt: skip
    assert client.messages.create(**{**asked, "messages": turns}).content[-1].text.startswith("You said: and now")


def how_counted(way: Way) -> str:
    """How an endpoint of that kind counts tokens itself, if it does."""
    if way.kind in ("vllm", "llamacpp"):
        return "tokenize"
    native = way.kind in ("vllm-mlx", "omlx", "docker-model-runner") and way.mode == "passthrough"
    return "native" if native else ""


def test_it_counts_tokens(way, client):
    raw = client.messages.with_raw_response.count_tokens(
        model=way.model, messages=[{"role": "user", "content": "hello"}], tools=[WEATHER]
    )
    counted = raw.parse().input_tokens
    source = how_counted(way)
    if source:
        assert (counted, raw.headers["x-olla-token-count"]) == (42, source)
    else:
        # Tests before this one may have taught what this model makes of a text.
        assert raw.headers["x-olla-token-count"] in ("estimate", "learned")
        assert 20 < counted < 80


def test_it_lists_models_page_by_page(way, ways, client):
    found = list(client.models.list(limit=len(ways) // 2))  # the client asks for the next page itself
    assert {each.model for each in ways.values()} == {each.id for each in found}
    one = client.models.retrieve(way.model)
    assert (one.type, one.display_name, one.lifecycle) == ("model", way.model, "active")


ERRORS = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (409, anthropic.ConflictError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
@pytest.mark.parametrize("streaming", [False, True])
def test_it_raises_the_clients_own_errors(way, client, status, kind, streaming):
    with pytest.raises(kind) as raised:
        client.messages.create(**say(way, f"fail with {status}"), stream=streaming)
    assert raised.value.status_code == status
    assert "as you wished" in raised.value.message
    assert raised.value.request_id
    assert raised.value.response.headers["retry-after-ms"] == "5"


def test_it_raises_the_clients_own_error_for_an_unknown_model(client):
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.messages.create(model="nobody-has-this", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    body: Any = raised.value.body
    assert body["error"]["type"] == "not_found_error"


def test_it_raises_the_clients_own_error_for_a_request_that_is_none(way, client):
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**say(way, "hello"), extra_body={"temperature": 7})


def test_it_holds_an_answer_to_a_schema(way, client):
    class Capital(BaseModel):
        city: str

    client.messages.create(
        **say(way, "hello"),
        extra_body={"output_config": {"format": {"type": "json_schema", "schema": Capital.model_json_schema()}}},
    )
    sent = way.last.json()
    if way.mode == "translation":
        assert sent["response_format"]["json_schema"]["schema"]["properties"].keys() == {"city"}
    else:
        assert sent["output_config"]["format"]["type"] == "json_schema"


def test_it_answers_what_a_coding_agent_sends(way):
    file = {"role": "user", "content": "line of a file\n" * 450}
    fields = {"model": way.model, "messages": [file, *agent_turns()], **agent_request()}
    body = json.dumps(fields).encode()
    assert 75_000 < len(body) < 80_000
    headers = {
        "content-type": "application/json",
        "authorization": "Bearer not-needed",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": ",".join(BETAS),
        "x-app": "cli",
        "x-claude-code-session-id": "0d1c",
        "user-agent": "claude-cli/2.1.200 (external, cli)",
    }
    answer = httpx.post(
        f"{way.url}/olla/anthropic/v1/messages?beta=true",
        content=body,
        headers=headers,
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-olla-mode"] == way.mode
    assert read_stream(answer.content).message["stop_reason"] == "end_turn"
    if way.mode == "passthrough":
        if way.kind in NATIVE:
            assert way.last.body == body
        else:  # the genuine API may stand behind it, and refuses thinking it has not signed
            assert b"olla-v1." in body
            assert b"olla-v1." not in way.last.body
            assert way.last.json()["tools"] == agent_request()["tools"]
        path = "/anthropic/v1/messages" if way.kind == "docker-model-runner" else "/v1/messages"
        assert way.last.target == f"{path}?beta=true".encode()
        assert way.last.header("anthropic-beta") == ",".join(BETAS)
    else:
        sent = way.last.json()
        assert [turn["role"] for turn in sent["messages"]] == [
            "system", "user", "assistant", "tool", "tool", "user",
        ]  # fmt: skip
        assert len(sent["tools"]) == 24
        assert way.last.header("anthropic-beta") is None
        assert way.last.header("x-claude-code-session-id") is None
        assert "context_management" in answer.headers["x-olla-translation-warnings"]


def test_it_serves_the_beta_resource(way, client):
    answer = client.beta.messages.create(**say(way, "hello"), betas=BETAS)
    assert answer.content[0].text.startswith("You said: hello")
    with client.beta.messages.stream(**say(way, "hello"), betas=BETAS) as stream:
        assert stream.get_final_text().startswith("You said: hello")


@pytest.mark.parametrize("base", ["/olla/anthropic/v1", "/olla/anthropic"])
def test_it_takes_a_base_address_with_or_without_the_version(way, base):
    with anthropic.Anthropic(base_url=way.url + base, api_key="k", max_retries=0) as client:
        assert client.messages.create(**say(way, "hello")).model == way.model


def test_it_frees_the_backend_when_the_client_leaves(way, client):
    before = way.backend.open
    with client.messages.stream(**say(way, "count slowly")) as stream:
        for event in stream:
            if event.type == "text":
                break
        assert way.backend.open >= 1
    busy = way.backend.conns[-1]
    wait_until(busy.gone.is_set, 10)
    assert way.backend.open <= max(before, 1)


async def test_it_serves_the_async_client(way):
    opened: Any = anthropic.AsyncAnthropic(
        base_url=f"{way.url}/olla/anthropic", api_key="not-needed", max_retries=0, timeout=60
    )
    async with opened as client:
        answer = await client.messages.create(**say(way, "hello"))
        async with client.messages.stream(**say(way, "hello")) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        assert text == answer.content[0].text
        async with client.messages.stream(**say(way, "weather in London", tools=[WEATHER])) as stream:
            final = await stream.get_final_message()
        assert final.content[-1].input == {"city": "London"}
        assert [each.id async for each in client.models.list()]
        count = await client.messages.count_tokens(model=way.model, messages=[{"role": "user", "content": "x"}])
        assert count.input_tokens > 0
        with pytest.raises(anthropic.RateLimitError):
            await client.messages.create(**say(way, "fail with 429"))
