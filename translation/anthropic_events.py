"""Writing Anthropic's stream events.

One block is open at a time, indexes are contiguous, and each thinking block is signed before it ends.
"""

from __future__ import annotations

from .anthropic_response import build_message
from .errors import TranslationError, build_envelope
from .facts import ReplyFacts
from .ids import ThinkingSigner
from .json_text import Json, build_json
from .sse import build_event
from .stop_reasons import Stop
from .usage import Usage, build_usage

PING = build_event("ping", b'{"type":"ping"}')
MAX_PIECE = 8192
"""Characters of tool arguments in one event."""


class EventWriter:
    """Collects frames until `take`; `open_kind` is the kind of the open block, "" for none."""

    __slots__ = ("_facts", "_index", "_out", "_signer", "open_kind")

    def __init__(self, facts: ReplyFacts) -> None:
        self.open_kind = ""
        self._facts = facts
        self._index = -1
        self._out: list[bytes] = []
        self._signer = ThinkingSigner(facts.signature_key)

    def take(self) -> bytes:
        """The frames written since the last call."""
        if not self._out:
            return b""
        frames = b"".join(self._out)
        self._out.clear()
        return frames

    def start_message(self, usage: Usage) -> None:
        """Begin the message, and show at once that the line is alive."""
        message = build_message(self._facts, [], None, usage)
        self._write("message_start", {"type": "message_start", "message": message})
        self._out.append(PING)

    def write_text(self, text: str) -> None:
        """Text, in the open text block or a new one."""
        if self.open_kind != "text":
            self._start_block("text", {"type": "text", "text": ""})
        self._out.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":%b}}\n\n' % (self._index, build_json(text))
        )

    def write_thinking(self, text: str) -> None:
        """Thinking, in the open thinking block or a new one; only its signature when the client wants none."""
        if self.open_kind != "thinking":
            self._start_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._signer = ThinkingSigner(self._facts.signature_key)
        self._signer.update(text)
        if not self._facts.omit_thinking:
            self._write_delta({"type": "thinking_delta", "thinking": text})

    def start_tool(self, block: dict[str, Json]) -> None:
        """Open a tool_use block; its input begins empty and is filled by deltas."""
        self._start_block("tool_use", {**block, "input": {}})

    def write_arguments(self, text: str) -> None:
        """Arguments of the open tool_use block."""
        for start in range(0, len(text), MAX_PIECE):
            self._write_delta({"type": "input_json_delta", "partial_json": text[start : start + MAX_PIECE]})

    def close_block(self) -> None:
        """End the open block, if there is one."""
        if not self.open_kind:
            return
        if self.open_kind == "thinking":
            self._write_delta({"type": "signature_delta", "signature": self._signer.build_signature()})
        self._write("content_block_stop", {"type": "content_block_stop", "index": self._index})
        self.open_kind = ""

    def end_message(self, stop: Stop, usage: Usage) -> None:
        """End the message."""
        self.close_block()
        delta: dict[str, Json] = {"stop_reason": stop.reason, "stop_sequence": stop.sequence}
        if stop.details:
            delta["stop_details"] = stop.details
        self._write("message_delta", {"type": "message_delta", "delta": delta, "usage": build_usage(usage)})
        self._write("message_stop", {"type": "message_stop"})

    def is_empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._out

    def clear(self) -> None:
        """Forget what was not taken yet."""
        self._out.clear()

    def ping(self) -> None:
        """Show that the line is alive."""
        self._out.append(PING)

    def fail(self, error: TranslationError) -> None:
        """Say that the message will not be completed; nothing may follow."""
        self._out.append(build_event("error", build_envelope(error)))

    def _start_block(self, kind: str, block: dict[str, Json]) -> None:
        self.close_block()
        self._index += 1
        self.open_kind = kind
        self._write(
            "content_block_start", {"type": "content_block_start", "index": self._index, "content_block": block}
        )

    def _write_delta(self, delta: dict[str, Json]) -> None:
        self._write("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})

    def _write(self, name: str, data: dict[str, Json]) -> None:
        self._out.append(build_event(name, build_json(data)))
