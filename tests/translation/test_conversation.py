"""Turns of a Messages request as chat messages: order, blocks, tool results, system turns."""

from __future__ import annotations

import json

import pytest

from tests.translation.shapes import (
    PIXEL,
    assistant,
    body,
    call,
    chat,
    losses,
    result,
    sent,
    text,
    tool,
    translate,
    user,
    with_traits,
)
from translation.anthropic_request import parse_request
from translation.backend_traits import BrokenPair, InlineSystem, ThinkingHistory
from translation.content_blocks import MOST_LOSSES
from translation.errors import TranslationError
from translation.openai_request import TranslationOptions, build_openai_request
from translation.turns import MOST_BLOCKS

DATA_URL = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "image", "source": PIXEL}
IMAGE_PART = {"type": "image_url", "image_url": {"url": DATA_URL}}


def refused(*messages, traits=None, **fields) -> TranslationError:
    with pytest.raises(TranslationError) as failure:
        translate(*messages, traits=traits, **fields)
    assert failure.value.status == 400
    return failure.value


def document(source, **more):
    return {"type": "document", "source": source, **more}


# ---- system


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("be brief", "be brief"),
        ("", None),
        ([], None),
        (None, None),
        ([text("")], None),
        ([text("one"), text("two")], "one\n\ntwo"),
        ([{"text": "untyped"}], "untyped"),
        ([text("x-anthropic-billing-header: cc_version=1"), text("two")], "two"),
        ([{"type": "image"}, text("kept")], "kept"),
    ],
)
def test_it_makes_one_system_message(system, expected):
    messages = chat(system=system)
    first = messages[0]
    assert first == ({"role": "system", "content": expected} if expected else {"role": "user", "content": "hello"})


def test_it_notes_a_system_block_that_is_not_text():
    assert losses(system=[{"type": "image"}]) == ["system[0].image"]


@pytest.mark.parametrize(
    ("system", "path"),
    [(5, "system"), ({"a": 1}, "system"), (["x"], "system[0]"), ([{"type": "text"}], "system[0].text")],
)
def test_it_refuses_a_system_prompt_of_another_type(system, path):
    assert refused(system=system).path == path


@pytest.mark.parametrize("content", ["be kind", [text("be"), text("kind")]])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            InlineSystem.USER,
            [{"role": "user", "content": "a\n\n<system-reminder>\n{}\n</system-reminder>\n\nb"}],
        ),
        (InlineSystem.MERGE, [{"role": "system", "content": "top\n\n{}"}, {"role": "user", "content": "a\n\nb"}]),
        (
            InlineSystem.KEEP,
            [
                {"role": "user", "content": "a"},
                {"role": "system", "content": "{}"},
                {"role": "user", "content": "b"},
            ],
        ),
    ],
)
def test_it_places_a_system_turn_by_policy(policy, expected, content):
    said = "be kind" if isinstance(content, str) else "be\n\nkind"
    messages = chat(
        user("a"),
        {"role": "system", "content": content},
        user("b"),
        system="top",
        traits=with_traits(inline_system=policy),
    )
    wanted = [{**message, "content": message["content"].replace("{}", said)} for message in expected]
    assert [m for m in messages if m["content"] != "top"] == wanted


def test_it_drops_an_empty_system_turn():
    assert chat(user("a"), {"role": "system", "content": ""}, user("b")) == [{"role": "user", "content": "a\n\nb"}]


@pytest.mark.parametrize("policy", list(InlineSystem))
def test_it_never_puts_a_system_turn_between_calls_and_results(policy):
    messages = chat(
        user("go"),
        assistant(call("A"), call("B")),
        {"role": "system", "content": "note"},
        user(result("A"), result("B")),
        traits=with_traits(inline_system=policy),
    )
    roles = [message["role"] for message in messages]
    at = roles.index("assistant")
    assert roles[at + 1 : at + 3] == ["tool", "tool"]
    assert "note" in json.dumps(messages)


# ---- roles and turns


