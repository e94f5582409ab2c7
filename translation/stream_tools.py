"""Tool calls inside a stream: held back until they are sound, or streamed as they come.

Anthropic's stream shows one block at a time, OpenAI's may interleave several calls. By default each call is
held until its arguments are whole, checked, repaired if need be, and then written in one go; calls leave in the
order in which they began. In live mode the arguments of the first open call are passed on as they come,
unchecked, and the others wait for their turn.
"""

from __future__ import annotations

from .anthropic_events import EventWriter
from .anthropic_response import build_tool_use, check_named
from .facts import ReplyFacts
from .json_text import text_size
from .openai_answer import ToolDelta
from .tool_arguments import Quality
from .tool_calls import ToolCall, ToolCalls


class StreamedTools:
    """Feeds deltas in, writes blocks out, and counts what had to be mended."""

    def __init__(self, facts: ReplyFacts, writer: EventWriter) -> None:
        self.shown = 0
        self.argument_bytes = 0
        self.repaired = 0
        self.malformed = 0
        self._facts = facts
        self._writer = writer
        self._calls = ToolCalls(facts.tools)
        self._live: ToolCall | None = None

    def add(self, delta: ToolDelta) -> None:
        """Take a delta; raises TranslationError (502) when it cannot belong to any call."""
        call = self._calls.add(delta)
        self.argument_bytes += text_size(delta.arguments)
        if self._facts.live_arguments:
            self._advance_live()
        else:
            self._write_complete(before=call)

    def before_text(self) -> None:
        """Write the calls that are whole, so that text which follows them also stands after them."""
        self._close_live()
        self._write_complete(before=None)

    def finish(self) -> None:
        """Write all calls that are left; raises TranslationError (502) for one without name."""
        self._close_live()
        for call in self._calls.open_calls():
            self._write_whole(call)

    def _write_complete(self, before: ToolCall | None) -> None:
        """Write leading calls that are whole; the one that just grew may still grow."""
        for call in self._calls.open_calls():
            if call is before or not call.name or not call.is_complete():
                return
            self._write_whole(call)

    def _write_whole(self, call: ToolCall) -> None:
        call.closed = True
        if not check_named(call):
            return
        block, quality, text = build_tool_use(call, self.shown, self._facts)
        self.shown += 1
        self.repaired += quality is Quality.REPAIRED
        self.malformed += quality is Quality.MALFORMED
        self._writer.start_tool(block)
        if text != "{}":
            self._writer.write_arguments(text)
        self._writer.close_block()

    def _advance_live(self) -> None:
        """Stream the live call; when it is whole and another waits, let that one go live."""
        live = self._live or self._open_live()
        while live is not None and self._write_live(live):
            self._close_live()
            live = self._open_live()

    def _open_live(self) -> ToolCall | None:
        """Open the first waiting call, once its arguments begin: until then its name may still grow."""
        waiting = self._calls.open_calls()
        if not waiting or not waiting[0].name or not waiting[0].pieces:
            return None
        self._live = waiting[0]
        block = build_tool_use(self._live, self.shown, self._facts)[0]
        self.shown += 1
        self._writer.start_tool(block)
        return self._live

    def _write_live(self, live: ToolCall) -> bool:
        """Write what came for the live call; true when it is whole and another waits."""
        for piece in live.pieces[live.sent :]:
            self._writer.write_arguments(piece)
        live.sent = len(live.pieces)
        return len(self._calls.open_calls()) > 1 and live.is_complete()

    def _close_live(self) -> None:
        if self._live is not None:
            # Text that came for this call while another was live has been written already; what is broken now
            # cannot be mended any more.
            self.malformed += bool(self._live.pieces) and not self._live.is_complete()
            self._live.closed = True
            self._writer.close_block()
            self._live = None
