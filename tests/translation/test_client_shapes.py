"""Requests as coding agents send them, streams as the official SDK reads them, and what translation may cost."""

from __future__ import annotations

import json
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from tests.translation.cost import chunk_cost, conversation, request_cost, text_chunks
from tests.translation.grammar import read_frames
from tests.translation.replies import delta, piece, run, sse, tools, usage_chunk
from tests.translation.shapes import assistant, body, call, chat, result, text, translate, user
from translation.anthropic_request import parse_request
from translation.backend_traits import traits_for
from translation.mode import NativeSupport, choose_mode, find_needs

CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def agent_request() -> dict[str, Any]:
    """About 76 KB: attribution, system blocks, 24 tools, a system turn, and fields no backend knows."""
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": "d" * 1200}}}
    return {
        "system": [
            text("x-anthropic-billing-header: cc_version=2.1.200; cch=abc"),
            {**text("You are an agent."), **CACHED},
            {**text("Rules. " * 5000), **CACHED},
        ],
        "tools": [
            {"name": f"Tool{number}", "description": "does things", "input_schema": schema, "strict": True}
            for number in range(24)
        ],
        "max_tokens": 32000,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "metadata": {"user_id": "user_1_account_2_session_3"},
    }


def agent_turns() -> list[dict[str, Any]]:
    return [
        user(text("<system-reminder>context</system-reminder>"), {**text("fix the bug"), **CACHED}),
        assistant(
            {"type": "thinking", "thinking": "hmm", "signature": "olla-v1.x"},
            call("A", "Tool1"),
            call("B", "Tool2"),
        ),
        {"role": "system", "content": [text("the plan mode is on")]},
        user(result("A", [text("file")]), result("B", "failed", is_error=True, **CACHED)),
    ]


def test_it_translates_what_a_coding_agent_sends():
    built = translate(*agent_turns(), traits=traits_for("vllm", "qwen3"), **agent_request())
    request = json.loads(built.body)
    roles = [message["role"] for message in request["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    assert request["messages"][0]["content"].startswith("You are an agent.\n\nRules.")
    assert "the plan mode is on" in request["messages"][-1]["content"]
    assert len(request["tools"]) == 24
    assert request["reasoning_effort"] == "medium"
    assert request["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert [loss.name for loss in built.losses] == ["context_management"]
    assert b"cache_control" not in built.body
    assert b"user_1_account_2" not in built.body


def test_it_lets_a_coding_agent_pass_through_where_nothing_is_lacking():
    request = parse_request(body(*agent_turns(), **agent_request()))
    native = NativeSupport(enabled=True, limitations=frozenset({"no_vision", "no_token_counting"}))
    assert choose_mode(find_needs(request), native).mode == "passthrough"


def test_it_translates_ten_rounds_of_parallel_tools():
    turns: list[Any] = [user("go")]
    for number in range(10):
        turns += [
            assistant(text("next"), call(f"a{number}"), call(f"b{number}")),
            user(result(f"b{number}"), result(f"a{number}"), text("more")),
        ]
    messages = chat(*turns)
    assert [message["role"] for message in messages] == ["user"] + ["assistant", "tool", "tool", "user"] * 10


def test_it_is_read_by_the_official_sdk():
    data = run(
        sse(
            delta(reasoning="hmm"),
            delta(content="hello"),
            tools(piece(0, "A", "f", '{"x":1}')),
            tools(piece(1, "B", "g")),
            delta(finish="tool_calls"),
            usage_chunk(11, 4),
        )
    )[0]
    events: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for frame in read_frames(data):
        if frame["type"] != "ping":
            event = events.validate_python(frame)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert [block.type for block in snapshot.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert snapshot.content[0].signature
    assert [block.input for block in snapshot.content[2:]] == [{"x": 1}, {}]
    assert (snapshot.stop_reason, snapshot.usage.input_tokens, snapshot.usage.output_tokens) == ("tool_use", 11, 4)


def test_it_costs_little_per_chunk():
    # The goal is 30 us; ten times that is beyond any noise.
    assert chunk_cost(text_chunks(), rounds=20) < 300e-6


def test_it_costs_little_per_megabyte():
    # The goal is 15 ms.
    assert request_cost(conversation(50, 10_000), rounds=5) < 150e-3