@pytest.mark.parametrize("role", ["ctx", "msg"])
def test_it_reads_context_roles_as_user(role):
    assert chat({"role": role, "content": [text("x")]}) == [{"role": "user", "content": "x"}]


def test_it_refuses_an_unknown_role():
    assert refused({"role": "robot", "content": "x"}).path == "messages[0].role"


@pytest.mark.parametrize("content", ["", [], [text("")], [text(""), text("")]])
def test_it_refuses_a_request_in_which_nothing_is_said(content):
    assert "at least one message" in refused(user(content)).message


def test_it_merges_neighbouring_turns_of_one_role():
    messages = chat(user("a"), user("b"), assistant("c"), assistant(text("d")), user("e"))
    assert messages == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "cd"},
        {"role": "user", "content": "e"},
    ]


def test_it_merges_calls_of_neighbouring_assistant_turns():
    messages = chat(
        user("a"), assistant(text("x"), call("A")), assistant([call("B")]), user(result("B"), result("A"))
    )
    assert messages[1]["content"] == "x"
    assert [made["id"] for made in messages[1]["tool_calls"]] == ["A", "B"]
    assert [message.get("tool_call_id") for message in messages[2:]] == ["B", "A"]


def test_it_removes_a_turn_of_which_nothing_is_left_and_keeps_alternation():
    messages = chat(user("a"), assistant({"type": "redacted_thinking", "data": "x"}), user("b"))
    assert messages == [{"role": "user", "content": "a\n\nb"}]


def test_it_may_begin_with_an_assistant_turn():
    assert chat(assistant("hi"), user("x"))[0] == {"role": "assistant", "content": "hi"}


# ---- user blocks


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([text("one"), text("two")], "one\n\ntwo"),
        ([text("one"), text("")], "one"),
        ([IMAGE], [IMAGE_PART]),
        ([text("a"), IMAGE, text("b"), text("c")], [text("a"), IMAGE_PART, text("b\n\nc")]),
        (
            [{"type": "image", "source": {"type": "url", "url": "https://x.test/i.png"}}],
            [{"type": "image_url", "image_url": {"url": "https://x.test/i.png"}}],
        ),
        (
            [document({"type": "text", "media_type": "text/plain", "data": "D"}, title="T", context="C")],
            "Document: T\nC\n\nD",
        ),
        ([document({"type": "text", "data": "D"})], "D"),
        ([document({"type": "content", "content": "D"}, title="T")], "Document: T\n\nD"),
        ([document({"type": "content", "content": [text("D"), IMAGE]})], [text("D"), IMAGE_PART]),
        ([document({"type": "content", "content": [text("D")]}, title="T")], "Document: T\n\nD"),
        (
            [{"type": "search_result", "title": "T", "source": "S", "content": [text("B"), text("C")]}],
            "Search result: T\nSource: S\n\nB\nC",
        ),
        ([{"type": "search_result", "content": []}], "Search result\n"),
        ([{"type": "novelty", "text": "N"}], "N"),
        ([{"type": "novelty", "text": ""}, text("x")], "x"),
    ],
)
def test_it_translates_user_blocks(blocks, content):
    assert chat(user(blocks)) == [{"role": "user", "content": content}]


