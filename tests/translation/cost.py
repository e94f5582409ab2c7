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
from translation.openai_request import TranslationOptions, build_openai_request

CHUNKS = 64


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
    request = {"model": "m", "max_tokens": 100, "messages": [*turns, {"role": "user", "content": "go on"}]}
    return json.dumps(request).encode()


def request_cost(body: bytes, rounds: int = 20) -> float:
    """CPU seconds to translate a request."""
    options = TranslationOptions(traits=traits_for("vllm"))
    return measure(lambda: build_openai_request(parse_request(body), options), rounds)


def _decode_and_encode(body: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(body))


def main() -> None:
    print(f"text stream: {chunk_cost(text_chunks()) * 1e6:.1f} us per chunk")
    print(f"tool stream: {chunk_cost(tool_chunks()) * 1e6:.1f} us per chunk")
    for rounds, size in ((50, 10_000), (250, 1_800), (500, 800)):
        body = conversation(rounds, size)
        bare = measure(partial(_decode_and_encode, body), 20)
        print(
            f"request of {len(body) / 1e6:.2f} MB in {rounds * 4} turns: {request_cost(body) * 1e3:.1f} ms "
            f"(decoding and encoding alone {bare * 1e3:.1f} ms)"
        )


if __name__ == "__main__":
    main()
