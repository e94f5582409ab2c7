"""A checker for Anthropic event streams; every stream test sends its bytes through `read_stream`.

Grammar: message_start, then blocks (start, deltas, stop) with contiguous indexes and never two open, then
message_delta and message_stop; pings anywhere after message_start; an error event may end the stream at any place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_DELTAS = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
}


@dataclass
class Stream:
    """A checked stream: its events without pings, the message they make, and the error that ended it."""

    events: list[dict[str, Any]] = field(default_factory=list)
    message: dict[str, Any] = field(default_factory=dict)
    error: Any = None
    pings: int = 0

    @property
    def outline(self) -> list[str]:
        """The events in short: `+text`, `text_delta`, `-` and so on."""
        short = {
            "message_start": "start",
            "message_delta": "delta",
            "message_stop": "stop",
            "content_block_stop": "-",
        }
        names = []
        for event in self.events:
            if event["type"] == "content_block_start":
                names.append("+" + event["content_block"]["type"])
            elif event["type"] == "content_block_delta":
                names.append(event["delta"]["type"])
            else:
                names.append(short.get(event["type"], event["type"]))
        return names


def read_frames(data: bytes) -> list[dict[str, Any]]:
    """Split bytes into frames and check their form."""
    assert not data or data.endswith(b"\n\n"), data[-80:]
    frames = []
    for frame in data.split(b"\n\n")[:-1]:
        first, second = frame.split(b"\n")
        assert first.startswith(b"event: "), frame
        assert second.startswith(b"data: "), frame
        value = json.loads(second[6:])
        assert value["type"] == first[7:].decode(), frame
        frames.append(value)
    return frames


def read_stream(data: bytes, *, finished: bool = True, live: bool = False) -> Stream:
    """Check a stream against the grammar and put its message together."""
    checker = _Checker(live=live)
    for value in read_frames(data):
        checker.take(value)
    stream = checker.stream
    if finished:
        assert checker.stopped or stream.error is not None, "stream without end"
    if checker.stopped:
        Message.model_validate(stream.message, strict=True)
    return stream


class _Checker:
    """Takes events one by one and fails at the first that may not stand there."""

    def __init__(self, *, live: bool) -> None:
        self.stream = Stream()
        self.stopped = False
        self._live = live
        self._open: dict[str, Any] | None = None
        self._signed = False
        self._pieces: list[str] = []

    def take(self, value: dict[str, Any]) -> None:
        kind = value["type"]
        assert self.stream.error is None, f"{kind} after error"
        assert not self.stopped, f"{kind} after message_stop"
        if kind == "ping":
            assert value == {"type": "ping"}
            assert self.stream.events, "ping before message_start"
            self.stream.pings += 1
            return
        self.stream.events.append(value)
        if kind != "error":
            _EVENTS.validate_python(value)
        if kind not in {"error", "message_start"}:
            assert self.stream.message, f"{kind} before message_start"
        getattr(self, "_take_" + kind)(value)

    def _take_error(self, value: dict[str, Any]) -> None:
        assert set(value) <= {"type", "error", "request_id"}
        assert set(value["error"]) == {"type", "message"}
        assert value["error"]["message"]
        self.stream.error = value["error"]

    def _take_message_start(self, value: dict[str, Any]) -> None:
        assert len(self.stream.events) == 1
        self.stream.message = _check_start(value["message"])

    def _take_content_block_start(self, value: dict[str, Any]) -> None:
        content = self.stream.message["content"]
        assert self._open is None, "two blocks open"
        assert self.stream.message["stop_reason"] is None
        assert value["index"] == len(content)
        self._open, self._pieces, self._signed = _check_block(value["content_block"]), [], False
        content.append(self._open)

    def _take_content_block_delta(self, value: dict[str, Any]) -> None:
        assert self._open is not None
        assert value["index"] == len(self.stream.message["content"]) - 1
        assert not self._signed, "delta after signature"
        self._signed = value["delta"]["type"] == "signature_delta"
        _apply_delta(self._open, value["delta"], self._pieces)

    def _take_content_block_stop(self, value: dict[str, Any]) -> None:
        assert self._open is not None
        assert value["index"] == len(self.stream.message["content"]) - 1
        _close_block(self._open, self._pieces, signed=self._signed, live=self._live)
        self._open = None

    def _take_message_delta(self, value: dict[str, Any]) -> None:
        assert self._open is None
        _apply_end(self.stream.message, value)

    def _take_message_stop(self, _: dict[str, Any]) -> None:
        assert self.stream.message["stop_reason"]
        self.stopped = True


def _check_start(message: dict[str, Any]) -> Any:
    assert message["type"] == "message"
    assert message["role"] == "assistant"
    assert message["id"].startswith("msg_01")
    assert message["content"] == []
    assert message["stop_reason"] is None
    assert message["stop_sequence"] is None
    usage = message["usage"]
    names = ["input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
    assert [type(usage[name]) for name in names] == [int] * 4
    return json.loads(json.dumps(message))


def _check_block(block: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    for name, value in empty[block["type"]].items():
        assert block[name] == value
    if block["type"] == "tool_use":
        assert block["id"]
        assert block["name"]
    return dict(block)


def _apply_delta(block: dict[str, Any], delta: dict[str, Any], pieces: list[str]) -> None:
    field_name = _DELTAS[block["type"]][delta["type"]]
    assert isinstance(delta[field_name], str)
    assert delta[field_name], "empty delta"
    if field_name == "partial_json":
        pieces.append(delta[field_name])
    else:
        block[field_name] += delta[field_name]


def _close_block(block: dict[str, Any], pieces: list[str], *, signed: bool, live: bool) -> None:
    if block["type"] == "thinking":
        assert signed, "thinking without signature"
    if pieces:
        try:
            block["input"] = json.loads("".join(pieces))
        except ValueError:
            assert live, "broken arguments"
            block["input"] = {}
        if live and not isinstance(block["input"], dict):
            block["input"] = {}
        assert isinstance(block["input"], dict)


def _apply_end(message: dict[str, Any], value: dict[str, Any]) -> None:
    assert message["stop_reason"] is None, "two message_delta"
    assert value["delta"]["stop_reason"]
    assert isinstance(value["usage"]["output_tokens"], int)
    message.update(value["delta"])
    message["usage"] = {**message["usage"], **value["usage"]}
