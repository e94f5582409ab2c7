"""Fleets to look at: three endpoints with traffic, a crowd with long names, one whose every text is an attack.

A fleet is a list of rows for `desk.fill_fleet`; `traffic` sends real requests through a server to scripted
backends.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from tests.fakes import Conn, Cut, Reply, ScriptedBackend, json_reply, refused_origin

Rows = list[dict[str, Any]]

THREE: Rows = [
    {
        "name": "gpu-1", "url": "http://10.0.0.11:11434", "backend_type": "ollama", "priority": 100,
        "models": ["llama3.3:70b", "qwen3:32b", "nomic-embed-text:latest"],
        "health": {"status": "healthy", "latency_ms": 3.2, "for": 90_000},
    },
    {
        "name": "rack-7 vLLM", "url": "http://10.0.0.17:8000", "backend_type": "auto", "priority": 80,
        "models": ["Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"],
        "health": {"status": "busy", "latency_ms": 812.4, "detected_type": "vllm", "for": 240},
    },
    {
        "name": "laptop", "url": "http://192.168.1.40:1234", "backend_type": "lm-studio", "priority": 10,
        "health": {"status": "offline", "last_error": "Connection refused by 192.168.1.40 port 1234.", "for": 15},
    },
]  # fmt: skip
STATUSES = ["healthy", "healthy", "healthy", "busy", "warming", "offline", "unhealthy", "config_error", "unknown"]
GB = 1024**3


def fleet(rows: Rows) -> Rows:
    """A copy to write: `fill_fleet` takes rows apart."""
    return copy.deepcopy(rows)


def crowd(size: int = 40, models: int | None = None) -> Rows:
    """Endpoints with long names, many models, every status, hostile text.

    With `models` each endpoint has as many of its own and five that all have, else a few of long names.
    """
    return [_one_of_many(number, models) for number in range(size)]


def _one_of_many(number: int, models: int | None) -> dict[str, Any]:
    status = STATUSES[number % len(STATUSES)]
    long = "-with-a-very-long-name-that-somebody-thought-was-a-good-idea" if number % 3 == 0 else ""
    names = [f"organisation/model-{i}-70b-instruct-q4_K_M-{'x' * (i % 40)}" for i in range(number % 40)]
    return {
        "name": f"inference-node-{number:02}{long}",
        "url": f"https://node-{number:02}.datacentre-frankfurt-3.inference.example.internal:8443/base",
        "backend_type": ["ollama", "vllm", "sglang", "llamacpp"][number % 4],
        "state": ["active", "active", "draining", "disabled"][number % 4 if number % 5 == 0 else 0],
        "priority": 1000 - number,
        "models": names if models is None else _catalogue(number, models),
        "health": {
            "status": status,
            "latency_ms": 1234.5 * number if status == "healthy" else None,
            "server_version": f"0.{number}.1-rc2+build.{number}",
            "last_error": f"It failed <script>alert({number})</script> {'long ' * 60}"
            if status in {"offline", "unhealthy", "config_error"}
            else "",
        },
    }


def _catalogue(number: int, own: int) -> Rows:
    family = ["llama", "qwen3", "mistral", "deepseek-r1-distill", "gemma3"][number % 5]
    shared = [
        _model(
            f"shared-{i}-{8 * (i + 1)}b-instruct-q4_K_M", "llama", digest=f"{(number % 3) if i < 2 else i}" * 64
        )
        for i in range(5)
    ]
    mine = [
        _model(
            f"organisation-{number}/{family}-{i}-70b-instruct-awq-{'x' * (i * 4)}",
            family,
            state="loaded" if i == 0 else "",
        )
        for i in range(own)
    ]
    return shared + mine


def _model(name: str, family: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name, "family": family, "parameter_size": "70.6B", "quantization": "Q4_K_M",
        "context_length": 131072, "size_bytes": 42 * GB, "capabilities": ["chat", "tools", "vision"], **facts,
    }  # fmt: skip


# -- three endpoints that really answer

EMBEDDER = "nomic-embed-text:latest"
SLOW = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
SHARED = "llama3.3:70b"  # the first choice for it refuses connections
BROKEN = "qwen3:32b-broken"


def working(good: str, slow: str, dead: str) -> Rows:
    """Three endpoints: one well, one slow, one that has just died and is preferred."""
    llama = _model(SHARED, "llama", digest="a6eb4748fd29" + "0" * 52, state="loaded")
    return [
        {
            "name": "gpu-1", "url": good, "backend_type": "ollama", "priority": 100, "tags": "gpu, rack-2",
            "models": [
                llama, _model("qwen3:32b", "qwen3", size_bytes=20 * GB), _model(BROKEN, "qwen3"),
                {"name": EMBEDDER, "family": "nomic-bert", "parameter_size": "137M", "quantization": "F16",
                 "context_length": 2048, "size_bytes": GB // 4, "capabilities": ["embeddings"]},
            ],
            "health": {"status": "healthy", "latency_ms": 3.2, "server_version": "0.12.3", "for": 90_000},
        },
        {
            "name": "rack-7 vLLM", "url": slow, "backend_type": "auto", "priority": 80, "max_concurrent": 32,
            "models": [{"name": SLOW, "context_length": 262144}],
            "health": {"status": "busy", "latency_ms": 812.4, "detected_type": "vllm",
                       "server_version": "0.11.0", "for": 240},
        },
        {
            "name": "laptop", "url": dead, "backend_type": "lm-studio", "priority": 300,
            "models": [{**llama, "digest": "b" * 64, "state": ""}, "phi-4"],
            "health": {"status": "healthy", "latency_ms": 15.0, "for": 4000},
        },
    ]  # fmt: skip


async def _answer(conn: Conn) -> None:
    while (request := await conn.request()) is not None:
        asked = json.loads(request.body or b"{}")
        await conn.play(_reply_to(asked), request)


def _reply_to(asked: dict[str, Any]) -> Reply | Cut:
    model = asked.get("model", "")
    usage = {"prompt_tokens": 1284, "completion_tokens": 96, "total_tokens": 1380}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": model}
    if BROKEN in model:
        return Cut(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\ndata: {}\n\n"
        )
    if asked.get("user") == "fails":
        return json_reply({"error": {"message": "CUDA out of memory", "type": "server_error"}}, status=500)
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        return json_reply({**head, "choices": [choice], "usage": usage})
    words: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("Hello", " dear", " team")
    ]
    pieces: list[Any] = [0.12]
    for word in [*words, {"choices": [], "usage": usage}]:
        pieces += [
            b"data: %b\n\n" % json.dumps({**head, "object": "chat.completion.chunk", **word}).encode(),
            0.05,
        ]
    return Reply(headers=[(b"Content-Type", b"text/event-stream")], chunks=[*pieces, b"data: [DONE]\n\n"])


@asynccontextmanager
async def backends() -> AsyncIterator[Rows]:
    """The rows of three endpoints, whose backends answer while this is open."""
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(ScriptedBackend(_answer))
        slow = await stack.enter_async_context(ScriptedBackend(_answer))
        with refused_origin() as dead:
            yield working(good.url, slow.url, f"http://{dead.host}:{dead.port}")


async def traffic(url: str) -> list[str]:
    """One request of each outcome there is, and some more; their ids, oldest first."""
    path = f"{url}/olla/openai/v1/chat/completions"
    said = [{"role": "user", "content": "Say hello."}]
    asks: list[dict[str, Any]] = [
        {"model": SHARED, "stream": True},  # its first choice refuses
        {"model": SLOW, "stream": True}, {"model": "qwen3:32b"}, {"model": "gpt-nowhere"}, {"model": BROKEN},
        {"model": "qwen3:32b", "user": "fails"}, {"model": "qwen3:32b", "stream": True}, {"model": SHARED},
    ]  # fmt: skip
    ids = []
    async with httpx.AsyncClient(timeout=30) as client:
        for ask in asks:
            try:
                answer = await client.post(path, json={**ask, "messages": said})
                ids.append(answer.headers["X-Olla-Request-ID"])
            except httpx.TransportError:
                continue  # the broken one
        await client.get(f"{url}/olla/ollama/api/tags")
        async with client.stream("POST", path, json={"model": SLOW, "stream": True, "messages": said}) as left:
            ids.append(left.headers["X-Olla-Request-ID"])
    await asyncio.sleep(0)
    return ids


# -- texts that try to get out of their place

EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\u202egnp.exe\u202d\u2066'
LONG = "W" * 10_000


def hostile(url: str) -> Rows:
    """Endpoints whose names, addresses, tags, models and errors are attacks or very long."""
    names = [f"{EVIL[:90]}", "N" * 100]
    return [
        {
            "name": name[:100], "url": url, "backend_type": "openai-compatible", "tags": "W" * 80, "priority": 50,
            "models": [
                {"name": f"{EVIL}{number}", "family": EVIL[:100], "quantization": EVIL[:40], "owner": EVIL,
                 "parameter_size": EVIL[:40], "digest": EVIL, "capabilities": [EVIL], "state": EVIL[:40]},
                {"name": f"{number}" + LONG[:499], "family": LONG[:100], "capabilities": [LONG[:500]]},
                {"name": "same", "digest": EVIL + str(number)}, "plain",
            ],
            "health": {"status": ["healthy", "offline"][number], "last_error": EVIL + LONG,
                       "server_version": EVIL[:40]},
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