def test_it_passes_a_pdf_to_a_backend_that_reads_files():
    pdf = document(
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, title="r.pdf", context="C"
    )
    (message,) = chat(user([pdf]), traits=with_traits(pdf_files=True))
    file = {"filename": "r.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
    assert message["content"] == [text("C"), {"type": "file", "file": file}]


def test_it_names_a_pdf_without_title():
    pdf = document({"type": "base64", "data": "JVBERi0="})
    (message,) = chat(user([pdf]), traits=with_traits(pdf_files=True))
    assert message["content"][0]["file"]["filename"] == "document.pdf"


@pytest.mark.parametrize(
    ("block", "traits", "path"),
    [
        ({"type": "text"}, {}, ".text"),
        ({"type": "image"}, {}, ".source"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, {}, ""),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png"}}, {}, ".source.data"),
        ({"type": "image", "source": {"type": "base64", "data": "x"}}, {}, ".source.media_type"),
        ({"type": "image", "source": {"type": "url"}}, {}, ".source.url"),
        ({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}, {}, ""),
        ({"type": "image", "source": {"type": "url", "url": "https://x.test"}}, {"image_urls": False}, ""),
        (IMAGE, {"vision": False}, ""),
        (document({"type": "base64", "media_type": "application/pdf", "data": "x"}), {}, ""),
        (document({"type": "base64", "media_type": "text/rtf", "data": "x"}), {"pdf_files": True}, ""),
        (document({"type": "url", "url": "https://x.test/a.pdf"}), {"pdf_files": True}, ""),
        (document({"type": "file", "file_id": "f"}), {}, ""),
        (document({"type": "content", "content": 5}), {}, ".source.content"),
        (document({"type": "content", "content": [5]}), {}, ".source.content[0]"),
        (document({"type": "content", "content": [{"type": "document"}]}), {}, ".source.content[0]"),
        (document({"type": "content", "content": [{"type": ["text"]}]}), {}, ".source.content[0]"),
        (document({"type": "text"}), {}, ".source.data"),
        ({"type": "document"}, {}, ".source"),
        ({"type": "search_result", "content": "x"}, {}, ".content"),
        ({"type": "search_result", "content": ["x"]}, {}, ".content[0]"),
        ({"type": "search_result", "content": [{"type": "text"}]}, {}, ".content[0].text"),
        (call(), {}, ""),
    ],
)
def test_it_refuses_a_block_by_name(block, traits, path):
    error = refused(user(text("x"), block), traits=with_traits(**traits))
    assert error.path == f"messages[0].content[1]{path}"
    assert error.message.startswith(error.path)


def test_it_passes_a_data_address_even_to_a_backend_that_fetches_nothing():
    block = {"type": "image", "source": {"type": "url", "url": DATA_URL}}
    assert chat(user([block]), traits=with_traits(image_urls=False))[0]["content"] == [IMAGE_PART]


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "container_upload", "file_id": "f"}, "container_upload"),
        ({"type": "novelty", "value": 1}, "novelty"),
        ({"kind": "untyped"}, "messages[0].content[1]"),
        ({"type": ["odd"]}, "messages[0].content[1]"),
        (document({"type": "text", "data": "D"}, citations={"enabled": True}), "citations"),
        ({"type": "search_result", "content": [], "citations": {"enabled": True}}, "citations"),
    ],
)
def test_it_notes_what_it_drops(block, name):
    assert losses(user(text("x"), block)) == [name]


# ---- tool results


def results_of(*blocks, traits=None):
    messages = chat(user("go"), assistant(call("A"), call("B")), user(*blocks), traits=traits)
    return messages[2:]


@pytest.mark.parametrize(
    ("content", "more", "expected"),
    [
        ("done", {}, "done"),
        ("", {}, ""),
        (None, {}, ""),
        ([text("a"), text("b")], {}, "a\nb"),
        ([], {}, ""),
        ([text("a"), text(""), text("b")], {}, "a\nb"),
        ({"temperature": 5}, {}, '{"temperature":5}'),
        ([{"city": "Oslo"}, 5], {}, '[{"city":"Oslo"},5]'),
        ([text("a"), {"city": "Oslo"}], {}, 'a\n{"city":"Oslo"}'),
        (text("single"), {}, "single"),
        ([{"type": "tool_reference", "tool_name": "grep"}], {}, "Tool available: grep"),
        ([{"type": "search_result", "title": "T", "source": "S", "content": [text("B")]}], {}, None),
        ([document({"type": "text", "data": "D"})], {}, "D"),
        ([{"type": "browser_state", "tabs": []}], {}, '{"type":"browser_state","tabs":[]}'),
        ([{"type": "novelty", "text": "N"}], {}, "N"),
        ("bad", {"is_error": True}, "Error: bad"),
        ("ERROR bad", {"is_error": True}, "ERROR bad"),
        ([text("bad")], {"is_error": True}, "Error: bad"),
        ("bad", {"is_error": False}, "bad"),
        (7, {}, "7"),
    ],
)
def test_it_makes_a_tool_message_of_a_result(content, more, expected):
    tool_message = results_of(result("A", content, **more), result("B"))[0]
    expected = "Search result: T\nSource: S\n\nB" if expected is None else expected
    assert tool_message == {"role": "tool", "tool_call_id": "A", "content": expected}


