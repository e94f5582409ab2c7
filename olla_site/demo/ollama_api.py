"""The Ollama dialect: the native paths, shapes and errors of Ollama's API documentation."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from olla_site.demo import media
from olla_site.demo.replies import Ask, Reply, Tool, choose_reply
from olla_site.demo.state import DemoState, RefusalError, read_json, read_list, read_object
from olla_site.demo.wire import Answer, Request
from olla_site.demo.words import count_tokens

Handler = Callable[[DemoState, Request, Answer], Awaitable[None]]

VERSION = "0.0.0-demo"
MODIFIED = "2026-01-01T00:00:00Z"
TOKEN_NS = 10_000_000
CONTEXT_LENGTH = 8192
_PARAMETERS = re.compile(r":(\d+(?:\.\d+)?)b\b", re.IGNORECASE)


def build_error(refusal: RefusalError) -> dict[str, Any]:
    """Ollama's error: a string."""
    if refusal.code == "model_not_found":
        return {"error": f"model '{refusal.message}' not found"}
    return {"error": refusal.message}


async def greet(_: DemoState, __: Request, answer: Answer) -> None:
    """GET / answers what Ollama's own health probe looks for."""
    await answer.send(200, b"Ollama is running", "text/plain; charset=utf-8")


async def version(_: DemoState, __: Request, answer: Answer) -> None:
    """GET /api/version"""
    await answer.send_json(200, {"version": VERSION})


async def list_models(state: DemoState, _: Request, answer: Answer) -> None:
    """GET /api/tags"""
    await answer.send_json(200, {"models": [_build_model(name) for name in state.models]})


async def list_loaded(state: DemoState, _: Request, answer: Answer) -> None:
    """GET /api/ps: the models used in the last five minutes."""
    now = time.time()
    rows = []
    for name, used in state.loaded.items():
        expires = datetime.fromtimestamp(used, UTC) + timedelta(minutes=5)
        if expires.timestamp() > now:
            row = _build_model(name)
            extra = {"expires_at": expires.isoformat(), "size_vram": row["size"], "context_length": CONTEXT_LENGTH}
            rows.append({**row, **extra})
    await answer.send_json(200, {"models": rows})


