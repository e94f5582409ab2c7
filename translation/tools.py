"""Tool definitions, tool names and tool_choice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .anthropic_request import AnthropicRequest, Tool
from .content_blocks import BlockReader
from .errors import TranslationError
from .facts import Feature
from .json_text import Json

_ODD_LETTERS = re.compile(r"[^a-zA-Z0-9_-]")
_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}

# Tools whose schema Anthropic's models know by heart; other models need it written out. Keyed by the type's stem.
_BUILT_IN: dict[str, tuple[str, dict[str, Json]]] = {
    "bash": (
        "Run a command in a persistent bash session.",
        {
            "type": "object",
            "properties": {
                "command": {**_STRING, "description": "The command to run."},
                "restart": {"type": "boolean", "description": "Restart the session instead of running a command."},
            },
        },
    ),
    "text_editor": (
        "View, create and edit text files.",
        {
            "type": "object",
            "properties": {
                "command": {**_STRING, "enum": ["view", "create", "str_replace", "insert", "undo_edit"]},
                "path": {**_STRING, "description": "Absolute path of the file or directory."},
                "file_text": {**_STRING, "description": "Content of the file for create."},
                "old_str": {**_STRING, "description": "Text to replace for str_replace; must be unique."},
                "new_str": {**_STRING, "description": "Replacement for str_replace, or text to insert."},
                "insert_line": {**_INTEGER, "description": "Line after which insert puts the text."},
                "insert_text": {**_STRING, "description": "Text for insert."},
                "view_range": {"type": "array", "items": _INTEGER, "description": "First and last line for view."},
            },
            "required": ["command", "path"],
        },
    ),
    "memory": (
        "View, create, edit, rename and delete files of the memory directory.",
        {
            "type": "object",
            "properties": {
                "command": {**_STRING, "enum": ["view", "create", "str_replace", "insert", "delete", "rename"]},
                "path": _STRING,
                "view_range": {"type": "array", "items": _INTEGER},
                "file_text": _STRING,
                "old_str": _STRING,
                "new_str": _STRING,
                "insert_line": _INTEGER,
                "insert_text": _STRING,
                "old_path": _STRING,
                "new_path": _STRING,
            },
            "required": ["command"],
        },
    ),
}
_BUILT_IN_TYPE = re.compile(r"^(bash|text_editor|memory)_\d{8}$")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


@dataclass(frozen=True, slots=True)
class ToolNames:
    """The client's tool names as the backend gets them, and back."""

    limit: int = 0
    renamed: dict[str, str] = field(default_factory=dict)  # sent -> the client's

    def sent_name(self, name: str) -> str:
        """The name to send: unchanged, or shortened reversibly for a backend with a limit."""
        if not self.limit or (len(name) <= self.limit and not _ODD_LETTERS.search(name)):
            return name
        mark = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        sent = f"{_ODD_LETTERS.sub('_', name)[: self.limit - 9]}_{mark}"
        self.renamed[sent] = name
        return sent


def build_tools(request: AnthropicRequest, names: ToolNames, reader: BlockReader) -> list[dict[str, Json]]:
    """The `tools` of a chat request; tools that only Anthropic's servers can run are noted as lost."""
    built = []
    seen: set[str] = set()
    for index, tool in enumerate(request.tools):
        definition = _build_tool(tool, f"tools[{index}]", names, reader)
        if definition is None:
            continue
        if tool.name in seen:
            raise TranslationError(f"the name {tool.name!r} is used twice", path=f"tools[{index}].name")
        seen.add(str(tool.name))
        built.append(definition)
    return built


def build_tool_choice(choice: Json, tools: list[dict[str, Json]], names: ToolNames) -> Json:
    """The `tool_choice` of a chat request, or None to leave the default; raises TranslationError."""
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "tool":
        return _build_forced_tool(choice, tools, names)
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise TranslationError("must be auto, any, tool or none", path="tool_choice")
    if tools:
        return _CHOICES[kind]
    if kind == "any":
        raise TranslationError("there is no tool that the chosen backend could call", path="tool_choice")
    return None


def forbids_parallel(choice: Json) -> bool:
    """Whether tool_choice asks for at most one call per answer."""
    return isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use") is True


def _build_tool(tool: Tool, path: str, names: ToolNames, reader: BlockReader) -> dict[str, Json] | None:
    known = _BUILT_IN_TYPE.match(tool.type or "")
    description, schema = tool.description, tool.input_schema
    if schema is None and known:
        default, schema = _BUILT_IN[known[1]]
        description = description or default
    if schema is None:
        if tool.type in {None, "custom"}:
            raise TranslationError("input_schema is required", path=path)
        reader.lose(Feature.SERVER_TOOL, str(tool.type))
        return None
    if not tool.name:
        raise TranslationError("name is required", path=path)
    function: dict[str, Json] = {"name": names.sent_name(tool.name)}
    if description:
        function["description"] = description
    function["parameters"] = schema if "type" in schema else {"type": "object", **schema}
    if tool.strict:
        if reader.traits.strict_tools:
            function["strict"] = True
        else:
            reader.lose(Feature.STRICT, "strict")
    return {"type": "function", "function": function}


def _build_forced_tool(choice: Json, tools: list[dict[str, Json]], names: ToolNames) -> Json:
    name = choice.get("name") if isinstance(choice, dict) else None
    if not isinstance(name, str) or not name:
        raise TranslationError("a choice of type tool needs a name", path="tool_choice")
    sent = names.sent_name(name)
    if not any(tool["function"]["name"] == sent for tool in tools):
        raise TranslationError(f"there is no tool {name!r} that the chosen backend could call", path="tool_choice")
    return {"type": "function", "function": {"name": sent}}