def test_it_puts_results_before_everything_else_the_user_said():
    messages = results_of(text("first"), result("B"), IMAGE, result("A"))
    assert [message["role"] for message in messages] == ["tool", "tool", "user"]
    assert [message["tool_call_id"] for message in messages[:2]] == ["B", "A"]
    assert messages[2]["content"] == [text("first"), IMAGE_PART]


def test_it_sends_pictures_of_results_after_all_results():
    messages = results_of(result("A", [text("see"), IMAGE, IMAGE]), result("B"))
    assert messages[0]["content"] == "see\n[image 1: attached below]\n[image 2: attached below]"
    assert messages[2]["content"] == [text("Attachments of tool result A:"), IMAGE_PART, IMAGE_PART]


def test_it_collects_results_spread_over_user_turns():
    messages = chat(
        user("go"), assistant(call("A"), call("B")), user(result("A"), text("x")), user(result("B"), text("y"))
    )
    assert [message["role"] for message in messages[2:]] == ["tool", "tool", "user"]
    assert messages[-1]["content"] == "x\n\ny"


def test_it_orders_results_like_the_calls_where_asked():
    messages = results_of(result("B"), result("A"), traits=with_traits(results_in_call_order=True))
    assert [message["tool_call_id"] for message in messages] == ["A", "B"]


@pytest.mark.parametrize(
    ("blocks", "path"),
    [
        ([{"type": "tool_result"}], "messages[2].content[0].tool_use_id"),
        ([result("A"), result("B"), result("C")], "messages[2].content[2]"),
        ([result("A"), result("A")], "messages[2].content[1]"),
        ([result("A")], "messages[1].content[1]"),
        ([text("never mind")], "messages[1].content[0]"),
    ],
)
def test_it_refuses_broken_pairs(blocks, path):
    assert refused(user("go"), assistant(call("A"), call("B")), user(blocks)).path == path


def test_it_refuses_a_result_that_skips_a_turn():
    turns = [user("go"), assistant(call("A")), user(result("A")), assistant("ok"), user(result("A"))]
    assert refused(*turns).path == "messages[4].content[0]"


def test_it_refuses_a_conversation_that_ends_in_a_call():
    assert refused(user("go"), assistant(call("A"))).path == "messages[1].content[0]"


def test_it_mends_broken_pairs_where_the_endpoint_allows_it():
    traits = with_traits(unanswered_calls=BrokenPair.MEND, stray_results=BrokenPair.MEND)
    messages = chat(
        user("go"), assistant(call("A"), call("B")), user(result("B"), result("X", [IMAGE])), traits=traits
    )
    assert messages[2:] == [
        {"role": "tool", "tool_call_id": "B", "content": "done"},
        {"role": "tool", "tool_call_id": "A", "content": "Error: this call was never answered."},
        {
            "role": "user",
            "content": [
                text("Result of tool call X:\n[image 1: attached below]\n\nAttachments of tool result X:"),
                IMAGE_PART,
            ],
        },
    ]


# ---- assistant turns


def test_it_translates_text_and_calls():
    turn = assistant(text("let me "), text("look"), call("A", "grep", pattern="x", count=12345678901234567890))
    messages = chat(user("go"), turn, user(result("A")), tools=[tool("grep")])
    function = {"name": "grep", "arguments": '{"pattern":"x","count":12345678901234567890}'}
    assert messages[1] == {
        "role": "assistant",
        "content": "let me look",
        "tool_calls": [{"id": "A", "type": "function", "function": function}],
    }


