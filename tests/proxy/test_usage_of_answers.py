"""What backends told of their answers reaches the request's record and the debug log; the bytes stay theirs."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from typing import Any

import pytest

from proxy.metrics_log import build_provider_fields
from proxy.record import RequestRecord, no_record
from tests.fakes import Cut, Reply, ScriptedBackend, gzip_reply, json_reply, ndjson_reply
from tests.proxy.conftest import Proxy
from tests.proxy.test_provider_metrics import (
    OLLAMA_FACTS,
    OLLAMA_LAST,
    OPENAI_FACTS,
    OPENAI_USAGE,
    TIMINGS,
    chat,
    chunk,
    events,
    sse,
)

SSE = (b"Content-Type", b"text/event-stream")
SAY = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
STREAM = sse(*[chunk()] * 300, chunk("stop"), {**chunk(), "choices": [], "usage": OPENAI_USAGE})


def fields(record: RequestRecord) -> dict[str, Any]:
    """What a record knows, without the names' beginning."""
    return {name.removeprefix("provider_"): value for name, value in build_provider_fields(record).items()}


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


async def test_it_reads_a_small_answer(proxy: Proxy, records: list[RequestRecord]) -> None:
    async with ScriptedBackend(json_reply(chat(usage=OPENAI_USAGE))) as backend:
        await proxy.add(backend.url)
        await proxy.chat()
    assert [fields(each) for each in records] == [OPENAI_FACTS]


@pytest.mark.parametrize("size", [11, 700, 100_000])
async def test_it_reads_a_stream_and_changes_no_byte_of_it(
    proxy: Proxy, records: list[RequestRecord], size: int
) -> None:
    async with ScriptedBackend(Reply(headers=[SSE], chunks=in_pieces(STREAM, size))) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat(stream=True)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(STREAM).digest()
    assert [fields(each) for each in records] == [OPENAI_FACTS]


async def test_it_asks_for_no_usage_that_the_client_did_not_ask_for(
    proxy: Proxy, records: list[RequestRecord]
) -> None:
    async with ScriptedBackend(Reply(headers=[SSE], chunks=[sse(chunk(), chunk("stop"))])) as backend:
        await proxy.add(backend.url)
        await proxy.chat(stream=True)
        assert "stream_options" not in backend.requests[-1].json()
    [record] = records
    assert fields(record) == {"model": "m", "finish_reason": "stop"}
    assert (record.total_tokens, record.tokens_per_second) == (None, None)


async def test_it_reads_an_ollama_stream(proxy: Proxy, records: list[RequestRecord]) -> None:
    words = [{"model": "m", "message": {"role": "assistant", "content": "word"}, "done": False}] * 100
    async with ScriptedBackend(ndjson_reply([*words, OLLAMA_LAST])) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        await proxy.call("POST", "/olla/ollama/api/chat", {"model": "m", "messages": []})
    assert [fields(each) for each in records] == [OLLAMA_FACTS]


async def test_it_reads_a_long_answer_from_its_end(proxy: Proxy, records: list[RequestRecord]) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5] * 50_000}]
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    async with ScriptedBackend(json_reply(body)) as backend:
        await proxy.add(backend.url)
        answer = await proxy.call("POST", "/olla/openai/v1/embeddings", {"model": "m", "input": "a"})
    assert answer.json() == body
    assert [fields(each) for each in records] == [{"model": "m", "prompt_tokens": 9, "total_tokens": 9}]


@pytest.mark.parametrize("stream", [False, True])
async def test_it_reads_what_the_backend_said_before_translation(
    proxy: Proxy, records: list[RequestRecord], stream: bool
) -> None:
    reply = json_reply(chat(timings=TIMINGS, usage=OPENAI_USAGE))
    if stream:
        last = {**chunk(), "choices": [], "usage": OPENAI_USAGE, "timings": TIMINGS}
        reply = Reply(headers=[SSE], chunks=in_pieces(sse(*[chunk()] * 20, chunk("stop"), last), 50))
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, backend_type="lemonade")
        await proxy.call("POST", "/olla/anthropic/v1/messages", {**SAY, "stream": stream})
    [record] = records
    assert record.mode == "translation"
    told = {"cached_tokens": 16, "prompt_ms": 30.5, "generation_ms": 70.0, "ttft_ms": 30.5}
    assert fields(record) == {**OPENAI_FACTS, **told, "tokens_per_second": 99.5}


async def test_it_reads_a_messages_stream_that_is_passed_through(
    proxy: Proxy, records: list[RequestRecord]
) -> None:
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 21}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    body = events(start, end, {"type": "message_stop"})
    async with ScriptedBackend(Reply(headers=[SSE], chunks=in_pieces(body, 90))) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await proxy.call("POST", "/olla/anthropic/v1/messages", {**SAY, "stream": True})
    assert answer.body == body
    [record] = records
    assert (record.mode, fields(record)) == (
        "passthrough",
        {
            "model": "m",
            "finish_reason": "end_turn",
            "prompt_tokens": 21,
            "completion_tokens": 7,
            "total_tokens": 28,
        },
    )


async def test_it_leaves_compressed_answers_and_errors_alone(proxy: Proxy, records: list[RequestRecord]) -> None:
    body = json.dumps(chat(usage=OPENAI_USAGE)).encode()
    replies = [gzip_reply(body), json_reply({"error": {"message": "no"}, "usage": OPENAI_USAGE}, 400)]
    async with ScriptedBackend(replies) as backend:
        await proxy.add(backend.url)
        answers = [await proxy.chat(), await proxy.chat()]
    assert gzip.decompress(answers[0].body) == body
    assert [(answer.status, record.usage) for answer, record in zip(answers, records, strict=True)] == [
        (200, None), (400, None),
    ]  # fmt: skip


async def test_it_reads_what_there_is_of_a_stream_that_broke_off(
    proxy: Proxy, records: list[RequestRecord]
) -> None:
    half = sse(*[chunk(usage={"prompt_tokens": 21, "completion_tokens": 3})] * 3, done=False)
    async with ScriptedBackend(
        Cut(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + half)
    ) as backend:
        await proxy.add(backend.url)
        await proxy.chat(stream=True)
    assert [record.total_tokens for record in records] == [24]


async def test_it_writes_one_debug_line_for_each_request(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "proxy.metrics_log")
    async with ScriptedBackend(json_reply(chat(usage=OPENAI_USAGE))) as backend:
        await proxy.add(backend.url, "gpu")
        answer = await proxy.chat()
    [line] = [each.getMessage() for each in caplog.records if each.name == "proxy.metrics_log"]
    told = {f"provider_{name}": value for name, value in OPENAI_FACTS.items()}
    assert json.loads(line) == {"request_id": answer.header("x-olla-request-id"), "endpoint": "gpu", **told}


async def test_it_writes_no_line_at_the_usual_level(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy.metrics_log")
    async with ScriptedBackend(json_reply(chat(usage=OPENAI_USAGE))) as backend:
        await proxy.add(backend.url)
        await proxy.chat()
    assert [each for each in caplog.records if each.name == "proxy.metrics_log"] == []


def test_it_has_no_fields_for_what_is_not_known() -> None:
    assert build_provider_fields(no_record()) == {}
