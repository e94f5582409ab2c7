"""Server-sent events: reading a backend's stream in arbitrary pieces, and writing frames.

The reader is lenient where backends are sloppy: no space after the colon, CR before LF, a byte order mark,
comments, a last event without blank line, and llama.cpp's old `error:` field. It follows the event stream
format of the HTML standard otherwise, except that a lone CR ends no line: JSON data never holds one.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one line, and of the data of one event."""

_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its name, "" when it has none, and its data."""

    name: str
    data: bytes


class SseLimitError(ValueError):
    """A line or an event is longer than any honest one."""


class SseParser:
    """Bytes in any pieces to events; `close` yields what the last line completes."""

    __slots__ = ("_data", "_first", "_held", "_limit", "_name", "_pieces", "_size")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._held = 0
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self._first = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes; raises SseLimitError."""
        if b"\n" not in chunk:
            self._hold(chunk)
            return []
        if self._held:
            chunk = b"".join((*self._pieces, chunk))
        lines = chunk.split(b"\n")
        self._pieces, self._held = [], 0
        self._hold(lines.pop())
        events: list[SseEvent] = []
        for line in lines:
            self._read_line(line, events)
        return events

    def close(self) -> list[SseEvent]:
        """The event that the end of the stream completes, if one was begun."""
        events: list[SseEvent] = []
        line = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        if line:
            self._read_line(line, events)
        self._dispatch(events)
        return events

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held > self._limit:
                raise SseLimitError("a line of the backend's stream is too long")

    def _read_line(self, line: bytes, events: list[SseEvent]) -> None:
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        if line.endswith(b"\r"):
            line = line[:-1]
        if not line:
            self._dispatch(events)
        elif line.startswith(b"data:"):
            self._add(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif line.startswith(b"event:"):
            self._name = line[6:].strip().decode("utf-8", "replace")
        elif line.startswith(b"error:"):
            self._name = "error"
            self._add(line[6:].strip())

    def _add(self, data: bytes) -> None:
        self._data.append(data)
        self._size += len(data)
        if self._size > self._limit:
            raise SseLimitError("an event of the backend's stream is too long")

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(SseEvent(self._name, data))
            self._data, self._size = [], 0
        self._name = ""


def build_event(name: str, data: bytes) -> bytes:
    """One frame: name, a single line of JSON, blank line. Official SDKs ignore frames without a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
