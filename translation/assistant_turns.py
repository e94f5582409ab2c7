"""Earlier assistant turns as messages of a chat request: text, tool calls and, where wanted, thinking."""

from __future__ import annotations

from .anthropic_request import Block
from .backend_traits import ThinkingHistory
from .content_blocks import BlockReader, read_string
from .errors import TranslationError
from .facts import Feature
from .json_text import Json, build_json_text
from .server_blocks import describe_server_block, is_server_block
from .tools import ToolNames
from .turns import DecodedTurn

Message = dict[str, Json]

_THINKING_FIELDS = {
    ThinkingHistory.REASONING: "reasoning",
    ThinkingHistory.REASONING_CONTENT: "reasoning_content",
}


class AssistantDraft:
    """What an assistant said in one turn, or in several of which each continues the one before."""

    __slots__ = ("_calls", "_names", "_reader", "_texts", "_thoughts", "paths")

    def __init__(self, reader: BlockReader, names: ToolNames) -> None:
        self.paths: dict[str, str] = {}  # the calls, in order: id -> path of the block
        self._reader = reader
        self._names = names
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Json] = []

    def read(self, turn: DecodedTurn) -> None:
        """Take a turn's blocks; raises TranslationError."""
        for offset, block in enumerate(turn.blocks):
            text = block.get("text")
            if block.get("type") == "text" and isinstance(text, str):  # most are; the rest is slower
                self._texts.append(text)
            else:
                self._read_block(block, turn.name_block(offset))

    def is_empty(self) -> bool:
        """Whether nothing of it can be sent."""
        if self._calls or any(self._texts):
            return False
        return self._reader.traits.thinking_history is ThinkingHistory.DROP or not any(self._thoughts)

    def extend(self, more: AssistantDraft) -> None:
        """Join what was said next, without a word of others between; raises TranslationError."""
        for call_id, path in more.paths.items():
            if call_id in self.paths:
                raise TranslationError(f"the id {call_id!r} is used twice", path=path)
        self.paths.update(more.paths)
        self._texts += more._texts
        self._thoughts += more._thoughts
        self._calls += more._calls

    def build(self) -> Message:
        """The message to send."""
        text, thought = "".join(self._texts), "".join(self._thoughts)
        traits = self._reader.traits
        if traits.thinking_history is ThinkingHistory.THINK_TAGS and thought:
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        empty = None if self._calls and not traits.empty_content else ""
        message: Message = {"role": "assistant", "content": text or empty}
        field = _THINKING_FIELDS.get(traits.thinking_history)
        if field and thought:
            message[field] = thought
        if self._calls:
            message["tool_calls"] = self._calls
        return message

    def _read_block(self, block: Block, path: str) -> None:
        kind = block.get("type")
        if kind == "tool_use":
            self._read_call(block, path)
        elif kind == "text":
            self._texts.append(read_string(block, "text", path))
        elif kind == "thinking":
            self._thoughts.append(read_string(block, "thinking", path))
        elif is_server_block(block):
            self._texts.append(describe_server_block(block) + "\n")
        elif kind != "redacted_thinking":
            self._read_unknown(block, path)

    def _read_unknown(self, block: Block, path: str) -> None:
        text = block.get("text")
        if isinstance(text, str):
            self._texts.append(text)
        else:
            self._reader.lose(Feature.BLOCK, str(block.get("type", path)))

    def _read_call(self, block: Block, path: str) -> None:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not call_id or not isinstance(name, str) or not name:
            raise TranslationError("a tool_use block needs an id and a name", path=path)
        if call_id in self.paths:
            raise TranslationError(f"the id {call_id!r} is used twice", path=path)
        function = {"name": self._names.sent_name(name), "arguments": _build_arguments(block.get("input"), path)}
        self.paths[call_id] = path
        self._calls.append({"id": call_id, "type": "function", "function": function})


def _build_arguments(given: Json, path: str) -> str:
    if given is None:
        return "{}"
    if not isinstance(given, dict):
        raise TranslationError("must be an object", path=f"{path}.input")
    return build_json_text(given)