@pytest.mark.parametrize(("empty", "content"), [(False, None), (True, "")])
def test_it_leaves_the_content_empty_beside_calls(empty, content):
    messages = chat(user("go"), assistant(call("A")), user(result("A")), traits=with_traits(empty_content=empty))
    assert messages[1]["content"] == content


@pytest.mark.parametrize("missing", [{"input": None}, {}])
def test_it_sends_an_empty_object_for_a_missing_input(missing):
    block = {"type": "tool_use", "id": "A", "name": "f", **missing}
    messages = chat(user("go"), assistant([block]), user(result("A")))
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("blocks", "path"),
    [
        ([{"type": "tool_use", "name": "f"}], "messages[1].content[0]"),
        ([{"type": "tool_use", "id": "A"}], "messages[1].content[0]"),
        ([{"type": "tool_use", "id": "", "name": "f"}], "messages[1].content[0]"),
        ([{"type": "tool_use", "id": "A", "name": "f", "input": "x"}], "messages[1].content[0].input"),
        ([call("A"), call("A")], "messages[1].content[1]"),
        ([{"type": "text"}], "messages[1].content[0].text"),
        ([{"type": "thinking"}], "messages[1].content[0].thinking"),
    ],
)
def test_it_refuses_a_broken_assistant_block(blocks, path):
    assert refused(user("go"), assistant(blocks), user(result("A"))).path == path


def test_it_refuses_an_id_repeated_over_merged_turns():
    assert refused(user("go"), assistant(call("A")), assistant(call("A")), user(result("A"))).path == (
        "messages[2].content[0]"
    )


THOUGHT = {"type": "thinking", "thinking": "hmm", "signature": "s"}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (ThinkingHistory.DROP, {"content": "hi"}),
        (ThinkingHistory.REASONING, {"content": "hi", "reasoning": "hmm"}),
        (ThinkingHistory.REASONING_CONTENT, {"content": "hi", "reasoning_content": "hmm"}),
        (ThinkingHistory.THINK_TAGS, {"content": "<think>\nhmm\n</think>\n\nhi"}),
    ],
)
def test_it_sends_thinking_back_as_the_backend_wants_it(history, expected):
    messages = chat(
        user("a"), assistant(THOUGHT, text("hi")), user("b"), traits=with_traits(thinking_history=history)
    )
    assert messages[1] == {"role": "assistant", **expected}


@pytest.mark.parametrize(
    ("history", "kept"),
    [(ThinkingHistory.DROP, False), (ThinkingHistory.REASONING, True), (ThinkingHistory.THINK_TAGS, True)],
)
def test_it_keeps_a_turn_of_thinking_only_where_thinking_is_sent(history, kept):
    messages = chat(user("a"), assistant([THOUGHT]), user("b"), traits=with_traits(thinking_history=history))
    assert any(message["role"] == "assistant" for message in messages) is kept


def test_it_joins_thinking_of_merged_turns():
    traits = with_traits(thinking_history=ThinkingHistory.REASONING)
    messages = chat(
        user("a"), assistant(THOUGHT, text("x")), assistant(THOUGHT, text("y")), user("b"), traits=traits
    )
    assert messages[1] == {"role": "assistant", "content": "xy", "reasoning": "hmmhmm"}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            '[web_search: {"query":"q"}]\n',
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": [
                    {
                        "type": "web_search_result",
                        "title": "T",
                        "url": "https://x.test",
                        "encrypted_content": "zzz",
                    }
                ],
            },
            "[web search tool result]\nT\nhttps://x.test\n",
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "content": {
                    "type": "web_fetch_result",
                    "url": "u",
                    "content": {"type": "document", "source": {"type": "text", "data": "page"}},
                },
            },
            "[web fetch tool result]\nu\npage\n",
        ),
        (
            {"type": "web_fetch_tool_result", "content": {"source": {"type": "base64", "data": "AAAA"}}},
            "[web fetch tool result]\n",
        ),
        (
            {"type": "bash_code_execution_tool_result", "content": {"stdout": "out", "stderr": "", "content": []}},
            "[bash code execution tool result]\nout\n",
        ),
        ({"type": "mcp_tool_use", "input": {}}, "[tool: {}]\n"),
        ({"type": "mcp_tool_result", "content": "plain"}, "[mcp tool result]\nplain\n"),
        ({"type": "novelty", "text": "N"}, "N"),
        ({"type": "x_tool_result", "content": [[[[[[["too deep"]]]]]]]}, "[x tool result]\n"),
    ],
)
def test_it_keeps_the_readable_parts_of_server_tools(block, expected):
    assert chat(user("a"), assistant([block]), user("b"))[1]["content"] == expected


