"""The fields of the chat request around its messages."""

from __future__ import annotations

import json

import pytest

from tests.translation.shapes import (
    assistant,
    body,
    call,
    losses,
    result,
    sent,
    tool,
    translate,
    user,
    with_traits,
)
from translation.anthropic_request import parse_request
from translation.backend_traits import BackendTraits, InlineSystem, Prefill, ThinkingHistory, traits_for
from translation.errors import TranslationError
from translation.facts import Feature, Loss, build_warning_header
from translation.openai_request import TranslationOptions, build_openai_request


def refused(traits=None, **fields) -> TranslationError:
    with pytest.raises(TranslationError) as failure:
        sent(traits=traits, **fields)
    assert failure.value.status == 400
    return failure.value


def test_it_sends_the_least():
    assert sent() == {
        "model": "local",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100,
        "stream": False,
    }


def test_it_sends_the_name_the_backend_knows():
    options = TranslationOptions(model="llama3:8b")
    built = build_openai_request(parse_request(body()), options)
    assert json.loads(built.body)["model"] == "llama3:8b"
    assert built.facts.model == "local"


@pytest.mark.parametrize(
    ("fields", "traits", "expected"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {}, {"temperature": 0.5, "top_p": 0.9}),
        ({"temperature": 0}, {"sampling": False}, {}),
        ({"top_k": 40}, {"top_k": True}, {"top_k": 40}),
        ({"top_k": 40}, {}, {}),
        ({"stop_sequences": ["a", "b"]}, {}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}, {}),
        ({"stop_sequences": list("abcde")}, {"max_stop_sequences": 4}, {"stop": list("abcd")}),
        ({"stop_sequences": ["a"]}, {"max_stop_sequences": 4}, {"stop": ["a"]}),
        ({"metadata": {"user_id": "u"}}, {}, {}),
        ({"metadata": {}}, {"forward_user": True}, {}),
        ({"max_tokens": 0}, {}, {"max_tokens": 1}),
        ({"cache_control": {"type": "ephemeral"}, "service_tier": "auto"}, {}, {}),
    ],
)
def test_it_maps_plain_fields(fields, traits, expected):
    request = sent(traits=with_traits(**traits), **fields)
    base = {
        "model": "local",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100,
        "stream": False,
    }
    assert request == {**base, **expected}


def test_it_sends_a_hash_of_the_user_id_where_asked():
    user_hash = sent(metadata={"user_id": "me"}, traits=with_traits(forward_user=True))["user"]
    assert user_hash != "me"
    assert len(user_hash) == 32


@pytest.mark.parametrize(
    ("fields", "traits", "expected"),
    [
        ({"temperature": 0, "top_p": 1}, {"sampling": False}, ["temperature", "top_p"]),
        ({"top_k": 1}, {}, ["top_k"]),
        ({"stop_sequences": list("abcde")}, {"max_stop_sequences": 4}, ["stop_sequences"]),
        (
            {"context_management": {}, "container": "c", "novel": 1},
            {},
            ["context_management", "container", "novel"],
        ),
        ({"service_tier": "auto", "mcp_servers": []}, {}, ["service_tier", "mcp_servers"]),
        ({"cache_control": {}, "diagnostics": {}}, {}, []),
        ({"output_config": {"task_budget": 1}}, {}, ["output_config.task_budget"]),
        ({"output_config": {"effort": "low"}}, {}, ["output_config.effort"]),
        ({"output_config": {"effort": "huge"}}, {"efforts": ("low",)}, ["output_config.effort"]),
        ({"thinking": "on"}, {}, ["thinking"]),
        ({"thinking": True}, {}, ["thinking"]),
        ({"thinking": {"type": "novel"}}, {}, ["thinking"]),
        ({"thinking": {"type": []}}, {}, ["thinking"]),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, {}, ["thinking"]),
        ({"thinking": {"type": "adaptive"}}, {}, []),
        ({"thinking": {"type": "disabled"}}, {}, []),
        ({"tools": [tool(strict=True)]}, {"strict_tools": False}, ["strict"]),
        (
            {"tools": [tool()], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"parallel_flag": False},
            ["tool_choice.disable_parallel_tool_use"],
        ),
    ],
)
def test_it_notes_what_the_backend_will_not_see(fields, traits, expected):
    assert losses(traits=with_traits(**traits), **fields) == expected


