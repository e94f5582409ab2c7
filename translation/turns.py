"""The turns of a Messages request with their contents decoded, a batch at a time.

Decoding many turns in one call is thrice as fast as one by one, but nothing else happens meanwhile; so a long
conversation is opened in batches of a bounded size, and a turn of very many blocks comes in several parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from .anthropic_request import AnthropicRequest, Block, Turn
from .errors import TranslationError
from .json_text import InvalidJsonError, Json, parse_json, parse_typed

BATCH_BYTES = 64 * 1024
"""Bytes of contents that are decoded in one call, if more than one turn is."""
MOST_TURNS = 256
"""Turns that are decoded in one call."""
MOST_BLOCKS = 256
"""Blocks of one turn that are handed on at once."""


class DecodedTurn(msgspec.Struct, frozen=True, gc=False):
    """A turn with its content as blocks; a plain string is one text block. Of a long turn, one part."""

    role: str
    blocks: list[Block]
    index: int
    first: int = 0  # where its blocks begin in the turn

    @property
    def path(self) -> str:
        """The turn's name in errors."""
        return f"messages[{self.index}]"

    def name_block(self, offset: int) -> str:
        """A block's name in errors."""
        return f"messages[{self.index}].content[{self.first + offset}]"


_Content = str | list[Block] | Block
_CONTENTS: msgspec.json.Decoder[list[_Content]] = msgspec.json.Decoder(list[_Content])


def open_turns(request: AnthropicRequest) -> Iterator[list[DecodedTurn]]:
    """All turns in order, in batches; raises TranslationError naming the turn."""
    turns = request.messages
    start = size = 0
    for index, turn in enumerate(turns):
        size += len(turn.content)
        if size >= BATCH_BYTES or index - start >= MOST_TURNS - 1:
            yield _open_batch(turns[start : index + 1], start)
            start, size = index + 1, 0
    if start < len(turns):
        yield _open_batch(turns[start:], start)


def _open_batch(turns: Sequence[Turn], start: int) -> list[DecodedTurn]:
    try:
        contents = parse_typed(_CONTENTS, b"[" + b",".join([turn.content for turn in turns]) + b"]")
    except InvalidJsonError:
        # One of them is wrong: the slow way finds out which.
        contents = [_open_content(turn.content, f"messages[{start + at}]") for at, turn in enumerate(turns)]
    opened: list[DecodedTurn] = []
    for index, (turn, content) in enumerate(zip(turns, contents, strict=True), start):
        if isinstance(content, str):
            opened.append(DecodedTurn(turn.role, [{"type": "text", "text": content}], index))
            continue
        blocks = content if isinstance(content, list) else [content]
        if len(blocks) <= MOST_BLOCKS or turn.role == "system":
            opened.append(DecodedTurn(turn.role, blocks, index))
        else:
            opened += _split(turn.role, blocks, index)
    return opened


def _split(role: str, blocks: list[Block], index: int) -> list[DecodedTurn]:
    """A long turn in parts, which mean the same: neighbouring turns of one role are one turn."""
    starts = range(0, len(blocks), MOST_BLOCKS)
    return [DecodedTurn(role, blocks[start : start + MOST_BLOCKS], index, start) for start in starts]


def _open_content(content: msgspec.Raw, path: str) -> _Content:
    try:
        value: Json = parse_json(content)
    except InvalidJsonError as error:
        raise TranslationError(str(error), path=f"{path}.content") from None
    if isinstance(value, str | dict):
        return value
    if not isinstance(value, list):
        raise TranslationError("must be a string or a list of content blocks", path=f"{path}.content")
    for index, block in enumerate(value):
        if not isinstance(block, dict):
            raise TranslationError("must be an object", path=f"{path}.content[{index}]")
    return value
