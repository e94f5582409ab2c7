"""The turns of a Messages request as the messages of a chat request.

Three rules hold the order together. Nothing may stand between an assistant's tool calls and their results, so
results come first and whatever else the user said follows. Neighbouring turns of one role are one turn, as in
the genuine API. A turn of which nothing is left disappears.
"""

from __future__ import annotations

from dataclasses import dataclass

from .anthropic_request import Block
from .assistant_turns import AssistantDraft, Message
from .backend_traits import BrokenPair, InlineSystem
from .content_blocks import BlockReader, Part, merge_parts, read_string
from .errors import TranslationError
from .facts import Feature
from .json_text import Json
from .tool_results import ToolResult, read_tool_result
from .tools import ToolNames
from .turns import DecodedTurn

_USER_ROLES = frozenset({"user", "ctx", "msg"})
_ATTRIBUTION = "x-anthropic-billing-header"
_MISSING_RESULT = "Error: this call was never answered."


@dataclass(frozen=True, slots=True)
class SystemText:
    """A system turn that stays one, waiting among the user's parts for its place."""

    text: str


class Conversation:
    """Builds the message list turn by turn; call `finish` once at the end."""

    def __init__(self, reader: BlockReader, names: ToolNames) -> None:
        self.messages: list[Message] = []
        self.added_system: list[str] = []
        self._reader = reader
        self._names = names
        self._spoken: AssistantDraft | None = None  # the last assistant turn, and those that only continue it
        self._results: dict[str, str] = {}  # texts of those that have come
        self._waiting: list[Part | SystemText] = []

    def add(self, turn: DecodedTurn) -> None:
        """Take the next turn; raises TranslationError."""
        if turn.role in _USER_ROLES:
            self._add_user(turn)
        elif turn.role == "assistant":
            self._add_assistant(turn)
        elif turn.role == "system":
            self._add_system(turn)
        else:
            raise TranslationError(f"unknown role {turn.role!r}", path=f"{turn.path}.role")

    def finish(self) -> list[Message]:
        """The finished list; raises TranslationError when nothing was said."""
        self._settle()
        if not self.messages:
            raise TranslationError("messages: at least one message must have content")
        return self.messages

    def _add_user(self, turn: DecodedTurn) -> None:
        waiting = self._waiting
        for offset, block in enumerate(turn.blocks):
            kind, text = block.get("type"), block.get("text")
            if kind == "text" and isinstance(text, str):  # most are; the rest is slower
                if text:
                    waiting.append(text)
            elif kind == "tool_result":
                self._add_result(read_tool_result(block, turn.name_block(offset), self._reader))
            elif kind == "tool_use":
                raise TranslationError(
                    "a tool_use block cannot stand in a user turn", path=turn.name_block(offset)
                )
            else:
                waiting += self._reader.read(block, turn.name_block(offset))

    def _add_result(self, result: ToolResult) -> None:
        open_calls = self._spoken.paths if self._spoken is not None else ()
        if result.call_id in open_calls and result.call_id not in self._results:
            self._results[result.call_id] = result.text
            self._waiting += result.attachments
        elif self._reader.traits.stray_results is BrokenPair.MEND:
            self._waiting += [f"Result of tool call {result.call_id}:\n{result.text}", *result.attachments]
        else:
            raise TranslationError(
                f"tool_use_id {result.call_id!r} answers no open tool_use block of the previous assistant turn",
                path=result.path,
            )

    def _add_system(self, turn: DecodedTurn) -> None:
        text = read_system(turn.blocks, self._reader, f"{turn.path}.content")
        policy = self._reader.traits.inline_system
        if not text:
            return
        if policy is InlineSystem.MERGE:
            self.added_system.append(text)
        elif policy is InlineSystem.KEEP:
            self._waiting.append(SystemText(text))
        else:
            self._waiting.append(f"<system-reminder>\n{text}\n</system-reminder>")

    def _add_assistant(self, turn: DecodedTurn) -> None:
        draft = AssistantDraft(self._reader, self._names)
        draft.read(turn)
        if draft.is_empty():
            return
        if self._spoken is not None and not self._waiting and not self._results:
            self._spoken.extend(draft)
        else:
            self._settle()
            self._spoken = draft

    def _settle(self) -> None:
        """Write what the assistant said, the results of its calls, then what the user said besides."""
        spoken, self._spoken = self._spoken, None
        if spoken is not None:
            self.messages.append(spoken.build())
            if spoken.paths:
                self._write_results(spoken.paths)
        if self._waiting:
            self._flush_waiting()

    def _write_results(self, calls: dict[str, str]) -> None:
        results, self._results = self._results, {}
        traits = self._reader.traits
        for call_id, path in calls.items():
            if call_id not in results:
                if traits.unanswered_calls is BrokenPair.REFUSE:
                    raise TranslationError(
                        f"tool_use id {call_id!r} has no tool_result block in the next turn", path=path
                    )
                results[call_id] = _MISSING_RESULT
        for call_id in calls if traits.results_in_call_order else results:
            self.messages.append({"role": "tool", "tool_call_id": call_id, "content": results[call_id]})

    def _flush_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        parts: list[Part] = []
        for item in waiting:
            if isinstance(item, SystemText):
                self._append_user(parts)
                parts = []
                self.messages.append({"role": "system", "content": item.text})
            else:
                parts.append(item)
        self._append_user(parts)

    def _append_user(self, parts: list[Part]) -> None:
        if parts:
            self.messages.append({"role": "user", "content": merge_parts(parts)})


def read_system(system: Json, reader: BlockReader, path: str = "system") -> str:
    """The text of a system prompt, or of a system turn: a string, or text blocks joined by a blank line.

    A block that only carries the client's attribution is dropped: it changes with every release and would make
    each prompt new to the backend's cache.
    """
    if system is None or isinstance(system, str):
        return system or ""
    if not isinstance(system, list):
        raise TranslationError("must be a string or a list of text blocks", path=path)
    texts = []
    for index, block in enumerate(system):
        place = f"{path}[{index}]"
        if not isinstance(block, dict):
            raise TranslationError("must be a text block", path=place)
        text = _read_system_block(block, reader, place)
        if text and not text.startswith(_ATTRIBUTION):
            texts.append(text)
    return "\n\n".join(texts)


def _read_system_block(block: Block, reader: BlockReader, path: str) -> str:
    if block.get("type", "text") == "text":
        return read_string(block, "text", path)
    reader.lose(Feature.SYSTEM_BLOCK, f"{path}.{block['type']}")
    return ""