@pytest.mark.parametrize(
    ("stream", "traits", "expected"),
    [
        (False, {}, None),
        (True, {}, {"include_usage": True}),
        (True, {"continuous_usage": True}, {"include_usage": True, "continuous_usage_stats": True}),
        (True, {"stream_usage": False}, None),
    ],
)
def test_it_asks_for_usage_in_streams(stream, traits, expected):
    request = sent(stream=stream, traits=with_traits(**traits))
    assert request["stream"] is stream
    assert request.get("stream_options") == expected


# ---- max_tokens


@pytest.mark.parametrize(
    ("asked", "options", "expected"),
    [
        (32000, {}, 32000),
        (32000, {"context_length": 4096}, 32000),
        (32000, {"clamp_max_tokens": True}, 32000),
        (32000, {"context_length": 4096, "clamp_max_tokens": True, "prompt_tokens": 96}, 4000),
        (100, {"context_length": 4096, "clamp_max_tokens": True, "prompt_tokens": 96}, 100),
        (100, {"context_length": 3, "clamp_max_tokens": True}, 100),
    ],
)
def test_it_cuts_max_tokens_to_the_window_when_asked(asked, options, expected):
    built = build_openai_request(parse_request(body(max_tokens=asked)), TranslationOptions(**options))
    assert json.loads(built.body)["max_tokens"] == expected


def test_it_refuses_a_counted_prompt_that_leaves_no_room():
    options = TranslationOptions(context_length=4096, clamp_max_tokens=True, prompt_tokens=5000)
    with pytest.raises(TranslationError, match="prompt is too long: 5000 tokens > 4096 maximum"):
        build_openai_request(parse_request(body()), options)


def test_it_uses_the_field_the_backend_knows():
    request = sent(traits=with_traits(max_tokens_field="max_completion_tokens"))
    assert request["max_completion_tokens"] == 100
    assert "max_tokens" not in request


# ---- tools


def test_it_translates_tools():
    tools = [
        tool("a", description="does a", cache_control={"type": "ephemeral"}, defer_loading=True),
        {"name": "b", "type": "custom", "input_schema": {"properties": {"x": {}}}, "strict": True},
    ]
    assert sent(tools=tools)["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "a",
                "description": "does a",
                "parameters": {"type": "object", "properties": {}},
            },
        },
        {
            "type": "function",
            "function": {"name": "b", "parameters": {"type": "object", "properties": {"x": {}}}, "strict": True},
        },
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bash_20250124", "bash"),
        ("text_editor_20250728", "str_replace_based_edit_tool"),
        ("memory_20250818", "memory"),
    ],
)
def test_it_writes_out_the_schema_of_client_tools_anthropic_defines(kind, name):
    (definition,) = sent(tools=[{"type": kind, "name": name}])["tools"]
    assert definition["function"]["name"] == name
    assert "command" in definition["function"]["parameters"]["properties"]
    assert definition["function"]["description"]


def test_it_prefers_the_clients_own_schema():
    own = {"type": "bash_20250124", "name": "bash", "description": "D", "input_schema": {"type": "object"}}
    (definition,) = sent(tools=[own])["tools"]
    assert definition["function"] == {"name": "bash", "description": "D", "parameters": {"type": "object"}}


@pytest.mark.parametrize("kind", ["web_search_20250305", "computer_toolset_20260801", "mcp_toolset", "bash_extra"])
def test_it_drops_tools_that_only_anthropic_can_run(kind):
    tools = [{"type": kind, "name": "x"}]
    assert "tools" not in sent(tools=tools)
    assert losses(tools=tools) == [kind]


@pytest.mark.parametrize(
    ("tools", "path"),
    [
        ([{"name": "a"}], "tools[0]"),
        ([{"name": "a", "type": "custom"}], "tools[0]"),
        ([{"input_schema": {}}], "tools[0]"),
        ([tool("a"), tool("a")], "tools[1].name"),
    ],
)
def test_it_refuses_a_broken_tool(tools, path):
    assert refused(tools=tools).path == path


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", "auto"),
        ("any", "required"),
        ("none", "none"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_it_translates_tool_choice(choice, expected):
    assert sent(tools=[tool()], tool_choice=choice).get("tool_choice") == expected


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        "tool",
        {"type": "novel"},
        {"type": 5},
        {},
        5,
        [],
        {"type": "tool"},
        {"type": "tool", "name": "g"},
    ],
)
def test_it_refuses_an_impossible_tool_choice(choice):
    assert refused(tools=[tool()], tool_choice=choice).path == "tool_choice"


