"""The demo backend over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from typing import Any

import httpx
import pytest

from olla_site.demo import DemoBackend

CHAT = {"model": "demo-llama:8b", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
            },
            "required": ["location"],
        },
    },
}


@pytest.fixture
async def backend():
    async with DemoBackend(name="unit") as running:
        yield running


@pytest.fixture
async def client(backend):
    async with httpx.AsyncClient(base_url=backend.url, trust_env=False, timeout=60) as opened:
        yield opened


def parse_events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def wait_until(condition, seconds: float = 10.0):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


async def test_it_says_that_it_is_a_demo(client):
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.headers["x-demo-backend"] == "1"
    assert answer.headers["x-demo-backend-name"] == "unit"
    assert answer.json()["choices"][0]["message"]["content"].startswith('[demo backend "unit"')


async def test_it_streams_the_text_it_would_send_whole(client):
    whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await client.post("/v1/chat/completions", json={**CHAT, **options})
    events = parse_events(stream.text)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in events[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["usage"] == whole["usage"]


async def test_it_cuts_at_max_tokens(client):
    answer = (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 3})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_it_gives_as_many_choices_as_asked(client):
    answer = (await client.post("/v1/chat/completions", json={**CHAT, "n": 2})).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_it_calls_a_tool(client, choice):
    messages = [{"role": "user", "content": "What is the weather in London?"}]
    body = {**CHAT, "messages": messages, "tools": [WEATHER], "tool_choice": choice}
    chosen = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    call = chosen["message"]["tool_calls"][0]
    assert chosen["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["location"] == "London"


async def test_it_streams_a_tool_call_in_parts(client):
    body = {**CHAT, "tools": [WEATHER], "tool_choice": "required", "stream": True}
    events = parse_events((await client.post("/v1/chat/completions", json=body)).text)
    parts = [e["choices"][0]["delta"]["tool_calls"][0] for e in events if "tool_calls" in e["choices"][0]["delta"]]
    assert parts[0]["function"]["name"] == "get_weather"
    assert "location" in json.loads("".join(part["function"]["arguments"] for part in parts))


async def test_it_answers_in_words_after_a_tool_result(client):
    messages = [
        {"role": "user", "content": "What is the weather in London?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "1", "content": "12 degrees"},
    ]
    body = {**CHAT, "messages": messages, "tools": [WEATHER]}
    message = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    assert message["content"].endswith("12 degrees")


async def test_it_leaves_tools_alone_when_told(client):
    messages = [{"role": "user", "content": "What is the weather in London?"}]
    body = {**CHAT, "messages": messages, "tools": [WEATHER], "tool_choice": "none"}
    chosen = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert chosen["finish_reason"] == "stop"


async def test_it_calls_legacy_functions(client):
    messages = [{"role": "user", "content": "What is the weather in London?"}]
    body = {**CHAT, "messages": messages, "functions": [WEATHER["function"]], "function_call": "auto"}
    chosen = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert chosen["finish_reason"] == "function_call"
    assert chosen["message"]["function_call"]["name"] == "get_weather"


async def test_it_writes_json_in_json_mode(client):
    body = {**CHAT, "response_format": {"type": "json_object"}}
    content = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]["content"]
    assert json.loads(content)["prompt"] == "Why is the sky blue?"


async def test_it_completes_text(client):
    body = {"model": "demo-llama:8b", "prompt": ["one", "two"]}
    whole = (await client.post("/v1/completions", json=body)).json()
    events = parse_events((await client.post("/v1/completions", json={**body, "stream": True})).text)
    assert whole["object"] == "text_completion"
    for index, choice in enumerate(whole["choices"]):
        texts = [e["choices"][0]["text"] for e in events if e["choices"][0]["index"] == index]
        assert "".join(texts) == choice["text"]


async def test_it_embeds_the_same_numbers_as_floats_and_base64(client):
    body = {"model": "demo-embed", "input": ["one", "two"]}
    plain = (await client.post("/v1/embeddings", json=body)).json()["data"]
    packed = (await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()["data"]
    for one, other in zip(plain, packed, strict=True):
        assert list(struct.unpack("<64f", base64.b64decode(other["embedding"]))) == one["embedding"]
    assert plain[0]["embedding"] != plain[1]["embedding"]


async def test_it_takes_one_input_of_token_numbers(client):
    body = {"model": "demo-embed", "input": [1, 2, 3], "dimensions": 8}
    data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert [len(each["embedding"]) for each in data] == [8]


async def test_it_draws_a_png(client):
    answer = await client.post("/v1/images/generations", json={"prompt": "a lake", "n": 2})
    images = [base64.b64decode(each["b64_json"]) for each in answer.json()["data"]]
    assert [image[:8] for image in images] == [b"\x89PNG\r\n\x1a\n"] * 2
    assert images[0] != images[1]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_it_reports_the_file_it_received(client, path):
    # Contains what a careless parser would take for a boundary.
    sound = bytes(range(256)) * 40 + b"\r\n--\r\n\r\n--boundary--\r\n"
    answer = await client.post(path, files={"file": ("a b.wav", sound)}, data={"model": "demo-llama:8b"})
    expected = {"filename": "a b.wav", "bytes": len(sound), "sha256": hashlib.sha256(sound).hexdigest()}
    assert answer.json()["demo"] == expected


async def test_it_refuses_a_transcription_without_file(client):
    answer = await client.post("/v1/audio/transcriptions", json={})
    assert answer.status_code == 400


async def test_it_speaks_wav(client):
    body = {"model": "demo-llama:8b", "input": "hello", "voice": "alloy"}
    answer = await client.post("/v1/audio/speech", json=body)
    assert answer.content.startswith(b"RIFF")
    assert answer.headers["content-type"] == "audio/wav"


async def test_it_moderates(client):
    answer = await client.post("/v1/moderations", json={"input": ["kind words", "violence"]})
    assert [each["flagged"] for each in answer.json()["results"]] == [False, True]


async def test_it_lists_and_shows_models(client):
    listed = (await client.get("/v1/models")).json()["data"]
    assert [each["id"] for each in listed] == ["demo-llama:8b", "demo-embed:latest"]
    assert (await client.get("/v1/models/demo-llama:8b")).json() == listed[0]


async def test_it_speaks_ollama(client):
    assert (await client.get("/")).text == "Ollama is running"
    assert (await client.get("/api/version")).json() == {"version": "0.0.0-demo"}
    tags = (await client.get("/api/tags")).json()["models"]
    assert [(each["name"], each["details"]["parameter_size"]) for each in tags] == [
        ("demo-llama:8b", "8B"),
        ("demo-embed:latest", "1B"),
    ]
    assert (await client.get("/api/ps")).json() == {"models": []}


@pytest.mark.parametrize(
    ("path", "extra", "read"),
    [
        ("/api/chat", {"messages": CHAT["messages"]}, lambda line: line["message"]["content"]),
        ("/api/generate", {"prompt": "Why is the sky blue?"}, lambda line: line["response"]),
    ],
)
async def test_it_streams_lines_as_ollama_does(client, path, extra, read):
    body = {"model": "demo-llama:8b", **extra}
    stream = await client.post(path, json=body)
    whole = (await client.post(path, json={**body, "stream": False})).json()
    lines = [json.loads(line) for line in stream.text.splitlines()]
    assert stream.headers["content-type"] == "application/x-ndjson"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(map(read, lines)) == read(whole)
    assert lines[-1]["eval_count"] == len(lines) - 1
    assert (await client.get("/api/ps")).json()["models"][0]["name"] == "demo-llama:8b"


async def test_it_loads_a_model_for_an_empty_prompt(client):
    answer = await client.post("/api/generate", json={"model": "demo-llama:8b"})
    assert answer.json()["done_reason"] == "load"


async def test_it_calls_tools_and_formats_as_ollama_does(client):
    body = {
        "model": "demo-llama:8b",
        "stream": False,
        "messages": [{"role": "user", "content": "weather in Oslo"}],
    }
    called = (await client.post("/api/chat", json={**body, "tools": [WEATHER]})).json()
    function = called["message"]["tool_calls"][0]["function"]
    assert function == {"name": "get_weather", "arguments": {"location": "Oslo", "unit": "celsius"}}
    formed = (await client.post("/api/chat", json={**body, "format": "json"})).json()
    assert json.loads(formed["message"]["content"])["prompt"] == "weather in Oslo"


async def test_it_embeds_as_ollama_does(client):
    many = (await client.post("/api/embed", json={"model": "demo-embed", "input": ["a", "b"]})).json()
    one = (await client.post("/api/embeddings", json={"model": "demo-embed", "prompt": "a"})).json()
    assert many["embeddings"][0] == one["embedding"]


async def test_it_shows_a_model(client):
    shown = (await client.post("/api/show", json={"model": "demo-llama:8b"})).json()
    assert shown["details"]["family"] == "llama"
    assert shown["model_info"]["llama.context_length"] == 8192


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/api/chat", b'{"model": "no"}', 404, {"error": "model 'no' not found"}),
        ("/api/chat", b"{", 400, None),
        ("/v1/chat/completions", b"{", 400, None),
        ("/v1/chat/completions", b"[]", 400, None),
        ("/v1/chat/completions", b'{"model": "demo-llama:8b"}', 400, None),
        ("/nowhere", b"", 404, None),
        ("/v1/models", b"", 405, None),
    ],
)
async def test_it_refuses_in_the_shape_of_the_dialect(client, path, body, status, expected):
    answer = await client.post(path, content=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert isinstance(error, str) is path.startswith("/api/")
    assert expected is None or answer.json() == expected


async def test_it_names_an_unknown_model_as_openai_does(client):
    answer = await client.post("/v1/chat/completions", json={**CHAT, "model": "nobody"})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")


async def test_it_serves_no_ollama_paths_as_openai():
    async with DemoBackend(kind="openai") as backend, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        assert (await client.get(f"{backend.url}/api/tags")).status_code == 404
        assert (await client.get(f"{backend.url}/health")).status_code == 200


async def test_it_stops_generating_when_the_client_leaves():
    async with DemoBackend(delay=0.05) as backend, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        messages = [{"role": "user", "content": "count to 1000"}]
        body = {"model": "demo-llama:8b", "stream": True, "messages": messages}
        async with client.stream("POST", f"{backend.url}/v1/chat/completions", json=body) as answer:
            async for _ in answer.aiter_bytes():
                break
        await wait_until(lambda: backend.state.hang_ups == 1)
        assert backend.state.generating == 0


async def test_it_keeps_connections_alive_and_answers_in_order(backend):
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    writer.write(b"GET /api/version HTTP/1.1\r\nHost: x\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    everything = (await reader.read()).decode()
    writer.close()
    assert everything.count("HTTP/1.1 200 OK") == 3
    assert everything.index("0.0.0-demo") < everything.index("Content-Length: 17") < everything.index('"status"')
    assert "Ollama is running" not in everything  # HEAD has no body


async def test_it_answers_garbage_with_400(backend):
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    writer.write(b"hello\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_it_invites_a_body_announced_with_expect(backend):
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    writer.write(b"POST /api/show HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 25\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"model":"demo-llama:8b"}')
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_it_starts_again_on_the_port_it_had(backend):
    port = backend.port
    await backend.stop()
    await backend.start()
    assert backend.port == port


@pytest.mark.parametrize("wrong", [{"kind": "vllm"}, {"models": ()}])
def test_it_refuses_what_it_cannot_be(wrong):
    with pytest.raises(ValueError, match=r"use one of|needs a model"):
        DemoBackend(**wrong)


async def test_it_draws_as_data_url_when_asked(client):
    body = {"prompt": "a lake", "model": "demo-llama:8b", "response_format": "url"}
    answer = await client.post("/v1/images/generations", json=body)
    assert answer.json()["data"][0]["url"].startswith("data:image/png;base64,iVBOR")


async def test_it_transcribes_to_plain_text(client):
    form = {"model": "demo-llama:8b", "response_format": "text"}
    answer = await client.post("/v1/audio/transcriptions", files={"file": ("a.wav", b"12")}, data=form)
    assert answer.headers["content-type"].startswith("text/plain")
    assert "2 bytes" in answer.text


async def test_it_misses_the_file_of_a_transcription(client):
    answer = await client.post("/v1/audio/transcriptions", files={"other": b"12"}, data={"model": "demo-llama:8b"})
    assert answer.json()["error"]["message"] == "the file is missing"


async def test_it_loads_a_model_for_an_empty_chat(client):
    answer = await client.post("/api/chat", json={"model": "demo-llama:8b", "messages": []})
    assert answer.json()["done_reason"] == "load"


async def test_it_needs_a_model(client):
    answer = await client.post("/api/generate", json={"prompt": "hello"})
    assert (answer.status_code, answer.json()) == (400, {"error": "model is required"})


async def test_it_calls_no_tool_the_client_did_not_offer(client):
    choice = {"type": "function", "function": {"name": "other"}}
    body = {**CHAT, "tools": [WEATHER], "tool_choice": choice}
    chosen = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert chosen["finish_reason"] == "stop"


async def test_it_stops_at_a_stop_sequence(client):
    messages = [{"role": "user", "content": "count to 9"}]
    body = {**CHAT, "messages": messages, "stop": ", 5"}
    chosen = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert chosen["message"]["content"].endswith("1, 2, 3, 4")
