"""Blocks of tools that ran on Anthropic's servers, as text for a model that never had those tools.

Histories that began at the genuine API hold searches, fetched pages and program runs. Their readable parts are
kept; the encrypted ones mean nothing to anybody else.
"""

from __future__ import annotations

from .anthropic_request import Block
from .json_text import Json, build_json_text

_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
_READABLE = ("title", "url", "text", "data", "stdout", "stderr", "tool_name", "error_code")
_NESTED = ("content", "source", "tool_references")
_MAX_DEPTH = 6


def is_server_block(block: Block) -> bool:
    """Whether a block belongs to a tool that ran elsewhere: its call or its result."""
    kind = block.get("type")
    return isinstance(kind, str) and (kind in _CALLS or kind.endswith("_tool_result"))


def describe_server_block(block: Block) -> str:
    """The block as a line or paragraph in square brackets."""
    if block["type"] in _CALLS:
        return f"[{block.get('name', 'tool')}: {build_json_text(block.get('input', {}))}]"
    lines: list[str] = []
    _collect(block.get("content"), lines, _MAX_DEPTH)
    head = str(block["type"]).replace("_", " ")
    return "\n".join([f"[{head}]", *lines])


def _collect(value: Json, lines: list[str], depth: int) -> None:
    if isinstance(value, str) and value:
        lines.append(value)
    elif isinstance(value, list) and depth > 0:
        for item in value:
            _collect(item, lines, depth - 1)
    elif isinstance(value, dict) and depth > 0:
        _collect_object(value, lines, depth)


def _collect_object(value: dict[str, Json], lines: list[str], depth: int) -> None:
    binary = value.get("type") == "base64"
    for name in _READABLE:
        if name in value and not (binary and name == "data"):
            _collect(value[name], lines, 0)
    for name in _NESTED:
        _collect(value.get(name), lines, depth - 1)
