"""The Anthropic routes: mode for each endpoint, both ways of a request, headers, lists and counts."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from endpoints.models import DiscoveredModel, ModelAlias
from endpoints.profiles import PROFILES
from proxy.anthropic_translated import MessagesCall, build_chat_headers, chat_path
from proxy.guards import is_guarded
from proxy.live import live
from proxy.token_memory import KEEP_SECONDS, MOST_COUNTS, MOST_MEASURED, MOST_WAITING, TokenMemory
from tests.fakes import Reply, ScriptedBackend, gzip_reply, json_reply
from tests.proxy.anthropic_builders import (
    CHUNKS,
    MESSAGES,
    ask,
    chat_stream,
    completion,
    events,
    message,
    native_reply,
    native_stream,
    send,
)
from tests.proxy.conftest import Proxy
from tests.translation.grammar import read_stream
from translation.token_count import CountSource, PromptSize

NATIVE = [name for name, profile in PROFILES.items() if profile.native_anthropic]


@pytest.mark.parametrize("kind", NATIVE)
async def test_it_passes_the_body_through_byte_for_byte_where_the_kind_speaks_the_api(
    proxy: Proxy, kind: str
) -> None:
    body = (
        b'{ "max_tokens":50,"other": {"a":[1.0]},\n"messages":[{"role":"user","content":"\xc3\xa9"}],"model":"m"}'
    )
    path = PROFILES[kind].native_anthropic.path  # type: ignore[union-attr]
    async with ScriptedBackend({path: native_reply()}) as backend:
        await proxy.add(backend.url, backend_type=kind)
        answer = await proxy.call("POST", MESSAGES, body, [("anthropic-beta", "a,b")], query=b"beta=true")
        assert answer.status == 200
        assert answer.json() == message()
        assert answer.header("x-olla-mode") == "passthrough"
        assert backend.requests[0].body == body
        assert backend.requests[0].target == f"{path}?beta=true".encode()
        assert backend.requests[0].header("anthropic-beta") == "a,b"


@pytest.mark.parametrize("kind", [name for name in PROFILES if name not in NATIVE])
async def test_it_translates_for_every_other_kind(proxy: Proxy, kind: str) -> None:
    async with ScriptedBackend({chat_path(PROFILES[kind]): json_reply(completion())}) as backend:
        await proxy.add(backend.url, backend_type=kind)
        answer = await send(proxy, query=b"beta=true")
        assert answer.status == 200
        assert answer.header("x-olla-mode") == "translation"
        assert answer.json()["content"] == [{"type": "text", "text": "Hi there"}]
        assert answer.json()["model"] == "m"
        assert answer.json()["usage"]["input_tokens"] == 11
        assert backend.requests[0].json()["messages"] == [{"role": "user", "content": "Hello"}]
        assert b"?" not in backend.requests[0].target


@pytest.mark.parametrize("kind", PROFILES)
def test_it_never_needs_a_guarded_path(kind: str) -> None:
    profile = PROFILES[kind]
    native = profile.native_anthropic.path if profile.native_anthropic else "/v1/messages"
    for path in ("/v1/messages", native, chat_path(profile)):
        assert not is_guarded(profile, "POST", path, base="", own_key=True)


async def test_it_streams_translated_events(proxy: Proxy) -> None:
    async with ScriptedBackend(chat_stream()) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy, ask(stream=True))
        stream = read_stream(answer.body)
        assert answer.header("content-type") == "text/event-stream"
        assert stream.message["content"] == [{"type": "text", "text": "Hi there"}]
        assert stream.message["usage"]["output_tokens"] == 3
        assert backend.requests[0].json()["stream_options"] == {"include_usage": True}
    await proxy.settled()


async def test_it_streams_native_events_byte_for_byte(proxy: Proxy) -> None:
    reply = native_stream()
    async with ScriptedBackend(reply) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await send(proxy, ask(stream=True))
        assert answer.body == b"".join(reply.chunks)  # type: ignore[arg-type]
        assert answer.header("x-olla-mode") == "passthrough"


@pytest.mark.parametrize(
    "path",
    ["/v1/messages", "/v1/v1/messages", "/messages", "/v1/messages/", "/v1/v1/v1/messages"],
)
async def test_it_answers_on_every_spelling_of_the_address(proxy: Proxy, path: str) -> None:
    async with ScriptedBackend(native_reply()) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        answer = await proxy.call("POST", f"/olla/anthropic{path}", ask())
        assert answer.status == 200
        assert backend.requests[0].target == b"/v1/messages"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/messages", "/api/hello", "/v1/models"])
async def test_it_answers_probes(proxy: Proxy, path: str) -> None:
    answer = await proxy.call("HEAD", f"/olla/anthropic{path}")
    assert answer.status == 200
    assert answer.body == b""


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/messages/batches", "/v1/files", "/v2/messages"])
async def test_it_has_nothing_else_there_and_says_so_in_the_envelope(proxy: Proxy, path: str) -> None:
    answer = await proxy.call("POST", f"/olla/anthropic{path}", ask())
    assert answer.status == 404
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "not_found_error"


async def test_it_names_the_method_it_wants(proxy: Proxy) -> None:
    answer = await proxy.call("GET", MESSAGES)
    assert answer.status == 405
    assert answer.header("allow") == "POST"
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_it_vanishes_when_turned_off(proxy: Proxy) -> None:
    with override_settings(OLLA_TRANSLATORS_ANTHROPIC_ENABLED=False):
        answer = await send(proxy)
    assert answer.status == 404


async def test_it_translates_for_native_kinds_when_passthrough_is_off(proxy: Proxy) -> None:
    async with ScriptedBackend({"/v1/chat/completions": json_reply(completion())}) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        with override_settings(OLLA_TRANSLATORS_ANTHROPIC_PASSTHROUGH_ENABLED=False):
            answer = await send(proxy)
        assert answer.header("x-olla-mode") == "translation"


async def test_it_switches_the_mode_when_it_tries_elsewhere(proxy: Proxy) -> None:
    for first, second, mode in (("ollama", "openai", "translation"), ("openai", "ollama", "passthrough")):
        good = {"/v1/chat/completions": json_reply(completion()), "/v1/messages": native_reply()}
        async with ScriptedBackend(Reply(503)) as bad, ScriptedBackend(good) as other:
            one = await proxy.add(bad.url, name=f"bad-{first}", backend_type=first, priority=200)
            two = await proxy.add(other.url, name=f"good-{second}", backend_type=second, priority=100)
            with override_settings(OLLA_LOAD_BALANCER="priority"):
                answer = await send(proxy)
            assert answer.status == 200
            assert len(bad.requests) == 1
            assert answer.header("x-olla-mode") == mode
            assert answer.header("x-olla-endpoint") == f"good-{second}"
        for each in (one, two):
            await each.adelete()


@pytest.mark.parametrize(
    ("kind", "columns", "mode", "path"),
    [
        ("ollama", {"anthropic_mode": "translate"}, "translation", "/v1/chat/completions"),
        ("litellm", {"anthropic_mode": "passthrough"}, "passthrough", "/v1/messages"),
        (
            "openai-compatible",
            {"anthropic_mode": "passthrough", "anthropic_path": "/anthropic/v1/messages"},
            "passthrough",
            "/anthropic/v1/messages",
        ),
        ("docker-model-runner", {"anthropic_path": "/v1/messages"}, "passthrough", "/v1/messages"),
        ("docker-model-runner", {"anthropic_mode": "passthrough"}, "passthrough", "/anthropic/v1/messages"),
        ("sglang", {"anthropic_path": "/v1/messages"}, "translation", "/v1/chat/completions"),
    ],
)
async def test_it_follows_the_operators_word_on_an_endpoint(
    proxy: Proxy, kind: str, columns: dict[str, str], mode: str, path: str
) -> None:
    async with ScriptedBackend({path: json_reply(completion() if "chat" in path else message())}) as backend:
        await proxy.add(backend.url, backend_type=kind, **columns)
        answer = await send(proxy)
        assert answer.status == 200
        assert answer.header("x-olla-mode") == mode
        assert [each.path for each in backend.requests] == [path]


async def test_it_passes_on_what_the_kind_lacks_when_the_operator_says_so(proxy: Proxy) -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}
    fields = ask(messages=[{"role": "user", "content": [document]}])
    script = {"/v1/messages": native_reply(), "/v1/chat/completions": json_reply(completion())}
    for mode, seen in (("auto", "translation"), ("passthrough", "passthrough")):
        async with ScriptedBackend(script) as backend:
            endpoint = await proxy.add(backend.url, name=mode, backend_type="vllm", anthropic_mode=mode)
            assert (await send(proxy, fields)).header("x-olla-mode") == seen
            await endpoint.adelete()


async def test_it_takes_its_own_thinking_out_of_what_may_reach_the_genuine_api(proxy: Proxy) -> None:
    ours = {"type": "thinking", "thinking": "hm", "signature": "olla-v1.0"}
    theirs = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    said = {"type": "text", "text": "x"}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [ours, theirs, said]},
        {"role": "user", "content": "b"},
    ]
    for kind, left in (("openai-compatible", [theirs, said]), ("vllm", [ours, theirs, said])):
        async with ScriptedBackend(native_reply()) as backend:
            endpoint = await proxy.add(
                backend.url, name=kind, backend_type=kind, anthropic_mode="passthrough", models=["real"]
            )
            await ModelAlias.objects.acreate(name="m", targets="real")
            await proxy.refresh()
            answer = await send(proxy, ask(messages=turns))
            assert answer.status == 200, answer.body
            assert backend.requests[0].json()["messages"][1]["content"] == left
            assert backend.requests[0].json()["model"] == "real"
            await endpoint.adelete()
            await ModelAlias.objects.all().adelete()


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"404 page not found"), (405, b"{}"), (501, b""), (200, b'{"error":"Unexpected endpoint or method."}')],
)
async def test_it_translates_at_once_for_an_endpoint_without_the_path_and_remembers(
    proxy: Proxy, status: int, body: bytes
) -> None:
    script = {"/v1/messages": Reply(status, body=body), "/v1/chat/completions": json_reply(completion())}
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type="lm-studio")
        for _ in range(2):
            answer = await send(proxy)
            assert answer.status == 200
            assert answer.header("x-olla-mode") == "translation"
        assert [each.path for each in backend.requests] == [
            "/v1/messages", "/v1/chat/completions", "/v1/chat/completions",
        ]  # fmt: skip
    await proxy.settled()


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"error","error":{"type":"not_found_error","message":"gone"}}',
        b'{"error":{"message":"The model `m` does not exist."}}',
    ],
)
async def test_it_relays_a_native_word_on_an_unknown_model(proxy: Proxy, body: bytes) -> None:
    async with ScriptedBackend(Reply(404, body=body)) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        answer = await send(proxy)
        assert answer.status == 404
        assert answer.body == body
        assert len(backend.requests) == 1


async def test_it_drops_stream_options_for_an_endpoint_that_refuses_them(proxy: Proxy) -> None:
    refusal = json_reply({"error": {"message": "unknown field stream_options"}}, 400)
    async with ScriptedBackend([refusal, chat_stream()]) as backend:
        await proxy.add(backend.url)
        for _ in range(2):
            answer = await send(proxy, ask(stream=True))
            assert read_stream(answer.body).message["stop_reason"] == "end_turn"
        assert ["stream_options" in each.json() for each in backend.requests] == [True, False, False]


async def test_it_rewrites_an_alias_in_both_modes(proxy: Proxy) -> None:
    script = {"/v1/messages": native_reply(), "/v1/chat/completions": json_reply(completion())}
    for kind in ("ollama", "openai"):
        async with ScriptedBackend(script) as backend:
            endpoint = await proxy.add(backend.url, name=kind, backend_type=kind, models=["real"])
            await ModelAlias.objects.acreate(name="claude-x", targets="real")
            await proxy.refresh()
            answer = await send(proxy, {**ask(), "model": "claude-x"})
            assert answer.status == 200, answer.body
            assert backend.requests[0].json()["model"] == "real"
            assert answer.header("x-olla-model") == "claude-x"
            assert answer.header("x-olla-model-used") == "real"
            await endpoint.adelete()
            await ModelAlias.objects.all().adelete()


def test_it_makes_the_clients_key_a_bearer_token_for_chat_backends() -> None:
    headers = build_chat_headers(
        [
            (b"x-api-key", b"k"),
            (b"anthropic-version", b"2023-06-01"),
            (b"anthropic-beta", b"x"),
            (b"x-stainless-os", b"Linux"),
            (b"accept-encoding", b"gzip"),
            (b"user-agent", b"u"),
        ],
        stream=False,
    )
    assert headers == [
        (b"authorization", b"Bearer k"),
        (b"user-agent", b"u"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"identity"),
    ]


async def test_it_forwards_credentials_only_where_the_endpoint_takes_them(proxy: Proxy) -> None:
    keys = [("x-api-key", "secret-one"), ("anthropic-version", "2023-06-01")]
    for kind, seen in (("openai-compatible", "Bearer secret-one"), ("vllm", None), ("sglang", None)):
        script = {"/v1/messages": native_reply(), "/v1/chat/completions": json_reply(completion())}
        async with ScriptedBackend(script) as backend:
            endpoint = await proxy.add(backend.url, name=kind, backend_type=kind)
            await send(proxy, headers=keys)
            request = backend.requests[0]
            assert request.header("authorization") == seen
            assert request.header("x-api-key") is None
            assert request.header("anthropic-version") == ("2023-06-01" if kind == "vllm" else None)
            await endpoint.adelete()


async def test_it_reads_a_compressed_request_and_a_compressed_answer(proxy: Proxy) -> None:
    body = gzip.compress(json.dumps(ask()).encode())
    async with ScriptedBackend(gzip_reply(json.dumps(completion()).encode())) as backend:
        await proxy.add(backend.url)
        answer = await proxy.call("POST", MESSAGES, body, [("content-encoding", "gzip")])
        assert answer.json()["content"][0]["text"] == "Hi there"
        assert backend.requests[0].json()["model"] == "m"
        assert backend.requests[0].header("accept-encoding") == "identity"
        assert backend.requests[0].header("content-encoding") is None


async def test_it_expands_a_compressed_request_that_is_passed_through_under_another_name(proxy: Proxy) -> None:
    async with ScriptedBackend(native_reply()) as backend:
        await proxy.add(backend.url, backend_type="ollama", models=["real"])
        await ModelAlias.objects.acreate(name="m", targets="real")
        await proxy.refresh()
        body = gzip.compress(json.dumps(ask()).encode())
        answer = await proxy.call("POST", MESSAGES, body, [("content-encoding", "gzip")])
        assert answer.status == 200, answer.body
        assert backend.requests[0].json() == {**ask(), "model": "real"}
        assert backend.requests[0].header("content-encoding") is None


async def test_it_warns_of_what_the_backend_will_not_see(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(completion())) as backend:
        await proxy.add(backend.url, backend_type="openai")
        answer = await send(proxy, ask(top_k=3, container="c"))
        assert answer.header("x-olla-translation-warnings") == "top_k, container"


async def test_it_marks_estimated_usage(proxy: Proxy) -> None:
    whole = completion()
    del whole["usage"]
    async with ScriptedBackend(json_reply(whole)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
        assert answer.header("x-olla-usage") == "estimated"


async def test_it_keeps_rate_limit_headers_of_a_chat_backend(proxy: Proxy) -> None:
    kept = [(b"x-ratelimit-remaining-requests", b"7"), (b"openai-version", b"1")]
    async with ScriptedBackend(json_reply(completion(), headers=kept)) as backend:
        await proxy.add(backend.url)
        answer = await send(proxy)
        assert answer.header("x-ratelimit-remaining-requests") == "7"
        assert answer.header("openai-version") is None
        assert answer.header("request-id") == answer.header("x-olla-request-id")


async def test_it_sends_an_endpoint_what_another_cannot_take(proxy: Proxy) -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    fields = {**ask(), "messages": [{"role": "user", "content": [pdf, {"type": "text", "text": "?"}]}]}
    async with ScriptedBackend(native_reply()) as native, ScriptedBackend(json_reply(completion())) as chat:
        await proxy.add(chat.url, name="a", backend_type="sglang")
        lonely = await send(proxy, fields)
        assert lonely.status == 400
        assert lonely.json()["error"]["type"] == "invalid_request_error"
        assert "document" in lonely.json()["error"]["message"] or "PDF" in lonely.json()["error"]["message"]
        await proxy.add(native.url, name="b", backend_type="omlx")
        for _ in range(2):
            answer = await send(proxy, fields)
            assert answer.status == 200
            assert answer.header("x-olla-endpoint") == "b"
        assert not chat.requests
    await proxy.settled()


async def test_it_clamps_max_tokens_when_asked_to(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply(completion())) as backend:
        await proxy.add(backend.url)
        await DiscoveredModel.objects.aupdate(context_length=1000)
        await proxy.refresh()
        await send(proxy, ask(max_tokens=32000))
        with override_settings(OLLA_TRANSLATORS_ANTHROPIC_CLAMP_MAX_TOKENS=True):
            await send(proxy, ask(max_tokens=32000))
        first, second = (each.json()["max_tokens"] for each in backend.requests)
        assert first == 32000
        assert 900 < second < 1000


async def test_it_refuses_a_message_over_the_limit(proxy: Proxy) -> None:
    with override_settings(OLLA_TRANSLATORS_ANTHROPIC_MAX_MESSAGE_SIZE=200):
        answer = await send(proxy, ask("x" * 200))
    assert answer.status == 413
    assert answer.json()["error"]["type"] == "request_too_large"


@pytest.mark.parametrize(
    "change",
    [{"model": ""}, {"messages": []}, {"max_tokens": None}, {"temperature": 3}, {"messages": "x"}, {"model": 3}],
)
async def test_it_refuses_what_the_real_api_refuses(proxy: Proxy, change: dict[str, Any]) -> None:
    for kind in ("ollama", "openai"):
        async with ScriptedBackend() as backend:
            endpoint = await proxy.add(backend.url, name=kind, backend_type=kind)
            answer = await send(proxy, {**ask(), **change})
            assert answer.status == 400
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert answer.header("request-id") == answer.json()["request_id"]
            assert not backend.requests
            await endpoint.adelete()


async def test_it_answers_an_unknown_model_in_the_envelope_with_the_decision(proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:9", models=["other"])
    answer = await send(proxy)
    assert answer.status == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    assert answer.header("x-olla-routing-decision") == "rejected"
    assert "/olla/anthropic/v1/models" in answer.json()["error"]["message"]


async def test_it_lists_models_in_pages(proxy: Proxy) -> None:
    await proxy.add("http://127.0.0.1:9", models=[f"m{number}" for number in range(5)])
    first = (await proxy.call("GET", "/olla/anthropic/v1/models", query=b"limit=2")).json()
    assert [each["id"] for each in first["data"]] == ["m0", "m1"]
    assert first["has_more"]
    assert (first["first_id"], first["last_id"]) == ("m0", "m1")
    second = (await proxy.call("GET", "/olla/anthropic/models", query=b"limit=3&after_id=m1")).json()
    assert [each["id"] for each in second["data"]] == ["m2", "m3", "m4"]
    assert not second["has_more"]
    back = (await proxy.call("GET", "/olla/anthropic/v1/models", query=b"limit=2&before_id=m3")).json()
    assert [each["id"] for each in back["data"]] == ["m1", "m2"]
    assert back["has_more"]
    one = await proxy.call("GET", "/olla/anthropic/v1/models/M4")
    assert one.json()["type"] == "model"
    assert one.json()["created_at"] == "1970-01-01T00:00:00Z"
    assert (await proxy.call("GET", "/olla/anthropic/v1/models/nobody")).status == 404
    assert (await proxy.call("GET", "/olla/anthropic/v1/models", query=b"limit=0")).status == 400


async def test_it_lists_nothing_without_endpoints(proxy: Proxy) -> None:
    empty = (await proxy.call("GET", "/olla/anthropic/v1/models")).json()
    assert empty == {"data": [], "has_more": False, "first_id": None, "last_id": None}


COUNT = "/olla/anthropic/v1/messages/count_tokens"
TALK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "tools": []}


@pytest.mark.parametrize(
    ("kind", "script", "source", "paths"),
    [
        ("vllm", {"/tokenize": json_reply({"count": 42, "tokens": []})}, "tokenize", ["/tokenize"]),
        (
            "llamacpp",
            {"/apply-template": json_reply({"prompt": "<s>Hello"}), "/tokenize": json_reply({"tokens": [1] * 42})},
            "tokenize",
            ["/apply-template", "/tokenize"],
        ),
        (
            "omlx",
            {"/v1/messages/count_tokens": json_reply({"input_tokens": 42})},
            "native",
            ["/v1/messages/count_tokens"],
        ),
        (
            "docker-model-runner",
            {"/anthropic/v1/messages/count_tokens": json_reply({"input_tokens": 42})},
            "native",
            ["/anthropic/v1/messages/count_tokens"],
        ),
    ],
)
async def test_it_counts_with_the_backends_own_tokenizer(
    proxy: Proxy, kind: str, script: Any, source: str, paths: list[str]
) -> None:
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        answer = await proxy.call("POST", COUNT, TALK)
        assert answer.json() == {"input_tokens": 42}
        assert answer.header("x-olla-token-count") == source
        assert answer.header("x-olla-endpoint") == "one"
        assert [each.path for each in backend.requests] == paths
    await proxy.settled()
    assert live.anthropic.totals.requests == 0


@pytest.mark.parametrize(
    "script", [Reply(500), Reply(404), json_reply({"no": "count"}), Reply(before=30), Reply(body=b"{")]
)
@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "omlx"])
async def test_it_estimates_when_the_tokenizer_fails_or_is_slow(proxy: Proxy, kind: str, script: Any) -> None:
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        with override_settings(OLLA_TRANSLATORS_ANTHROPIC_COUNT_TIMEOUT=0.2):
            answer = await proxy.call("POST", COUNT, TALK)
        assert answer.json() == {"input_tokens": 6}
        assert answer.header("x-olla-token-count") == "estimate"
    await proxy.settled()


async def test_it_estimates_for_kinds_without_tokenizer_and_for_unknown_models(proxy: Proxy) -> None:
    async with ScriptedBackend() as backend:
        await proxy.add(backend.url)
        for model in ("m", "nobody"):
            answer = await proxy.call("POST", COUNT, {**TALK, "model": model})
            assert answer.json() == {"input_tokens": 6}
            assert answer.header("x-olla-token-count") == "estimate"
        assert not backend.requests


@pytest.mark.parametrize("kind", ["openai-compatible", "lm-studio"])
async def test_it_counts_by_what_answers_have_taught(proxy: Proxy, kind: str) -> None:
    text = "word " * 400
    usage = {"prompt_tokens": 1004, "completion_tokens": 1, "total_tokens": 1005}
    native = json_reply(message(usage={**message()["usage"], "input_tokens": 1004}))
    script = {"/v1/messages": native, "/v1/chat/completions": json_reply({**completion(), "usage": usage})}
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, backend_type=kind)
        before = await proxy.call("POST", f"{MESSAGES}/count_tokens", ask(text))
        assert (before.json()["input_tokens"], before.header("x-olla-token-count")) == (504, "estimate")
        for _ in range(6):
            assert (await send(proxy, ask(text))).status == 200
        after = await proxy.call("POST", f"{MESSAGES}/count_tokens", ask(text))
        assert after.header("x-olla-token-count") == "learned"
        assert 950 < after.json()["input_tokens"] < 1010


async def test_it_counts_on_after_an_answer_with_an_absurd_count(proxy: Proxy) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 10**400}
    async with ScriptedBackend(json_reply({**completion(), "usage": usage})) as backend:
        await proxy.add(backend.url)
        assert (await send(proxy, ask())).status == 200
        assert (await proxy.call("GET", "/internal/metrics", client="127.0.0.1")).status == 200
        tokens = live.tallies.models["m"]
    assert (tokens.requests, tokens.input_tokens) == (1, 5)
    assert tokens.output_tokens < 100


async def test_it_learns_nothing_from_failures_and_estimates(proxy: Proxy) -> None:
    silent = {name: value for name, value in completion().items() if name != "usage"}
    async with ScriptedBackend([json_reply(silent), json_reply({"error": {"message": "no"}}, 400)]) as backend:
        await proxy.add(backend.url)
        for _ in range(2):
            await send(proxy, ask("word " * 400))
        assert live.anthropic.tokens.ratios == {}


async def test_it_remembers_a_tokenizers_number(proxy: Proxy) -> None:
    async with ScriptedBackend(json_reply({"count": 77})) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        for fields in (ask(), ask(), ask("another")):
            answer = await proxy.call("POST", f"{MESSAGES}/count_tokens", fields)
            assert answer.json() == {"input_tokens": 77}
            assert answer.header("x-olla-token-count") == "tokenize"
            assert answer.header("x-olla-endpoint") == "one"
        assert len(backend.requests) == 2


def test_it_bounds_what_it_remembers_of_tokens() -> None:
    memory = TokenMemory()
    for number in range(MOST_COUNTS + 5):
        memory.keep(b"%d" % number, (number, CountSource.NATIVE), 0.0)
        memory.expect(str(number), "m", PromptSize(2000))
    assert memory.recall(b"4", 1.0) is None
    assert memory.recall(b"5", 1.0) == (5, CountSource.NATIVE)
    assert memory.recall(b"5", KEEP_SECONDS) is None
    assert memory.waiting == MOST_WAITING


def test_it_measures_few_of_the_requests_it_only_passes_on() -> None:
    memory = TokenMemory()
    assert sum(memory.wants("m", 1000) for _ in range(160)) == 8 + 9
    assert not memory.wants("n", MOST_MEASURED + 1)


async def test_it_refuses_to_count_what_nobody_can_read(proxy: Proxy) -> None:
    answer = await proxy.call("POST", COUNT, {**TALK, "messages": [{"role": "user", "content": 3}]})
    assert answer.status == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br"])
async def test_it_names_a_compression_it_cannot_read(proxy: Proxy, coding: str) -> None:
    answer = await proxy.call("POST", MESSAGES, b"\x1b\x07\x00", [("content-encoding", coding)])
    assert answer.status == 415
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert f"compressed with {coding} " in error["message"]
    assert "gzip" in error["message"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_it_refuses_a_broken_compression(proxy: Proxy, coding: str) -> None:
    answer = await proxy.call("POST", MESSAGES, b"nonsense", [("content-encoding", coding)])
    assert answer.status == 400


async def test_it_keeps_a_native_request_id(proxy: Proxy) -> None:
    async with ScriptedBackend(native_reply(headers=[(b"request-id", b"req_theirs")])) as backend:
        await proxy.add(backend.url, backend_type="vllm")
        answer = await send(proxy)
    assert answer.header("request-id") == "req_theirs"
    assert answer.header("x-olla-request-id") != "req_theirs"


async def test_it_counts_what_needs_neither_model_nor_messages(proxy: Proxy) -> None:
    assert (await proxy.call("POST", COUNT, {"messages": []})).json() == {"input_tokens": 1}
    assert (await proxy.call("POST", COUNT, b"[]")).status == 400


async def test_a_warm_message_makes_no_thread_hop_and_no_query(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = {"/v1/messages": native_reply(), "/v1/chat/completions": chat_stream()}
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url, name="n", models=["n"], backend_type="vllm")
        await proxy.add(backend.url, name="c", models=["c"])
        requests = [{**ask(stream=model == "c"), "model": model} for model in ("n", "c", "unknown")]
        for each in requests:
            await send(proxy, each)

        def forbidden(*_: Any, **__: Any) -> Any:
            raise AssertionError("a query or a thread")

        monkeypatch.setattr(ThreadPoolExecutor, "submit", forbidden)
        with connections["default"].execute_wrapper(forbidden):
            answers = [await send(proxy, each) for each in requests]
            listed = await proxy.call("GET", "/olla/anthropic/v1/models")
        assert [each.status for each in answers] == [200, 200, 404]
        assert listed.status == 200


async def test_an_open_stream_holds_no_request_body(proxy: Proxy) -> None:
    gate = asyncio.Event()
    for kind, reply in (("vllm", native_stream(events()[0], gate, *events()[1:])), ("openai", held_chat(gate))):
        async with ScriptedBackend(reply) as backend:
            await proxy.add(backend.url, name=kind, models=[kind], backend_type=kind)
            gate.clear()
            exchange = proxy.open("POST", MESSAGES, {**ask("x" * 100_000, stream=True), "model": kind})
            await exchange.wait_bytes(50)
            gc.collect()
            calls = [each for each in gc.get_objects() if type(each) is MessagesCall]
            gate.set()
            await exchange.done()
        assert calls == []
    await proxy.settled()


def held_chat(gate: asyncio.Event) -> Reply:
    lines: list[Any] = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in CHUNKS]
    return Reply(headers=[(b"Content-Type", b"text/event-stream")], chunks=[lines[0], gate, *lines[1:]])
