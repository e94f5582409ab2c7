"""The two generating paths of the OpenAI dialect: chat completions and the older completions."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from olla_site.demo.replies import ANY_TOOL, Ask, Reply, Tool, choose_reply
from olla_site.demo.state import DemoState, RefusalError, read_json, read_list, read_object
from olla_site.demo.wire import Answer, Request
from olla_site.demo.words import count_tokens

MAX_CHOICES = 8


async def chat(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/chat/completions"""
    body = read_json(request)
    ask = parse_chat(body, state)
    count = min(max(int(body.get("n") or 1), 1), MAX_CHOICES)
    replies = [choose_reply(_reseed(ask, index), state.name) for index in range(count)]
    usage = _build_usage(count_tokens(ask.messages), replies)
    frame = _frame(state, "chatcmpl", ask.model)
    legacy = bool(body.get("functions")) and not body.get("tools")
    if body.get("stream"):
        await _stream_chat(
            state, answer, body, frame, [_deltas(r, frame["id"], legacy=legacy) for r in replies], usage
        )
        return
    with state.generation("chat") as run:
        await run.steps(usage["completion_tokens"])
    choices = [
        {
            "index": index,
            "message": _build_message(reply, frame["id"], legacy=legacy),
            "logprobs": None,
            "finish_reason": _finish_reason(reply, legacy=legacy),
        }
        for index, reply in enumerate(replies)
    ]
    await answer.send_json(200, {**frame, "object": "chat.completion", "choices": choices, "usage": usage})


async def complete(state: DemoState, request: Request, answer: Answer) -> None:
    """POST /v1/completions"""
    body = read_json(request)
    prompt = body.get("prompt", "")
    prompts = [str(each) for each in prompt] if isinstance(prompt, list) else [str(prompt)]
    model = state.find_model(body.get("model"))
    replies = [choose_reply(_ask_for_text(body, state, each), state.name) for each in prompts]
    usage = _build_usage(count_tokens(prompts), replies)
    frame = {**_frame(state, "cmpl", model), "object": "text_completion"}
    if body.get("stream"):
        chunks = [_text_chunks(index, reply) for index, reply in enumerate(replies)]
        await _stream(state, answer, body, frame, chunks, usage)
        return
    with state.generation("completion") as run:
        await run.steps(usage["completion_tokens"])
    choices = [_text_choice(index, r.text, "length" if r.cut else "stop") for index, r in enumerate(replies)]
    await answer.send_json(200, {**frame, "choices": choices, "usage": usage})


def parse_chat(body: dict[str, Any], state: DemoState) -> Ask:
    """A chat request in the shape both dialects share."""
    tools = [read_object(each).get("function") for each in read_list(body.get("tools"))]
    tools = tools or read_list(body.get("functions"))
    form = read_object(body.get("response_format"))
    choice = body.get("tool_choice", body.get("function_call"))
    stop = body.get("stop")
    if not isinstance(body.get("messages"), list):
        raise RefusalError(400, "messages is required")
    return Ask(
        model=state.find_model(body.get("model")),
        messages=body["messages"],
        tools=() if choice == "none" else tuple(_parse_tool(each) for each in tools),
        must_call=_parse_choice(choice),
        json_mode=form.get("type") in {"json_object", "json_schema"},
        schema=read_object(form.get("json_schema")).get("schema"),
        stop=(stop,) if isinstance(stop, str) else tuple(map(str, read_list(stop))),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        seed=body.get("seed") or 0,
    )


def _parse_tool(function: Any) -> Tool:
    fields = read_object(function)
    return Tool(str(fields.get("name")), str(fields.get("description", "")), fields.get("parameters"))


def _parse_choice(choice: Any) -> str:
    if choice == "required":
        return ANY_TOOL
    fields = read_object(choice)
    return str(read_object(fields.get("function")).get("name") or fields.get("name") or "")


