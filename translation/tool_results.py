"""Tool results as OpenAI `tool` messages, whose content can only be text.

Pictures and files inside a result follow in a user message, labelled with the id of the call; the tool message
says so at their place.
"""

from __future__ import annotations

import msgspec

from .anthropic_request import Block
from .content_blocks import BlockReader, Part, read_string
from .json_text import Json, build_json_text

ERROR_PREFIX = "Error: "


class ToolResult(msgspec.Struct, frozen=True, gc=False):
    """One result: the call it answers, its text, and the parts that must follow in a user message."""

    call_id: str
    text: str
    attachments: list[Part]
    path: str


def read_tool_result(block: Block, path: str, reader: BlockReader) -> ToolResult:
    """Read a `tool_result` block; raises TranslationError when it names no call or holds something unreadable."""
    call_id = read_string(block, "tool_use_id", path)
    attachments: list[Part] = []
    text = _read_content(block.get("content"), f"{path}.content", reader, attachments)
    if block.get("is_error") is True and not text.lower().startswith("error"):
        text = ERROR_PREFIX + text
    if attachments:
        attachments.insert(0, f"Attachments of tool result {call_id}:")
    return ToolResult(call_id, text, attachments, path)


def _read_content(content: Json, path: str, reader: BlockReader, attachments: list[Part]) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    texts = _read_texts(blocks)
    if texts is not None:
        return "\n".join(texts)
    if not any(_is_block(block) for block in blocks):
        # Structured data that is no block at all stays what it is.
        return build_json_text(content)
    lines: list[str] = []
    for index, block in enumerate(blocks):
        _read_block(block, f"{path}[{index}]", reader, lines, attachments)
    return "\n".join(lines)


def _read_texts(blocks: list[Json]) -> list[str] | None:
    """The texts if there is nothing else, as nearly always; else None."""
    texts: list[str] = []
    for block in blocks:
        text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
        if not isinstance(text, str):
            return None
        if text:
            texts.append(text)
    return texts


def _read_block(block: Json, path: str, reader: BlockReader, lines: list[str], attachments: list[Part]) -> None:
    if not _is_block(block):
        lines.append(build_json_text(block))
    elif block["type"] == "tool_reference":
        lines.append(f"Tool available: {block.get('tool_name', '')}")
    elif not reader.knows(block):
        text = block.get("text")
        lines.append(text if isinstance(text, str) else build_json_text(block))
    else:
        for part in reader.read(block, path):
            if isinstance(part, str):
                lines.append(part)
            else:
                attachments.append(part)
                lines.append(f"[{block['type']} {len(attachments)}: attached below]")


def _is_block(value: Json) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)