@pytest.mark.parametrize("choice", ["any", {"type": "tool", "name": "web_search"}])
def test_it_refuses_to_force_a_tool_that_was_dropped(choice):
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    assert refused(tools=tools, tool_choice=choice).path == "tool_choice"


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [{"type": "web_fetch_20250910"}]}])
def test_it_leaves_tool_choice_away_without_tools(fields):
    assert "tool_choice" not in sent(tool_choice={"type": "auto"}, **fields)


def test_it_forbids_parallel_calls():
    choice = {"type": "any", "disable_parallel_tool_use": True}
    assert sent(tools=[tool()], tool_choice=choice)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(tools=[tool()], tool_choice={"type": "any"})


def test_it_shortens_names_reversibly_for_strict_backends():
    long, odd = "x" * 80, "a.b"
    built = translate(
        user("go"),
        assistant(call("A", long)),
        user(result("A")),
        tools=[tool(long), tool(odd), tool("fine")],
        tool_choice={"type": "tool", "name": long},
        traits=with_traits(tool_name_limit=64),
    )
    request = json.loads(built.body)
    names = [entry["function"]["name"] for entry in request["tools"]]
    assert [len(name) for name in names] == [64, 12, 4]
    assert [built.facts.client_name(name) for name in names] == [long, odd, "fine"]
    assert request["tool_choice"]["function"]["name"] == names[0]
    assert request["messages"][1]["tool_calls"][0]["function"]["name"] == names[0]
    assert built.facts.tools == frozenset(names)


# ---- thinking, effort, structured output, prefill


@pytest.mark.parametrize(
    ("fields", "traits", "expected"),
    [
        ({"thinking": {"type": "adaptive"}}, {"thinking_switch": True}, {}),
        ({"thinking": {"type": "between_tools"}}, {"thinking_switch": True}, {}),
        (
            {"thinking": {"type": "disabled"}},
            {"thinking_switch": True},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        ({"thinking": {"type": "disabled"}}, {"efforts": ("none", "low")}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "disabled"}}, {"efforts": ("low", "high")}, {"reasoning_effort": "low"}),
        (
            {"thinking": {"type": "disabled"}},
            {"efforts": ("low", "high"), "thinking_switch": True},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking_switch": True, "efforts": ("low", "medium", "high")},
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5000}},
            {"efforts": ("low", "medium", "high")},
            {"reasoning_effort": "medium"},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 20000}},
            {"efforts": ("low", "medium", "high")},
            {"reasoning_effort": "high"},
        ),
        (
            {"thinking": {"type": "enabled"}, "output_config": {"effort": "xhigh"}},
            {"efforts": ("low", "medium", "high")},
            {"reasoning_effort": "high"},
        ),
        ({"output_config": {"effort": "max"}}, {"efforts": ("none", "low", "max")}, {"reasoning_effort": "max"}),
        ({"output_config": {"effort": "low"}}, {"efforts": ("none", "minimal")}, {"reasoning_effort": "minimal"}),
        ({"output_config": {}}, {"efforts": ("low",)}, {}),
    ],
)
def test_it_translates_thinking_and_effort(fields, traits, expected):
    request = sent(traits=with_traits(**traits), **fields)
    found = {name: request[name] for name in ("reasoning_effort", "chat_template_kwargs") if name in request}
    assert found == expected


@pytest.mark.parametrize("display", [True, False])
def test_it_remembers_that_thinking_is_to_be_omitted(display):
    thinking = {"type": "adaptive", "display": "omitted"} if display else {"type": "adaptive"}
    assert translate(thinking=thinking).facts.omit_thinking is display


FORMAT = {"type": "json_schema", "schema": {"type": "object"}}


