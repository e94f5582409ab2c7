"""The playground's scripts that know no page, run in node: frames, answers, requests, code to paste."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).with_name("playground_parts.js")
AWKWARD = "it's \"q\" $HOME `id` \\ \n !x %s \u2028 \u202e {{ 7*7 }} </script> 日本 '; rm -rf /"


class Node:
    """The scripts in one process of node; results of calls."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, *asked: Any) -> Any:
        """The result of one call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def run(self, *asked: list[Any]) -> list[Any]:
        """The results of several."""
        return [self.call(*each) for each in asked]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    path = shutil.which("node")
    assert path, "node is missing. On Debian and Ubuntu: apt install nodejs"
    pipe = subprocess.PIPE
    with subprocess.Popen([path, str(HARNESS)], stdin=pipe, stdout=pipe, text=True, encoding="utf-8") as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


# -- frames


def test_it_reads_events_however_they_are_cut(node):
    text = '\ufeff: hello\r\nevent: delta\r\ndata: {"a":\rdata:1}\r\n\r\nid: 7\ndata: ü\n\ndata:  two\n\n\n'

    found = node.call("cutEverywhere", "sse", text)

    assert [(each["event"], each["data"]) for each in found] == [
        ("delta", '{"a":\n1}'), ("message", "ü"), ("message", " two"),
    ]  # fmt: skip
    assert found[0]["raw"].startswith(": hello\nevent: delta")


def test_it_reads_an_event_without_its_blank_line(node):
    assert [each["data"] for each in node.call("cutEverywhere", "sse", "data: 1\n\ndata: [DONE]")] == [
        "1",
        "[DONE]",
    ]


def test_it_reads_lines_of_json_however_they_are_cut(node):
    found = node.call("cutEverywhere", "ndjson", '{"a": 1}\n\n{"b": "ü"}\r\n{"c": 3}')

    assert [json.loads(each["data"]) for each in found] == [{"a": 1}, {"b": "ü"}, {"c": 3}]


def test_it_ends_a_line_that_never_ends(node):
    assert "longer than 8 MB" in node.call("longLine")


def test_it_keeps_the_last_frames_within_number_and_size(node):
    few, large, cut = node.run(
        ["keep", 2, 1000, "a", "b", "c"], ["keep", 9, 10, "aaaa", "bbbb", "cccc"], ["keep", 9, 10, "x" * 30]
    )

    assert ([each["text"] for each in few["items"]], few["dropped"]) == (["b", "c"], 1)
    assert ([each["text"] for each in large["items"]], large["dropped"]) == (["bbbb", "cccc"], 1)
    assert cut["items"][0]["text"] == "xxxxxxxxxx … 20 more characters"


# -- answers


def test_it_joins_the_pieces_of_a_tool_call(node):
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    found = node.call(
        "answer", "chat", *[json.dumps({"choices": [{"delta": {"tool_calls": [each]}}]}) for each in pieces]
    )

    assert [(each["id"], each["name"], each["arguments"]) for each in found["calls"]] == [
        ("a", "f", '{"x": 1}'), ("b", "g", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("api", "value"),
    [
        ("chat", {"choices": [{"message": {"content": "Hi", "reasoning": "hm"}, "finish_reason": "stop"}]}),
        ("chat", {"choices": [{"message": {"content": [{"text": "Hi"}], "reasoning_content": "hm"},
                               "finish_reason": "stop"}]}),
        ("messages", {"type": "message", "stop_reason": "end_turn", "content": [
            {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}]}),
        ("generate", {"response": "Hi", "thinking": "hm", "done": True}),
    ],
)  # fmt: skip
def test_it_reads_an_answer_in_one_piece(node, api, value):
    found = node.call("answer", api, json.dumps(value))

    assert (found["text"], found["thinking"], found["ended"], found["error"]) == ("Hi", "hm", True, "")


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "7", "<html>", '{"choices": 3}', '{"choices": [null]}',
     '{"choices": [{"delta": {"content": {}}}]}',
     '{"choices": [{"delta": {"tool_calls": [null, 3, {"index": 1e9}, {"index": -1}]}}]}',
     '{"type": "content_block_delta", "delta": 3}', '{"type": "message", "content": [null, 4]}',
     '{"data": [null]}',
     '{"usage": 3, "done": true, "response": []}'],
)  # fmt: skip
def test_it_survives_an_answer_that_makes_no_sense(node, text):
    for found in node.run(*(["answer", api, text] for api in ("chat", "messages", "generate", "embeddings"))):
        assert found["text"] == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Too long.", "code": "context"}}, "HTTP 400: Too long. (context)"),
        ({"type": "error", "error": {"type": "overloaded", "message": "Busy."}}, "HTTP 400: Busy. (overloaded)"),
        ({"error": "model not found"}, "HTTP 400: model not found"),
        ({"detail": [{"loc": "x"}]}, 'HTTP 400: [{"loc":"x"}]'),
        ({"error": {"odd": 1}}, 'HTTP 400: {"odd":1}'),
        ({}, "HTTP 400"),
    ],
)
def test_it_reads_an_error_in_any_shape(node, body, words):
    assert node.call("readErrorBody", json.dumps(body), 400) == words


def test_it_reads_an_error_that_is_no_json(node):
    assert node.run(["readErrorBody", "Bad gateway\n", 502], ["readErrorBody", "", 500]) == [
        "HTTP 502: Bad gateway",
        "HTTP 500",
    ]


def test_it_says_when_a_speed_is_only_counted(node):
    measured, counted, chunks, none = node.run(
        ["measureRate", {"usage": {"output": 50, "seconds": 2}, "pieces": 9}, 1],
        ["measureRate", {"usage": {"output": 50}, "pieces": 9}, 5],
        ["measureRate", {"usage": {}, "pieces": 9}, 3],
        ["measureRate", {"usage": {}, "pieces": 0}, 3],
    )

    assert (measured["rate"], counted["rate"], none) == (25, 10, None)
    assert chunks == {"rate": 3, "unit": "chunks/s", "exact": False}


# -- requests

TURN = {
    "api": "messages", "prompt": "one", "images": [], "results": [],
    "answer": {"text": "", "thinking": "t", "signature": "s",
               "calls": [{"id": "c1", "name": "f", "arguments": '{"x": 1}'}]},
}  # fmt: skip


def test_it_sends_nothing_that_was_left_empty(node):
    assert node.call("build", {})["request"]["body"] == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_it_says_the_conversation_in_each_apis_words(node):
    now = {"prompt": "", "results": [{"id": "c1", "name": "f", "text": "done"}]}
    chat, messages = (
        node.call("build", {**now, "api": api}, [TURN])["request"]["body"] for api in ("chat", "messages")
    )

    assert chat["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]  # fmt: skip
    assert messages["messages"][1:] == [
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "done"}]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"temperature": "0,7"}, "temperature"), ({"temperature": "-1"}, "temperature"),
        ({"top_p": "1.1"}, "top_p"),
        ({"max_tokens": "1.5"}, "max_tokens"), ({"max_tokens": "0"}, "max_tokens"), ({"seed": "9" * 20}, "seed"),
        ({"temperature": "0x10 "}, None), ({"temperature": "Infinity"}, "temperature"),
        ({"tools": "[{]"}, "tools"), ({"tools": "{}"}, "tools"), ({"tools": "[null]"}, "tools"),
        ({"tools": '[{"type": "function", "function": {"name": ""}}]'}, "tools"), ({"extra": "[]"}, "extra"),
        ({"key": "ä b"}, "key"), ({"prompt": " "}, "prompt"), ({"model": " "}, "model"),
        ({"api": "embeddings", "temperature": "warm", "tools": "["}, None),
    ],
)  # fmt: skip
def test_it_names_the_field_that_is_wrong(node, fields, field):
    assert [each["field"] for each in node.call("build", fields)["problems"]] == ([field] if field else [])


def test_it_names_every_field_that_is_wrong(node):
    found = node.call("build", {"model": "", "temperature": "x", "top_p": "x", "tools": "x", "extra": "x"})

    assert {each["field"] for each in found["problems"]} == {"model", "temperature", "top_p", "tools", "extra"}


def test_it_writes_tools_in_the_shape_of_the_api(node):
    ours = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    theirs = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    for given in (ours, theirs):
        tools = json.dumps([given])
        assert node.call("build", {"tools": tools})["request"]["body"]["tools"] == [theirs]
        assert node.call("build", {"tools": tools, "api": "messages"})["request"]["body"]["tools"] == [ours]


def test_it_puts_other_fields_in_and_takes_them_out(node):
    body = node.call("build", {"extra": '{"stream_options": null, "top_k": 3}'})["request"]["body"]

    assert "stream_options" not in body
    assert body["top_k"] == 3


# -- code


def asked(**headers: str) -> dict[str, Any]:
    """A request with a name nobody expects."""
    body = {"model": AWKWARD, "stream": True, "n": None, "list": [], "temperature": 0.5, "deep": [{"x": AWKWARD}]}
    return {"url": "http://h:1/olla/x", "headers": {"Content-Type": "application/json", **headers}, "body": body}


def test_it_quotes_for_a_shell(node):
    words = shlex.split(node.call("code", "curl", asked()))
    words = [word for word in words if word != "\n"]

    assert words[:3] == ["curl", "-N", "http://h:1/olla/x"]
    assert json.loads(words[words.index("-d") + 1]) == asked()["body"]


def test_it_gives_a_long_body_to_standard_input(node):
    text = node.call("code", "curl", {**asked(), "body": {"prompt": "x" * 200_000}})

    assert "--data-binary @- <<'END_OF_BODY'\n{" in text
    assert text.endswith("\n}\nEND_OF_BODY")


def test_it_writes_python_that_means_the_same(node):
    tree = ast.parse(node.call("code", "Python", asked()))
    body = next(each for each in tree.body if isinstance(each, ast.Assign))

    assert ast.literal_eval(body.value) == asked()["body"]


def test_it_writes_no_key_and_nothing_that_hides(node):
    secrets = {"Authorization": "Bearer hunter2", "X-Olla-Operator": "token3", "X-Olla-Pin": "gpu"}
    for language in ("curl", "Python", "JavaScript"):
        text = node.call("code", language, asked(**secrets))
        assert "hunter2" not in text
        assert "token3" not in text
        assert "OLLA_API_KEY" in text
        assert "OLLA_OPERATOR_TOKEN" in text
        assert not {"\u202e", "\u2028"} & set(text)


def test_it_leaves_the_token_out_where_it_only_asked_for_the_trace(node):
    assert "Operator" not in node.call("code", "curl", asked(**{"X-Olla-Operator": "token3"}))
