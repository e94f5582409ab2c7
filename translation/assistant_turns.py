"""Earlier assistant turns as messages of a chat request: text, tool calls and, where wanted, thinking."""

from __future__ import annotations

import msgspec

from .anthropic_request import Block, DecodedTurn
from .backend_traits import ThinkingHistory
from .content_blocks import BlockReader, read_string
from .errors import TranslationError
from .facts import Feature
from .json_text import Json, build_json_text
from .server_blocks import describe_server_block, is_server_block
from .tools import ToolNames

Message = dict[str, Json]

_THINKING_FIELDS = {
    ThinkingHistory.REASONING: "reasoning",
    ThinkingHistory.REASONING_CONTENT: "reasoning_content",
}


class AssistantMessage(msgspec.Struct, frozen=True):
    """A chat message and the calls it makes: id -> path of the block."""

    message: Message
    calls: dict[str, str]


class _Draft:
    """The pieces of one turn while its blocks are read."""

    def __init__(self, reader: BlockReader, names: ToolNames) -> None:
        self.reader = reader
        self.names = names
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[Json] = []
        self.paths: dict[str, str] = {}

    def read(self, block: Block, path: str) -> None:
        kind = block.get("type")
        if kind == "tool_use":
            self._read_call(block, path)
        elif kind == "text":
            self.texts.append(read_string(block, "text", path))
        elif kind == "thinking":
            self.thoughts.append(read_string(block, "thinking", path))
        elif is_server_block(block):
            self.texts.append(describe_server_block(block) + "\n")
        elif kind != "redacted_thinking":
            self._read_unknown(block, path)

    def _read_unknown(self, block: Block, path: str) -> None:
        text = block.get("text")
        if isinstance(text, str):
            self.texts.append(text)
        else:
            self.reader.lose(Feature.BLOCK, str(block.get("type", path)))

    def _read_call(self, block: Block, path: str) -> None:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not call_id or not isinstance(name, str) or not name:
            raise TranslationError("a tool_use block needs an id and a name", path=path)
        if call_id in self.paths:
            raise TranslationError(f"the id {call_id!r} is used twice", path=path)
        function = {"name": self.names.sent_name(name), "arguments": _build_arguments(block.get("input"), path)}
        self.paths[call_id] = path
        self.calls.append({"id": call_id, "type": "function", "function": function})

    def build(self) -> AssistantMessage | None:
        text, thought = "".join(self.texts), "".join(self.thoughts)
        traits = self.reader.traits
        if traits.thinking_history is ThinkingHistory.THINK_TAGS and thought:
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        field = _THINKING_FIELDS.get(traits.thinking_history) if thought else None
        if not (text or self.calls or field):
            return None
        empty = None if self.calls and not traits.empty_content else ""
        message: Message = {"role": "assistant", "content": text or empty}
        if field:
            message[field] = thought
        if self.calls:
            message["tool_calls"] = self.calls
        return AssistantMessage(message, self.paths)


def build_assistant_message(turn: DecodedTurn, reader: BlockReader, names: ToolNames) -> AssistantMessage | None:
    """The message of an assistant turn, or None when nothing of it can be sent; raises TranslationError."""
    draft = _Draft(reader, names)
    for index, block in enumerate(turn.blocks):
        draft.read(block, f"{turn.path}.content[{index}]")
    return draft.build()


def append_assistant(last: Message, more: Message) -> None:
    """Join a message to the assistant message before it."""
    for field in ("content", *_THINKING_FIELDS.values()):
        if more.get(field):
            last[field] = (last.get(field) or "") + more[field]
    if "tool_calls" in more:
        last["tool_calls"] = [*last.get("tool_calls", ()), *more["tool_calls"]]


def _build_arguments(given: Json, path: str) -> str:
    if given is None:
        return "{}"
    if not isinstance(given, dict):
        raise TranslationError("must be an object", path=f"{path}.input")
    return build_json_text(given)