@pytest.mark.parametrize("fields", [{"output_config": {"format": FORMAT}}, {"output_format": FORMAT}])
def test_it_translates_structured_output(fields):
    expected = {"name": "output", "schema": {"type": "object"}, "strict": True}
    assert sent(**fields)["response_format"] == {"type": "json_schema", "json_schema": expected}


@pytest.mark.parametrize("wanted", [5, {"type": "json_schema"}, {"type": "grammar", "schema": {}}])
def test_it_refuses_an_unknown_output_format(wanted):
    assert refused(output_config={"format": wanted}).path == "output_config.format"


def test_it_refuses_a_schema_the_backend_cannot_hold():
    assert "schema" in refused(output_format=FORMAT, traits=with_traits(structured_output=False)).message


@pytest.mark.parametrize(
    ("prefill", "flags", "lost"),
    [
        (Prefill.PLAIN, {}, ["prefill"]),
        (Prefill.NATIVE, {}, []),
        (Prefill.CONTINUE_FLAGS, {"continue_final_message": True, "add_generation_prompt": False}, []),
    ],
)
def test_it_continues_a_prefilled_answer_where_it_can(prefill, flags, lost):
    turns = [user("a"), assistant("The answer is (")]
    request = sent(*turns, traits=with_traits(prefill=prefill))
    assert request["messages"][-1] == {"role": "assistant", "content": "The answer is ("}
    assert {name: request[name] for name in request if "continue" in name or "prompt" in name} == flags
    assert losses(*turns, traits=with_traits(prefill=prefill)) == lost


# ---- traits and warnings


@pytest.mark.parametrize(
    ("kind", "model", "thinks", "expected"),
    [
        ("novel", "", None, {"top_k": False, "efforts": ()}),
        ("vllm", "qwen", None, {"top_k": True, "prefill": Prefill.CONTINUE_FLAGS, "continuous_usage": True}),
        ("SGLang", "qwen", None, {"thinking_switch": True}),
        ("vllm", "qwen", False, {"efforts": (), "thinking_switch": False}),
        ("llamacpp", "qwen", None, {"prefill": Prefill.NATIVE, "image_urls": False}),
        ("lm-studio", "qwen", None, {"image_urls": False, "top_k": True}),
        ("dmr", "qwen", None, {"image_urls": False}),
        ("ollama", "qwen", None, {"efforts": (), "image_urls": False}),
        ("ollama", "qwen", True, {"efforts": ("none", "low", "medium", "high")}),
        ("openai", "gpt-4o", None, {"max_stop_sequences": 4, "sampling": True, "efforts": (), "pdf_files": True}),
        ("openai", "gpt-5-mini", None, {"max_tokens_field": "max_completion_tokens", "sampling": False}),
        ("openai", "o3", None, {"efforts": ("low", "medium", "high")}),
        ("vllm", "deepseek-ai/DeepSeek-V3", None, {"thinking_history": ThinkingHistory.REASONING_CONTENT}),
        ("vllm", "qwen", None, {"inline_system": InlineSystem.USER}),
    ],
)
def test_it_knows_the_traits_of_backend_kinds(kind, model, thinks, expected):
    traits = traits_for(kind, model, thinks=thinks)
    assert {name: getattr(traits, name) for name in expected} == expected


def test_it_has_defaults_for_servers_of_unknown_make():
    assert traits_for("unheard-of") == BackendTraits()


def test_it_lists_losses_once_in_visible_ascii():
    lost = [Loss(Feature.FIELD, "a"), Loss(Feature.FIELD, "a"), Loss(Feature.BLOCK, "b,\r\nü")]
    assert build_warning_header(lost) == "a, b____"
    assert build_warning_header([]) == ""


def test_it_bounds_the_warning_header():
    lost = [Loss(Feature.FIELD, f"field-{number}") for number in range(500)]
    header = build_warning_header(lost)
    assert len(header) <= 1000
    assert header.endswith(", ...")


@pytest.mark.parametrize(("stops", "kept"), [(["", "END"], ["END"]), ([""], None), (["END"], ["END"])])
def test_it_drops_an_empty_stop_sequence_with_a_warning(stops, kept):
    assert sent(stop_sequences=stops).get("stop") == kept
    assert losses(stop_sequences=stops) == (["stop_sequences"] if "" in stops else [])
