"""What translation costs: `python -m tests.translation.cost` prints CPU time per chunk and per megabyte."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from tests.translation.replies import FACTS, delta, piece, sse, tools, usage_chunk
from translation.anthropic_request import parse_request
from translation.anthropic_stream import AnthropicStream
from translation.backend_traits import traits_for
from translation.openai_request import TranslationOptions, build_openai_request, translate

CHUNKS = 64
_NO_MORE = object()


def measure(work: Callable[[], Any], rounds: int) -> float:
    """The least CPU seconds of several rounds: what the work costs when nothing else disturbs it."""
    return min(_once(work) for _ in range(rounds))


def _once(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def text_chunks() -> list[bytes]:
    """A stream as vLLM writes it, one token per chunk."""
    head = {"object": "chat.completion.chunk", "created": 1700000000, "system_fingerprint": None}
    return [sse({**head, **delta(content=f" token{number}")}, done=False) for number in range(CHUNKS)]


def tool_chunks() -> list[bytes]:
    """A stream that is one tool call."""
    inner = [piece(0, None, None, f"word{number} ") for number in range(CHUNKS - 2)]
    parts = [piece(0, "A", "f", '{"text":"'), *inner, piece(0, None, None, '"}')]
    return [sse(tools(part), done=False) for part in parts]


def translate_stream(chunks: list[bytes]) -> bytes:
    stream = AnthropicStream(FACTS, 0.0)
    out = [stream.feed(chunk, 0.0) for chunk in chunks]
    return b"".join(out) + stream.feed(sse(delta(finish="stop"), usage_chunk()), 0.0)


def chunk_cost(chunks: list[bytes], rounds: int = 100) -> float:
    """CPU seconds per chunk."""
    return measure(lambda: translate_stream(chunks), rounds) / len(chunks)


def conversation(rounds: int, size: int) -> bytes:
    """A request of tool rounds whose texts and results have about `size` characters each."""
    turns: list[dict[str, Any]] = []
    for number in range(rounds):
        call = {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {"path": "/a/b", "text": "x" * 100}}
        result = {
            "type": "tool_result",
            "tool_use_id": f"t{number}",
            "content": [{"type": "text", "text": "y" * size}],
        }
        turns += [
            {"role": "user", "content": [{"type": "text", "text": "x" * size}]},
            {"role": "assistant", "content": [{"type": "text", "text": "look"}, call]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": "done"},
        ]
    return build_request([*turns, {"role": "user", "content": "go on"}])


# Shapes of a request of about a megabyte.
SHAPES: dict[str, Callable[[], bytes]] = {
    "200 turns": lambda: conversation(50, 10_000),
    "2,000 turns": lambda: conversation(500, 800),
    "2,000 blocks in one turn": lambda: many_blocks(2_000),
    "1,000 calls and results in two turns": lambda: many_calls(1_000),
}


def many_blocks(count: int) -> bytes:
    """A turn of very many texts."""
    blocks = [{"type": "text", "text": "x" * 470}] * count
    return build_request([{"role": "user", "content": blocks}])


def many_calls(count: int) -> bytes:
    """Very many calls at once, and their results."""
    calls = [
        {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {"text": "x" * 400}}
        for number in range(count)
    ]
    results = [
        {"type": "tool_result", "tool_use_id": f"t{number}", "content": [{"type": "text", "text": "y" * 400}]}
        for number in range(count)
    ]
    return build_request([
        {"role": "user", "content": "go"}, {"role": "assistant", "content": calls},
        {"role": "user", "content": results},
    ])  # fmt: skip


def build_request(turns: list[dict[str, Any]]) -> bytes:
    """A Messages request of these turns."""
    return json.dumps({"model": "m", "max_tokens": 100, "messages": turns}).encode()


def longest_step(body: bytes, rounds: int = 3) -> float:
    """CPU seconds of the longest step of translating a request: how long an event loop would do nothing else."""
    return min(_longest_once(body) for _ in range(rounds))


def _longest_once(body: bytes) -> float:
    steps = translate(parse_request(body), TranslationOptions(traits=traits_for("vllm")))
    longest, more = 0.0, True
    while more:
        begun = time.process_time()
        more = next(steps, _NO_MORE) is not _NO_MORE
        longest = max(longest, time.process_time() - begun)
    return longest


def request_cost(body: bytes, rounds: int = 20) -> float:
    """CPU seconds to translate a request."""
    options = TranslationOptions(traits=traits_for("vllm"))
    return measure(lambda: build_openai_request(parse_request(body), options), rounds)


def _decode_and_encode(body: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(body))


def main() -> None:
    print(f"text stream: {chunk_cost(text_chunks()) * 1e6:.1f} us per chunk")
    print(f"tool stream: {chunk_cost(tool_chunks()) * 1e6:.1f} us per chunk")
    for shape, build in SHAPES.items():
        body = build()
        bare = measure(partial(_decode_and_encode, body), 20)
        print(
            f"request of {len(body) / 1e6:.2f} MB, {shape}: {request_cost(body) * 1e3:.1f} ms "
            f"(decoding and encoding alone {bare * 1e3:.1f} ms)"
        )
    body = conversation(5_000, 800)
    print(
        f"request of {len(body) / 1e6:.1f} MB, 20,000 turns: {request_cost(body, 3) * 1e3:.0f} ms, of which "
        f"the longest step {longest_step(body) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