def test_it_notes_an_unknown_assistant_block():
    assert losses(user("a"), assistant(text("x"), {"type": "novelty"}, {"odd": 1}), user("b")) == [
        "novelty",
        "messages[1].content[2]",
    ]


def test_it_refuses_an_input_nested_beyond_encoding():
    data = body(user("go"), assistant(call("A", x=0)), user(result("A")))
    refusals = 0
    for depth in range(800, 1000, 3):
        nested = data.replace(b'"x": 0', b'"x": ' + b"[" * depth + b"]" * depth)
        try:
            build_openai_request(parse_request(nested), TranslationOptions())
        except TranslationError:
            refusals += 1
    assert refusals


def test_it_refuses_a_schema_nested_beyond_encoding_where_it_is_called():
    def deeper(levels, request):
        return deeper(levels - 1, request) if levels else build_openai_request(request, TranslationOptions())

    schema = b'{"a":' * 850 + b"1" + b"}" * 850
    data = body(tools=[tool()]).replace(b'{"type": "object", "properties": {}}', schema)
    request = parse_request(data)  # what could be read there is too deep to write from further down
    with pytest.raises(TranslationError, match="nested too deeply"):
        deeper(400, request)


# ---- very many


def test_it_notes_what_is_lost_once_and_not_without_end():
    blocks = [{"type": "weird"}] * 3 + [{"type": f"kind{number}"} for number in range(2 * MOST_LOSSES)]
    lost = losses(user(text("a"), *blocks))
    assert lost[:3] == ["weird", "kind0", "kind1"]
    assert len(lost) == MOST_LOSSES


def test_it_makes_one_message_of_a_turn_of_very_many_blocks():
    many = 2 * MOST_BLOCKS + 1
    assert chat(user(*[text("a")] * many)) == [{"role": "user", "content": "\n\n".join("a" * many)}]


def test_it_makes_one_exchange_of_very_many_calls():
    names = [f"c{number}" for number in range(MOST_BLOCKS + 5)]
    said = assistant(text("look"), *[call(name) for name in names])
    messages = chat(user("go"), said, user(*[result(name, name) for name in reversed(names)]))
    assert [each["role"] for each in messages] == ["user", "assistant", *["tool"] * len(names)]
    assert [each["id"] for each in messages[1]["tool_calls"]] == names
    assert [each["tool_call_id"] for each in messages[2:]] == names[::-1]


def test_it_names_a_block_far_down_a_long_turn():
    blocks = [text("a")] * (MOST_BLOCKS + 3)
    assert refused(user(*blocks, {"type": "image"})).path == f"messages[0].content[{len(blocks)}].source"


def test_it_sends_very_many_messages_as_they_are():
    turns = [user(f"q{number}") if number % 2 == 0 else assistant(f"a{number}") for number in range(1501)]
    whole = sent(*turns, system="be brief", temperature=0.5)
    assert whole["messages"] == [{"role": "system", "content": "be brief"}, *turns]
    assert (whole["model"], whole["temperature"], whole["stream"]) == ("local", 0.5, False)
