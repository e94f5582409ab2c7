"""Properties of requests: whatever a client sends is translated or refused, never anything else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.translation.sizes import sized
from translation.anthropic_request import parse_count_request, parse_request
from translation.backend_traits import BackendTraits, BrokenPair, InlineSystem, Prefill, ThinkingHistory
from translation.errors import TranslationError
from translation.facts import build_warning_header
from translation.ids import remove_own_thinking
from translation.mode import find_needs
from translation.openai_request import TranslationOptions, build_openai_request
from translation.token_count import build_llamacpp_template, build_vllm_tokenize, measure_prompt

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
BLOCK_TYPES = ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"]
BLOCK_TYPES += ["search_result", "server_tool_use", "web_search_tool_result", "tool_reference", "novelty"]
sources = values | st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
    optional={"data": values, "media_type": values, "url": st.just("https://x.test") | values, "content": values},
)


def blocks_of(content: Any) -> Any:
    """Blocks with the right type word and anything in their fields."""
    return st.fixed_dictionaries(
        {"type": st.sampled_from(BLOCK_TYPES)},
        optional={
            "text": st.text(max_size=6) | values,
            "source": sources,
            "id": st.sampled_from(["A", "B"]) | values,
            "name": st.sampled_from(["f", "g"]) | values,
            "input": values,
            "tool_use_id": st.sampled_from(["A", "B"]) | values,
            "content": content,
            "thinking": st.text(max_size=6) | values,
            "signature": st.just("olla-v1.x") | values,
            "title": values,
            "context": values,
            "citations": values,
            "is_error": values,
        },
    )


contents = st.lists(
    st.recursive(blocks_of(values), lambda inner: blocks_of(st.lists(inner, max_size=2))), max_size=3
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "assistant", "assistant", "system", "robot"])},
    optional={"content": contents | st.text(max_size=6) | values},
)
tools = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["f", "g", "a.b"]),
            "type": st.sampled_from(["custom", "bash_20250124", "web_search_20250305"]),
            "input_schema": st.dictionaries(st.text(max_size=4), values, max_size=2),
            "strict": st.booleans(),
        },
    ),
    max_size=3,
)
requests = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.integers(0, 99), "messages": st.lists(turns, min_size=1, max_size=4)},
    optional={
        "system": contents | values,
        "tools": tools,
        "tool_choice": values | st.fixed_dictionaries({"type": st.sampled_from(["auto", "any", "none", "tool"])}),
        "thinking": values | st.fixed_dictionaries({"type": st.sampled_from(["enabled", "disabled", "adaptive"])}),
        "output_config": values | st.fixed_dictionaries({}, optional={"effort": values, "format": values}),
        "stream": st.booleans(),
        "novel": values,
    },
)
traits = st.builds(
    BackendTraits,
    vision=st.booleans(),
    pdf_files=st.booleans(),
    tool_name_limit=st.sampled_from([0, 16]),
    efforts=st.sampled_from([(), ("none", "low", "high")]),
    thinking_switch=st.booleans(),
    thinking_history=st.sampled_from(ThinkingHistory),
    inline_system=st.sampled_from(InlineSystem),
    prefill=st.sampled_from(Prefill),
    unanswered_calls=st.sampled_from(BrokenPair),
    stray_results=st.sampled_from(BrokenPair),
    results_in_call_order=st.booleans(),
)


@sized
@given(requests, traits)
def test_it_translates_or_refuses_whatever_a_client_sends(request, known):
    data = json.dumps(request).encode()
    json.loads(remove_own_thinking(data))
    with suppress(TranslationError):
        built = build_openai_request(parse_request(data), TranslationOptions(traits=known))
        build_vllm_tokenize(built.body)
        build_llamacpp_template(built.body)
        assert build_warning_header(built.losses).isascii()
        check_chat(json.loads(built.body)["messages"])


@sized
@given(requests)
def test_it_counts_and_inspects_whatever_a_client_sends(request):
    parsed = None
    with suppress(TranslationError):
        parsed = parse_count_request(json.dumps(request).encode())
        assert measure_prompt(parsed).estimate() >= 1
    if parsed is not None:
        find_needs(parsed)


def check_chat(messages: list[dict[str, Any]]) -> None:
    """What every chat backend insists on: calls are answered at once, roles alternate, content is there."""
    open_calls: list[str] = []
    before = ""
    for message in messages:
        role = message["role"]
        if role == "tool":
            assert isinstance(message["content"], str)
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls
            assert role != before or role == "system"
            open_calls = [call["id"] for call in message.get("tool_calls", ())]
            assert all(
                isinstance(json.loads(call["function"]["arguments"]), dict)
                for call in message.get("tool_calls", ())
            )
        before = role
    assert not open_calls
