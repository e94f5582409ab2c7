"""Two scripted backends with one mind: the same words, said as Anthropic's API and as OpenAI chat.

What the model does is decided by the last thing the user said: `weather in A and B` calls a tool for each, `work
for N rounds` calls two tools N times, `think` thinks first, `fail with N` answers that status, `count slowly`
never ends, `use TOOL with {...}` calls that tool once; anything else is repeated with the number of pictures seen.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.e2e.conftest import list_models, wait_until
from tests.e2e.seed import seed_database
from tests.fakes import Conn, Reply, ScriptedBackend, json_reply, sse_reply
from tests.live import LiveServer

SSE = (b"Content-Type", b"text/event-stream")
USAGE = (21, 7)
_CALL = re.compile(r"use (\w+) with (\{[^}]*\})")


@dataclass
class Plan:
    """What the model will say."""

    thinking: str = ""
    text: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    endless: bool = False

    @property
    def reason(self) -> str:
        """Why it stops, in Anthropic's words."""
        return "tool_use" if self.calls else "end_turn"


def make_plan(prompt: str, rounds: int, pictures: int, tools: list[str]) -> Plan:
    """Decide by the prompt; `rounds` of tool results have come in so far."""
    found = re.search(r"work for (\d+) rounds", prompt)
    if found and rounds < int(found[1]):
        calls = [(f"call_{rounds}_{each}", tools[each], {"round": rounds, "part": each}) for each in range(2)]
        return Plan(text=f"Round {rounds}.", calls=tuple(calls))
    call = _CALL.search(prompt)
    if call and call[1] in tools and not rounds:
        given = json.loads(call[2].replace('\\"', '"'))  # some clients quote what the user said
        return Plan(calls=((f"call_{call[1]}", call[1], given),))
    cities = re.search(r"weather in (\w+)(?: and (\w+))?", prompt)
    if cities and tools and not rounds:
        named = [city for city in cities.groups() if city]
        return Plan(calls=tuple((f"call_{city}", tools[0], {"city": city}) for city in named))
    if "count slowly" in prompt:
        return Plan(text="one ", endless=True)
    thinking = "Let me see. It is simple." if "think" in prompt else ""
    return Plan(thinking, f"You said: {prompt[:60]} ({pictures} pictures, {rounds} rounds)")


def parse_failure(prompt: str) -> int:
    """The status the prompt asks for, 0 for none."""
    found = re.search(r"fail with (\d+)", prompt)
    return int(found[1]) if found else 0


# -- as Anthropic's API