async def show(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /api/show"""
    body = read_json(request)
    model = state.find_model(body.get("model") or body.get("name"))
    details = _build_details(model)
    info = {
        "general.architecture": details["family"],
        "general.name": f"{model} (demo)",
        f"{details['family']}.context_length": CONTEXT_LENGTH,
    }
    capabilities = ["embedding"] if "embed" in model else ["completion", "tools"]
    report = {
        "modelfile": f"# demo backend, no real model\nFROM {model}\n",
        "parameters": f"num_ctx {CONTEXT_LENGTH}",
        "template": "{{ .Prompt }}",
        "license": "Demo: there is no model and nothing to license.",
        "details": details,
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": MODIFIED,
    }
    await answer.send_json(200, report)


async def chat(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /api/chat: newline-delimited JSON unless `stream` is false."""
    body = read_json(request)
    messages = read_list(body.get("messages"))
    ask = _parse_ask(body, messages, state)
    if not messages:
        await answer.send_json(200, _loaded(ask.model, {"message": {"role": "assistant", "content": ""}}))
        return
    await _reply(state, answer, body, ask, _chat_part)


async def generate(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /api/generate: the same for one prompt; without a prompt it only loads the model."""
    body = read_json(request)
    prompt = str(body.get("prompt") or "")
    ask = _parse_ask(body, [{"role": "user", "content": prompt}], state)
    if not prompt:
        await answer.send_json(200, _loaded(ask.model, {"response": ""}))
        return
    await _reply(state, answer, body, ask, _generate_part)


async def embed(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /api/embed"""
    body = read_json(request)
    model = state.find_model(body.get("model"))
    given = body.get("input", "")
    inputs = [str(each) for each in given] if isinstance(given, list) else [str(given)]
    vectors = [media.build_vector(text, int(body.get("dimensions") or media.DIMENSIONS)) for text in inputs]
    tokens = count_tokens(inputs)
    timing = {"total_duration": TOKEN_NS * tokens, "load_duration": 0, "prompt_eval_count": tokens}
    await answer.send_json(200, {"model": model, "embeddings": vectors, **timing})


async def embed_one(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /api/embeddings, the older form."""
    body = read_json(request)
    state.find_model(body.get("model"))
    await answer.send_json(200, {"embedding": media.build_vector(str(body.get("prompt") or ""))})


def _parse_ask(body: dict[str, Any], messages: list[Any], state: DemoState) -> Ask:
    model = state.find_model(body.get("model"))
    state.loaded[model] = time.time()
    options = read_object(body.get("options"))
    stop = options.get("stop")
    limit = options.get("num_predict")
    return Ask(
        model=model,
        messages=messages,
        tools=tuple(_parse_tool(each) for each in read_list(body.get("tools"))),
        json_mode=bool(body.get("format")),
        schema=body.get("format"),
        stop=(stop,) if isinstance(stop, str) else tuple(map(str, read_list(stop))),
        max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        seed=options.get("seed") or 0,
    )


def _parse_tool(tool: Any) -> Tool:
    fields = read_object(read_object(tool).get("function"))
    return Tool(str(fields.get("name")), str(fields.get("description") or ""), fields.get("parameters"))


Part = Callable[[str, Reply], dict[str, Any]]


def _chat_part(text: str, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reply.tool:
        message["tool_calls"] = [{"function": {"name": reply.tool, "arguments": reply.arguments}}]
    return {"message": message}


def _generate_part(text: str, _: Reply) -> dict[str, Any]:
    return {"response": text}


async def _reply(state: DemoState, answer: Answer, body: dict[str, Any], ask: Ask, part: Part) -> None:
    reply = choose_reply(ask, state.name)
    started = time.monotonic_ns()
    with state.generation("answer") as run:
        if body.get("stream") is False:
            await run.steps(len(reply.pieces))
            await answer.send_json(
                200, {**_line(ask.model), **part(reply.text, reply), **_done(ask, reply, started)}
            )
            return
        await answer.start(200, "application/x-ndjson")
        # A tool call comes whole, in one line.
        for piece in reply.pieces or [""]:
            await run.step()
            await answer.write(_encode({**_line(ask.model), **part(piece, reply), "done": False}))
    end = part("", Reply([]))
    await answer.write(_encode({**_line(ask.model), **end, **_done(ask, reply, started)}))
    await answer.finish()


def _line(model: str) -> dict[str, Any]:
    return {"model": model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _done(ask: Ask, reply: Reply, started: int) -> dict[str, Any]:
    prompt_tokens = count_tokens(ask.messages)
    made = len(reply.pieces)
    return {
        "done": True,
        "done_reason": "length" if reply.cut else "stop",
        "total_duration": time.monotonic_ns() - started + TOKEN_NS,
        "load_duration": TOKEN_NS,
        "prompt_eval_count": prompt_tokens,
        "prompt_eval_duration": TOKEN_NS * prompt_tokens,
        "eval_count": made,
        "eval_duration": TOKEN_NS * made,
    }


def _loaded(model: str, part: dict[str, Any]) -> dict[str, Any]:
    return {**_line(model), **part, "done": True, "done_reason": "load"}


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _build_details(name: str) -> dict[str, Any]:
    match = _PARAMETERS.search(name)
    family = name.removeprefix("demo-").partition(":")[0]
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": f"{match[1]}B" if match else "1B",
        "quantization_level": "Q4_K_M",
    }


def _build_model(name: str) -> dict[str, Any]:
    match = _PARAMETERS.search(name)
    size = int(float(match[1] if match else 1) * 600_000_000)
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {
        "name": name, "model": name, "modified_at": MODIFIED, "size": size, "digest": digest,
        "details": _build_details(name),
    }  # fmt: skip


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/"): greet,
    ("GET", "/api/version"): version,
    ("GET", "/api/tags"): list_models,
    ("GET", "/api/ps"): list_loaded,
    ("POST", "/api/show"): show,
    ("POST", "/api/chat"): chat,
    ("POST", "/api/generate"): generate,
    ("POST", "/api/embed"): embed,
    ("POST", "/api/embeddings"): embed_one,
}