def _ask_for_text(body: dict[str, Any], state: DemoState, prompt: str) -> Ask:
    return parse_chat({**body, "messages": [{"role": "user", "content": prompt}]}, state)


def _reseed(ask: Ask, index: int) -> Ask:
    return ask if index == 0 else dataclasses.replace(ask, seed=f"{ask.seed}.{index}")


def _frame(state: DemoState, prefix: str, model: Any) -> dict[str, Any]:
    """What every chunk of one answer repeats."""
    return {
        "id": state.next_id(prefix),
        "object": "",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"demo-{state.name}",
    }


def _build_usage(prompt_tokens: int, replies: list[Reply]) -> dict[str, int]:
    made = sum(len(reply.pieces) or count_tokens(json.dumps(reply.arguments)) for reply in replies)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}


def _finish_reason(reply: Reply, *, legacy: bool) -> str:
    if reply.tool:
        return "function_call" if legacy else "tool_calls"
    return "length" if reply.cut else "stop"


def _call_id(answer_id: str) -> str:
    return f"call_{answer_id}"


def _build_message(reply: Reply, answer_id: str, *, legacy: bool) -> dict[str, Any]:
    if not reply.tool:
        return {"role": "assistant", "content": reply.text, "refusal": None}
    function = {"name": reply.tool, "arguments": json.dumps(reply.arguments)}
    if legacy:
        return {"role": "assistant", "content": None, "function_call": function}
    call = {"id": _call_id(answer_id), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def _deltas(reply: Reply, answer_id: str, *, legacy: bool) -> list[tuple[dict[str, Any], str | None]]:
    """The deltas of one choice with their finish reason: role first, an empty one last."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if reply.tool else ""}]
    if reply.tool:
        text = json.dumps(reply.arguments)
        half = len(text) // 2
        parts = [{"name": reply.tool, "arguments": ""}, {"arguments": text[:half]}, {"arguments": text[half:]}]
        for number, part in enumerate(parts):
            first = {"id": _call_id(answer_id), "type": "function"} if number == 0 else {}
            call = {"function_call": part} if legacy else {"tool_calls": [{"index": 0, **first, "function": part}]}
            deltas.append(call)
    deltas += [{"content": piece} for piece in reply.pieces]
    return [*((delta, None) for delta in deltas), ({}, _finish_reason(reply, legacy=legacy))]


async def _stream_chat(
    state: DemoState,
    answer: Answer,
    body: dict[str, Any],
    frame: dict[str, Any],
    deltas: list[list[tuple[dict[str, Any], str | None]]],
    usage: dict[str, int],
) -> None:
    choices = [
        [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason} for delta, reason in each]
        for index, each in enumerate(deltas)
    ]
    await _stream(state, answer, body, {**frame, "object": "chat.completion.chunk"}, choices, usage)


def _text_choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _text_chunks(index: int, reply: Reply) -> list[dict[str, Any]]:
    pieces = [_text_choice(index, piece, None) for piece in reply.pieces]
    return [*pieces, _text_choice(index, "", "length" if reply.cut else "stop")]


async def _stream(
    state: DemoState,
    answer: Answer,
    body: dict[str, Any],
    frame: dict[str, Any],
    choices: list[list[dict[str, Any]]],
    usage: dict[str, int],
) -> None:
    """Server-sent events, one for each piece; with `include_usage` a last one holds the usage."""
    with_usage = bool(read_object(body.get("stream_options")).get("include_usage"))
    tail = {"usage": None} if with_usage else {}
    await answer.start(200, "text/event-stream; charset=utf-8")
    with state.generation("stream") as run:
        for each in choices:
            for choice in each:
                await run.step()
                await answer.write(_event({**frame, "choices": [choice], **tail}))
    if with_usage:
        await answer.write(_event({**frame, "choices": [], "usage": usage}))
    await answer.write(b"data: [DONE]\n\n")
    await answer.finish()


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
