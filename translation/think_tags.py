"""Models that write their thinking into the answer: `<think>...</think>` at its beginning."""

from __future__ import annotations

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkTagSplitter:
    """Splits an answer that arrives in pieces into thinking and text; a tag may be cut anywhere."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "start"  # start, inside, after (only blanks since the tag), outside
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """The thinking and the text that the next piece makes certain."""
        if self._state == "outside":
            return "", text
        self._held += text
        if self._state == "start":
            self._find_open()
        thinking = self._take_thinking() if self._state == "inside" else ""
        return thinking, self._take_text()

    def close(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._state == "inside":
            return held.rstrip("\n"), ""
        return "", "" if self._state == "after" else held

    def _find_open(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(_OPEN):
            self._held = begun[len(_OPEN) :].lstrip("\n")
            self._state = "inside"
        elif begun and not _OPEN.startswith(begun):
            self._state = "outside"

    def _take_thinking(self) -> str:
        thinking, found, rest = self._held.partition(_CLOSE)
        if found:
            self._held = rest
            self._state = "after"
            return thinking.rstrip("\n")
        # Line ends stay back too: those before the closing tag are no part of the thought.
        safe = len(thinking) - _tag_overlap(thinking)
        safe = len(thinking[:safe].rstrip("\n"))
        self._held = thinking[safe:]
        return thinking[:safe]

    def _take_text(self) -> str:
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "outside"
        if self._state != "outside":
            return ""
        text, self._held = self._held, ""
        return text


def _tag_overlap(text: str) -> int:
    """How many of the last characters may be the beginning of the closing tag."""
    for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if _CLOSE.startswith(text[-length:]):
            return length
    return 0
