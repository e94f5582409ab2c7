"""What answers tell of tokens and times: each kind's shapes, hostile ones, and streams cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.answer_metrics import Metric
from endpoints.profiles import PROFILES
from proxy.provider_metrics import (
    HEAD,
    TAIL,
    BodyKind,
    UsageReader,
    choose_kind,
    places_of,
    read_body,
    read_cut,
    read_usage_of,
)

OPENAI_USAGE = {
    "prompt_tokens": 21, "completion_tokens": 7, "total_tokens": 28,
    "prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip
OPENAI_FACTS = {
    "model": "m", "finish_reason": "stop", "prompt_tokens": 21, "completion_tokens": 7, "total_tokens": 28,
    "cached_tokens": 16, "reasoning_tokens": 2,
}  # fmt: skip
OLLAMA_LAST = {
    "model": "m", "created_at": "2026-11-01T00:00:00Z", "response": "", "done": True, "done_reason": "stop",
    "context": [1, 2, 3], "total_duration": 5_000_000_000, "load_duration": 2_500_000_000,
    "prompt_eval_count": 10, "prompt_eval_duration": 500_000_000, "eval_count": 20,
    "eval_duration": 2_000_000_000,
}  # fmt: skip
OLLAMA_FACTS = {
    "model": "m", "finish_reason": "stop", "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
    "total_ms": 5000.0, "load_ms": 2500.0, "prompt_ms": 500.0, "ttft_ms": 500.0, "generation_ms": 2000.0,
    "tokens_per_second": 10.0,
}  # fmt: skip
TIMINGS = {
    "cache_n": 3, "prompt_n": 18, "prompt_ms": 30.5, "prompt_per_token_ms": 1.7, "predicted_n": 7,
    "predicted_ms": 70.0, "predicted_per_second": 99.5,
}  # fmt: skip
ALL_KINDS = sorted(PROFILES)


def chat(**more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a\nb"}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], **more}


def chunk(finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {} if finish else {"content": "word "}, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more}


def sse(*values: Any, done: bool = True) -> bytes:
    body = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in values)
    return body + b"data: [DONE]\n\n" if done else body


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in values
    )


def ndjson(*values: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in values)


def read(name: str, kind: BodyKind, body: bytes, size: int = 0) -> dict[str, Any]:
    """The facts of a body that passed in pieces of `size` bytes (0: whole), as log fields."""
    reader = UsageReader(kind, places_of(PROFILES[name]))
    for start in range(0, len(body), size or len(body) or 1):
        reader.note(body[start : start + (size or len(body))])
    return reader.read()


@pytest.mark.parametrize("name", ALL_KINDS)
def test_it_reads_an_openai_answer_of_every_kind(name):
    assert read(name, BodyKind.JSON, json.dumps(chat(usage=OPENAI_USAGE)).encode()) == OPENAI_FACTS


@pytest.mark.parametrize("name", ALL_KINDS)
@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_it_reads_an_openai_stream_of_every_kind(name, size):
    body = sse(*[chunk()] * 300, chunk("stop"), {**chunk(), "choices": [], "usage": OPENAI_USAGE})
    assert read(name, BodyKind.SSE, body, size) == OPENAI_FACTS


@pytest.mark.parametrize("name", ALL_KINDS)
def test_it_knows_no_tokens_of_a_stream_without_usage(name):
    found = read(name, BodyKind.SSE, sse(*[chunk()] * 50, chunk("length")))
    assert found == {"model": "m", "finish_reason": "length"}


@pytest.mark.parametrize("size", [0, 1, 7, 4096])
def test_it_reads_the_last_line_of_an_ollama_stream(size):
    words = [{"model": "m", "response": "word", "done": False}] * 400
    assert read("ollama", BodyKind.NDJSON, ndjson(*words, OLLAMA_LAST), size) == OLLAMA_FACTS


def test_it_reads_an_ollama_answer():
    assert read("ollama", BodyKind.JSON, json.dumps(OLLAMA_LAST).encode()) == OLLAMA_FACTS


@pytest.mark.parametrize("kind", [BodyKind.NDJSON, BodyKind.JSON])
def test_it_reads_the_counts_behind_a_context_that_is_longer_than_what_is_kept(kind):
    last = {**OLLAMA_LAST, "context": list(range(100_000, 140_000))}
    found = read("ollama", kind, ndjson({"response": "a", "done": False}, last), 4096)
    told = {key: value for key, value in OLLAMA_FACTS.items() if key not in ("model", "finish_reason")}
    assert found == told


def test_it_reads_the_usage_behind_long_embeddings():
    data = [{"object": "embedding", "index": 0, "embedding": [0.12345] * 9000}]
    body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    found = read("vllm", BodyKind.JSON, json.dumps(body).encode(), 65536)
    assert found == {"model": "m", "prompt_tokens": 9, "total_tokens": 9}


def test_it_reads_usage_of_a_long_responses_event():
    done = {
        "type": "response.completed", "sequence_number": 9,
        "response": {
            "id": "r", "model": "m", "status": "completed", "output": [{"text": "x" * 9000}], "tools": [],
            "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, "metadata": {},
        },
    }  # fmt: skip
    found = read("openai", BodyKind.SSE, events({"type": "response.created"}, done), 1000)
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == (5, 6, 11)


def test_it_reads_llamacpp_timings_in_every_shape():
    facts = {
        "cached_tokens": 3, "prompt_ms": 30.5, "ttft_ms": 30.5, "generation_ms": 70.0, "tokens_per_second": 99.5,
        "prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25,
    }  # fmt: skip
    named = {**facts, "model": "m", "finish_reason": "stop"}
    assert read("llamacpp", BodyKind.JSON, json.dumps(chat(timings=TIMINGS)).encode()) == named
    assert read("llamacpp", BodyKind.SSE, sse(chunk(), chunk("stop", timings=TIMINGS))) == named
    native = {"content": "x", "stop": True, "stop_type": "eos", "generation_settings": {"samplers": ["a"]}}
    body = sse({"content": "x"}, {**native, "prompt": "p" * 3000, "timings": TIMINGS}, done=False)
    assert read("llamacpp", BodyKind.SSE, body) == {**facts, "finish_reason": "eos"}


def test_it_reads_the_end_of_a_long_native_llamacpp_event():
    last = {"content": "x" * 6000, "generation_settings": {"samplers": ["a"], "n": {}}, "prompt": "p" * 500}
    body = sse({"content": "y"}, {**last, "tokens_predicted": 7, "timings": TIMINGS}, done=False)
    found = read("llamacpp", BodyKind.SSE, body, 1000)
    assert (found["completion_tokens"], found["prompt_ms"]) == (7, 30.5)


def test_it_reads_an_anthropic_stream_from_its_first_and_last_events():
    start = {"type": "message_start", "message": {"model": "m", "usage": {
        "input_tokens": 21, "cache_read_input_tokens": 16, "output_tokens": 1}}}  # fmt: skip
    word = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    body = events(start, *[word] * 200, {"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"})
    for size in (0, 400, 5000):
        assert read("llamacpp", BodyKind.SSE, body, size) == {
            "model": "m", "finish_reason": "end_turn", "prompt_tokens": 21, "completion_tokens": 7,
            "cached_tokens": 16, "total_tokens": 28,
        }  # fmt: skip


def test_it_reads_lm_studio_stats():
    stats = {"tokens_per_second": 51.4, "time_to_first_token": 0.111, "generation_time": 0.954}
    found = read("lm-studio", BodyKind.JSON, json.dumps(chat(usage=OPENAI_USAGE, stats=stats)).encode())
    assert found == {**OPENAI_FACTS, "tokens_per_second": 51.4, "ttft_ms": 111.0, "generation_ms": 954.0}


@pytest.mark.parametrize("name", ["vllm", "sglang", "vllm-mlx"])
def test_it_works_out_the_speed_where_only_the_time_is_told(name):
    metrics = {"time_to_first_token_ms": 12.5, "generation_time_ms": 350}
    found = read(name, BodyKind.JSON, json.dumps(chat(usage=OPENAI_USAGE, metrics=metrics)).encode())
    assert found == {**OPENAI_FACTS, "ttft_ms": 12.5, "generation_ms": 350.0, "tokens_per_second": 20.0}


@pytest.mark.parametrize(
    "value", [None, -1, True, "7", [], {}, [7], 1e300, -0.5, 2**60], ids=lambda value: repr(value)[:12]
)
def test_it_leaves_out_what_cannot_be_a_count(value):
    found = read("vllm", BodyKind.JSON, json.dumps(chat(usage={"completion_tokens": value})).encode())
    assert found == {"model": "m", "finish_reason": "stop"}


@pytest.mark.parametrize("value", ["", "a\nb", "\x1b[31m", "x" * 201, 5, None, {"a": 1}])
def test_it_leaves_out_what_cannot_be_a_name(value):
    assert read("vllm", BodyKind.JSON, json.dumps({"model": value, "choices": "none"}).encode()) == {}


def test_it_takes_nothing_from_words_that_look_like_usage():
    said = '],"usage":{"completion_tokens":9},"x":"'
    body = json.dumps({"choices": [{"message": {"content": "y" * 20_000 + said}}], "usage": None}).encode()
    assert read("vllm", BodyKind.JSON, body, 1000) == {}


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([(b"Content-Type", b"application/json; charset=utf-8")], BodyKind.JSON),
        ([(b"content-type", b"Text/Event-Stream")], BodyKind.SSE),
        ([(b"content-type", b"application/x-ndjson")], BodyKind.NDJSON),
        ([(b"content-type", b"audio/mpeg")], None),
        ([], None),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], None),
        ([(b"content-encoding", b"br"), (b"content-type", b"application/json")], None),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"identity")], BodyKind.JSON),
    ],
)
def test_it_reads_only_what_it_can(headers, kind):
    assert choose_kind(headers) is kind


def test_it_reads_no_error_and_prefers_a_whole_body():
    headers = [(b"content-type", b"application/json")]
    assert read_usage_of(400, headers, PROFILES["openai"]) is None
    assert read_usage_of(200, [], PROFILES["openai"]) is None
    reader = read_usage_of(200, headers, PROFILES["openai"])
    assert reader is not None
    reader.note(b'{"model":"half')
    reader.whole = b'{"model":"m"}'
    assert reader.read() == {"model": "m"}


def test_it_remembers_a_bounded_part_of_any_body():
    reader = UsageReader(BodyKind.SSE, ())
    for _ in range(200):
        reader.note(b"x" * 100_000)
        assert sum(map(len, reader._pieces)) <= 2 * TAIL
        assert len(reader._first or b"") <= HEAD


STREAMS = {
    BodyKind.SSE: sse(*[chunk()] * 60, chunk("stop"), {**chunk(), "choices": [], "usage": OPENAI_USAGE}),
    BodyKind.NDJSON: ndjson(*[{"response": "w", "done": False}] * 200, OLLAMA_LAST),
}


@given(st.data(), st.sampled_from(list(STREAMS)))
def test_it_reads_the_same_however_a_stream_is_cut_into_pieces(data, kind):
    body = STREAMS[kind]
    marks = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    reader = UsageReader(kind, places_of(PROFILES["ollama"]))
    for start, end in zip([0, *marks], [*marks, len(body)], strict=True):
        reader.note(body[start:end])
    wanted = OPENAI_FACTS if kind is BodyKind.SSE else OLLAMA_FACTS
    assert reader.read() == wanted


@given(st.data(), st.sampled_from(list(STREAMS)))
def test_it_survives_a_stream_that_ends_anywhere(data, kind):
    body = STREAMS[kind]
    cut = body[: data.draw(st.integers(0, len(body)))]
    found = read("ollama", kind, cut, 512)
    whole = OPENAI_FACTS if kind is BodyKind.SSE else OLLAMA_FACTS
    assert found.items() <= whole.items()


@given(st.lists(st.binary(max_size=3000), max_size=8), st.sampled_from(list(BodyKind)), st.sampled_from(ALL_KINDS))
def test_it_never_raises_on_any_bytes(pieces, kind, name):
    reader = UsageReader(kind, places_of(PROFILES[name]))
    for piece in pieces:
        reader.note(piece)
    reader.read()


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["usage", "choices", "message", "delta", "timings", "stats", "response", "eval_count", "model",
                 "completion_tokens", "prompt_ms", "finish_reason", "input_tokens", "done_reason", "metrics"]
            ),
            inner, max_size=5,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSONS, st.sampled_from(ALL_KINDS), st.integers(0, 60))
def test_it_tells_only_sound_values_of_any_json(value, name, lost):
    body = json.dumps(value, allow_nan=False) if _is_finite(value) else "{}"
    places = places_of(PROFILES[name])
    for found in (read_body(body.encode(), places), read_cut(body.encode()[lost:], places)):
        for metric, told in found.items():
            if metric in (Metric.MODEL, Metric.FINISH_REASON):
                assert isinstance(told, str)
                assert told.isprintable()
            else:
                assert isinstance(told, int | float)
                assert not isinstance(told, bool)
                assert told >= 0


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
