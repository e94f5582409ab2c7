"""Tool calls put together from deltas, whatever the backend does with ids and indexes.

A call is recognised by its index. Backends also send every call under index 0, give ids or names in a later
chunk than the arguments, repeat both in every chunk, leave ids out, or change the id of a running call; the
rules for when a delta begins a new call are in `_begins_new`.
"""

from __future__ import annotations

from .errors import TranslationError
from .openai_answer import ToolDelta
from .tool_arguments import is_complete_object

MAX_CALLS = 512
MAX_ARGUMENTS = 32 * 1024 * 1024
"""Characters of arguments held for one answer."""


class ToolCall:
    """One call while it is put together; `sent` pieces have left, a `closed` one takes no more."""

    __slots__ = ("_complete", "_judged", "call_id", "closed", "has_function", "name", "pieces", "sent")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.sent = 0
        self.closed = False
        self.has_function = False
        self._judged = 0
        self._complete = False

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces)

    def is_complete(self) -> bool:
        """Whether the arguments are one whole JSON object."""
        if self._judged != len(self.pieces):
            # Asked again and again while other calls grow: look only at new pieces, parse only what may be whole.
            self._judged = len(self.pieces)
            tail = self.pieces[-1].rstrip()
            self._complete = (not tail or tail.endswith("}")) and is_complete_object(self.text)
        return self._complete


class ToolCalls:
    """All calls of an answer, in the order in which they began."""

    def __init__(self, declared: frozenset[str] = frozenset()) -> None:
        self.calls: list[ToolCall] = []
        self._declared = declared
        self._latest: dict[int, ToolCall] = {}
        self._size = 0

    def add(self, delta: ToolDelta) -> ToolCall:
        """Put a delta where it belongs and return that call; raises TranslationError (502)."""
        call = self._latest.get(delta.slot)
        if call is None or self._begins_new(call, delta):
            call = self._begin(delta.slot)
        call.has_function = call.has_function or delta.has_function
        if delta.call_id and not call.call_id:
            call.call_id = delta.call_id
        if delta.name:
            _add_name(call, delta)
        if delta.arguments:
            self._add_arguments(call, delta.arguments)
        return call

    def open_calls(self) -> list[ToolCall]:
        """The calls that have not been closed, in the order in which they began."""
        return [call for call in self.calls if not call.closed]

    def _begin(self, slot: int) -> ToolCall:
        if len(self.calls) >= MAX_CALLS:
            raise TranslationError("The backend's answer holds too many tool calls.", status=502)
        call = ToolCall()
        self.calls.append(call)
        self._latest[slot] = call
        return call

    def _begins_new(self, call: ToolCall, delta: ToolDelta) -> bool:
        """Whether a delta under the index of a known call is another call."""
        if delta.call_id and call.call_id and delta.call_id != call.call_id:
            # A new id alone, while arguments are under way, is a backend that draws one per chunk.
            return bool(delta.name) or call.is_complete()
        if not delta.name or not call.name or (delta.call_id and delta.call_id == call.call_id):
            return False
        if call.pieces:
            return call.is_complete() and (delta.name != call.name or bool(delta.arguments.strip()))
        # Two names without arguments between: two tools if both exist, else one name in two pieces.
        return delta.name != call.name and {delta.name, call.name} <= self._declared

    def _add_arguments(self, call: ToolCall, arguments: str) -> None:
        if call.closed:
            if arguments.strip():
                raise TranslationError("The backend sent arguments for a tool call that had ended.", status=502)
            return
        self._size += len(arguments)
        if self._size > MAX_ARGUMENTS:
            raise TranslationError("The backend's tool arguments are too long.", status=502)
        call.pieces.append(arguments)


def _add_name(call: ToolCall, delta: ToolDelta) -> None:
    """Set or lengthen a name; a repeated one, or one that comes after arguments began, says nothing new."""
    if not call.name:
        call.name = delta.name
    elif delta.name != call.name and not call.pieces:
        call.name += delta.name