def read_native(body: dict[str, Any]) -> tuple[str, int, int, list[str]]:
    """Prompt, rounds, pictures and tools of a Messages request."""
    prompt, rounds, pictures = "", 0, 0
    for turn in body["messages"]:
        blocks = turn["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        rounds += any(block["type"] == "tool_result" for block in blocks)
        pictures += sum(block["type"] == "image" for block in blocks)
        said = [block["text"] for block in blocks if block["type"] == "text"]
        if turn["role"] == "user" and said:
            prompt = said[-1]
    return prompt, rounds, pictures, [tool["name"] for tool in body.get("tools", [])]


def native_blocks(plan: Plan) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if plan.thinking:
        blocks.append({"type": "thinking", "thinking": plan.thinking, "signature": "c2lnbmVk"})
    if plan.text:
        blocks.append({"type": "text", "text": plan.text})
    blocks += [{"type": "tool_use", "id": key, "name": name, "input": given} for key, name, given in plan.calls]
    return blocks


def native_message(plan: Plan, model: str) -> dict[str, Any]:
    usage = {
        "input_tokens": USAGE[0], "output_tokens": USAGE[1],
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
    }  # fmt: skip
    return {
        "id": "msg_01AbCdEfGhJkMnPqRsTuVwXy", "type": "message", "role": "assistant", "model": model,
        "content": native_blocks(plan), "stop_reason": plan.reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def native_events(plan: Plan, model: str) -> list[bytes]:
    whole = native_message(plan, model)
    start = {**whole, "content": [], "stop_reason": None}
    values: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        empty, deltas = _split(block)
        values.append({"type": "content_block_start", "index": index, "content_block": empty})
        values += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        values.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": plan.reason, "stop_sequence": None}
    values += [{"type": "message_delta", "delta": delta, "usage": whole["usage"]}, {"type": "message_stop"}]
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in values]


def _split(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        halves = block["text"][:5], block["text"][5:]
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": half} for half in halves]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    text = json.dumps(block["input"])
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in (text[:4], text[4:])]
    return {**block, "input": {}}, pieces


def answer_natively(body: dict[str, Any]) -> Reply | Plan:
    prompt, rounds, pictures, tools = read_native(body)
    status = parse_failure(prompt)
    if status:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "api_error"
        error = {"type": "error", "error": {"type": kind, "message": "as you wished"}}
        return json_reply(error, status, headers=[(b"retry-after-ms", b"5")])
    plan = make_plan(prompt, rounds, pictures, tools)
    if plan.endless:
        return plan
    if not body.get("stream"):
        return json_reply(native_message(plan, body["model"]))
    return Reply(headers=[SSE], chunks=native_events(plan, body["model"]))


# -- as OpenAI chat


def read_chat(body: dict[str, Any]) -> tuple[str, int, int, list[str]]:
    """The same of a chat completion. Raises AssertionError for what a strict chat template refuses."""
    prompt, rounds, pictures = "", 0, 0
    owed: list[str] = []
    for number, turn in enumerate(body["messages"]):
        role, content = turn["role"], turn.get("content")
        assert role in ("user", "assistant", "tool") or number == 0, f"{role} at {number}"
        if role == "tool":
            assert turn["tool_call_id"] in owed
            owed.remove(turn["tool_call_id"])
            rounds += not owed
            continue
        assert not owed, f"{owed} unanswered at {number}"
        owed = [each["id"] for each in turn.get("tool_calls") or ()]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        pictures += sum(part["type"] == "image_url" for part in parts)
        said = [part["text"] for part in parts if part["type"] == "text" and part["text"]]
        if role == "user" and said:
            # Clients that add to the conversation do so in paragraphs of their own.
            paragraphs = said[-1].split("\n\n")
            prompt = next((each for each in paragraphs if _CALL.search(each)), paragraphs[-1])
    return prompt, rounds, pictures, [tool["function"]["name"] for tool in body.get("tools", [])]


def chat_tools(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"index": index, "id": key, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        for index, (key, name, given) in enumerate(plan.calls)
    ]


def chat_usage() -> dict[str, Any]:
    return {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}


def chat_whole(plan: Plan) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": plan.text or None}
    if plan.thinking:
        answer["reasoning_content"] = plan.thinking
    if plan.calls:
        answer["tool_calls"] = chat_tools(plan)
    finish = "tool_calls" if plan.calls else "stop"
    choice = {"index": 0, "message": answer, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "model": "x", "choices": [choice], "usage": chat_usage()}


def chat_chunks(plan: Plan) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if plan.thinking:
        deltas += [{"reasoning_content": plan.thinking[:5]}, {"reasoning_content": plan.thinking[5:]}]
    if plan.text:
        deltas += [{"content": plan.text[:5]}, {"content": plan.text[5:]}]
    # Arguments of parallel calls in turns, as some servers send them.
    for call in chat_tools(plan):
        deltas.append({"tool_calls": [{**call, "function": {**call["function"], "arguments": ""}}]})
    for part in range(2):
        for call in chat_tools(plan):
            text = call["function"]["arguments"]
            text = text[4:] if part else text[:4]
            deltas.append({"tool_calls": [{"index": call["index"], "function": {"arguments": text}}]})
    finish = "tool_calls" if plan.calls else "stop"
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return [*chunks, {"id": "c", "choices": [], "usage": chat_usage()}]


def answer_as_chat(body: dict[str, Any]) -> Reply | Plan:
    try:
        prompt, rounds, pictures, tools = read_chat(body)
    except AssertionError as error:
        return json_reply({"error": {"message": f"template: {error}"}}, 400)
    status = parse_failure(prompt)
    if status:
        return json_reply({"error": {"message": "as you wished"}}, status, headers=[(b"retry-after-ms", b"5")])
    plan = make_plan(prompt, rounds, pictures, tools)
    if plan.endless:
        return plan
    return sse_reply(chat_chunks(plan)) if body.get("stream") else json_reply(chat_whole(plan))


# -- on a socket


# Each kind's own way to count a prompt's tokens: 42 always.
_COUNTS: dict[str, dict[str, Any]] = {
    "/tokenize": {"count": 42, "max_model_len": 4096, "tokens": [1] * 42},
    "/apply-template": {"prompt": "<user>hello"},
    "/v1/messages/count_tokens": {"input_tokens": 42},
    "/anthropic/v1/messages/count_tokens": {"input_tokens": 42},
}


async def serve(conn: Conn) -> None:
    """Answer every request of a connection in the API of its path."""
    while (request := await conn.request()) is not None:
        counted = _COUNTS.get(request.path)
        if counted is not None:
            await conn.play(json_reply(counted), request)
            continue
        native = request.path.endswith("/v1/messages")
        answer = (answer_natively if native else answer_as_chat)(request.json())
        if isinstance(answer, Reply):
            await conn.play(answer, request)
        else:
            await _never_end(conn, native)
            return


async def _never_end(conn: Conn, native: bool) -> None:
    plan = Plan(text="one two three")
    pieces = native_events(plan, "m")[:3] if native else [_line(each) for each in chat_chunks(plan)[:2]]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    conn.write(head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
    again = native_events(plan, "m")[2] if native else _line(chat_chunks(plan)[1])
    while not conn.gone.is_set():
        conn.write(b"%x\r\n%b\r\n" % (len(again), again))
        await asyncio.sleep(0.05)


def _line(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@contextmanager
def serve_models(data_dir: Path, rows: list[dict[str, Any]]) -> Iterator[LiveServer]:
    """The product over these endpoints, once it lists what they have."""
    seed_database(data_dir, rows)
    with LiveServer(data_dir=data_dir) as server:
        wait_until(lambda: {model for row in rows for model in row["models"]} <= list_models(server.url))
        yield server


class ScriptedThread:
    """A scripted backend on an event loop of its own thread, for blocking clients."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self.backend = backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self.backend.__aenter__())

    def stop(self) -> None:
        """End every connection and listen no more."""
        self._run(self.backend.stop())

    def close(self) -> None:
        """End every connection and the thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)
