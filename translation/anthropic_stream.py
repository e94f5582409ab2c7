"""A chat backend's stream as Anthropic events, bytes in and bytes out.

The caller feeds what the backend sends, with the time, and passes on what comes back. While nothing has come
back (`started` is false) a failure can still become a proper status: `error` says which. Afterwards a failure
is an `error` event and nothing follows it; a stream that breaks off is never made to look complete.
"""

from __future__ import annotations

from .anthropic_events import EventWriter
from .anthropic_response import AnswerReport, parse_answer, read_event
from .errors import TranslationError
from .facts import ReplyFacts
from .json_text import text_size
from .openai_answer import Chunk
from .sse import SseEvent, SseLimitError, SseParser
from .stop_reasons import Ending, choose_stop
from .stream_tools import StreamedTools
from .think_tags import ThinkTagSplitter
from .usage import NO_USAGE, Usage, fill_usage, merge_usage

PING_INTERVAL = 12.0
"""Seconds of silence after which a ping is due; some clients give up after 300."""
MAX_JSON_ANSWER = 32 * 1024 * 1024
"""Bytes of a whole JSON answer that came instead of a stream."""


class AnthropicStream:
    """One answer on its way; `done` means that nothing more will come and the backend may be let go."""

    def __init__(self, facts: ReplyFacts, now: float, *, ping_interval: float = PING_INTERVAL) -> None:
        self.started = False  # something was handed out, so the status can no longer change
        self.done = False
        self.error: TranslationError | None = None
        self.usage: Usage | None = None
        self._facts = facts
        self._interval = ping_interval
        self._last_output = now
        self._writer = EventWriter(facts)
        self._tools = StreamedTools(facts, self._writer)
        self._parser = SseParser()
        self._begun = False  # message_start was written
        self._splitter = ThinkTagSplitter() if facts.think_tags else None
        self._head = b""  # blanks before the first byte that tells JSON from events
        self._sniffed = False
        self._is_json = False
        self._json: list[bytes] = []
        self._json_size = 0
        self._finish = ""
        self._matched_stop = ""
        self._refused = False
        self._text_bytes = 0
        self._good = 0
        self._bad = 0
        self._upstream_id = ""
        self._upstream_model = ""
        self._stop_reason = ""
        self._estimated = False

    @property
    def next_ping(self) -> float:
        """The time at which a ping will be due if nothing is sent until then."""
        return self._last_output + self._interval

    @property
    def report(self) -> AnswerReport:
        """What happened, for statistics and log."""
        return AnswerReport(
            stop_reason=self._stop_reason,
            usage=self._filled_usage()[0],
            usage_estimated=self._estimated,
            repaired_arguments=self._tools.repaired,
            malformed_arguments=self._tools.malformed,
            bad_chunks=self._bad,
            upstream_id=self._upstream_id,
            upstream_model=self._upstream_model,
        )

    def feed(self, chunk: bytes, now: float) -> bytes:
        """The frames that the next bytes of the backend make."""
        if self.done:
            return b""
        try:
            self._read(chunk)
        except SseLimitError as error:
            self._fail(TranslationError(f"The backend's stream cannot be read: {error}.", status=502))
        except TranslationError as error:
            self._fail(error)
        if now >= self.next_ping and self._begun and not self.done and self._writer.is_empty():
            # The backend talks but nothing can be shown yet: arguments are being held back.
            self._writer.ping()
        return self._take(now)

    def finish(self, now: float) -> bytes:
        """The last frames, when the backend has closed its stream."""
        if self.done:
            return b""
        try:
            self._read_end()
        except TranslationError as error:
            self._fail(error)
        return self._take(now)

    def fail(self, error: TranslationError, now: float) -> bytes:
        """The last frames, when the backend died or fell silent.

        If it had already said why the answer ends, only its usage is missing and the message is complete.
        """
        if self.done:
            return b""
        if self._finish:
            return self.finish(now)
        self._fail(error)
        return self._take(now)

    def due_ping(self, now: float) -> bytes:
        """A ping when the client has heard nothing for the interval; never before the message began."""
        if self.done or not self.started or now < self.next_ping:
            return b""
        self._writer.ping()
        return self._take(now)

    def _take(self, now: float) -> bytes:
        frames = self._writer.take()
        if frames:
            self._last_output = now
            self.started = self.started or self.error is None
        return frames

    def _read(self, chunk: bytes) -> None:
        if not self._sniffed:
            chunk = self._sniff(chunk)
        if self._is_json:
            self._hold_json(chunk)
            return
        for event in self._parser.feed(chunk):
            self._read_event(event)
            if self.done:
                return

    def _sniff(self, chunk: bytes) -> bytes:
        """Tell a JSON answer from events by the first byte that is no blank: no event line begins with `{`."""
        self._head += chunk
        begun = self._head.lstrip()
        if not begun:
            self._head = self._head[-1:]
            return b""
        self._sniffed = True
        self._is_json = begun.startswith(b"{")
        return begun

    def _hold_json(self, chunk: bytes) -> None:
        self._json.append(chunk)
        self._json_size += len(chunk)
        if self._json_size > MAX_JSON_ANSWER:
            raise TranslationError("The backend's answer is too long.", status=502)

    def _read_end(self) -> None:
        if self._is_json:
            chunk = parse_answer(b"".join(self._json), self._facts)
            self._apply(chunk)
            self._finish = self._finish or "stop"
        else:
            for event in self._parser.close():
                self._read_event(event)
                if self.done:
                    return
        if not self._finish:
            raise TranslationError("The backend's answer broke off.", status=502)
        self._end()

    def _read_event(self, event: SseEvent) -> None:
        chunks = read_event(event, self._facts)
        if chunks is None:
            self._end()
            return
        self._bad += not chunks and bool(event.data.strip())
        for chunk in chunks:
            self._good += 1
            self._apply(chunk)

    def _start(self) -> None:
        if not self._begun:
            self._begun = True
            known = self.usage or NO_USAGE
            prompt = known.prompt or self._facts.input_tokens
            self._writer.start_message(Usage(prompt, 0, known.cached, known.cache_written))

    def _apply(self, chunk: Chunk) -> None:
        if chunk.usage is not None:
            self.usage = merge_usage(self.usage, chunk.usage)
        self._upstream_id = self._upstream_id or chunk.upstream_id
        self._upstream_model = self._upstream_model or chunk.model
        self._start()
        if not self._facts.warm_up:
            self._apply_content(chunk)
        if chunk.finish:
            self._finish = chunk.finish
            self._matched_stop = chunk.matched_stop

    def _apply_content(self, chunk: Chunk) -> None:
        thinking, text = chunk.thinking, chunk.text
        if self._splitter is not None and text:
            inline, text = self._splitter.feed(text)
            thinking += inline
        if thinking:
            self._write_thinking(thinking)
        if chunk.refusal:
            self._refused = True
            text += chunk.refusal
        if text:
            self._write_text(text)
        for delta in chunk.tools or ():
            self._tools.add(delta)

    def _write_thinking(self, thinking: str) -> None:
        self._text_bytes += text_size(thinking)
        self._tools.before_text()
        self._writer.write_thinking(thinking)

    def _write_text(self, text: str) -> None:
        self._text_bytes += text_size(text)
        self._tools.before_text()
        self._writer.write_text(text)

    def _end(self) -> None:
        """End the message as the backend ended it; raises TranslationError when that was a failure."""
        if self._bad > self._good:
            raise TranslationError("Most of the backend's stream could not be read.", status=502)
        self._start()
        if self._splitter is not None:
            thinking, text = self._splitter.close()
            if thinking:
                self._write_thinking(thinking)
            if text:
                self._write_text(text)
        self._tools.finish()
        ending = Ending(self._finish, self._matched_stop, self._tools.shown > 0, self._refused, self.usage)
        stop = choose_stop(ending, self._facts)
        usage, self._estimated = self._filled_usage()
        self._stop_reason = stop.reason
        self._writer.end_message(stop, usage)
        self.done = True

    def _filled_usage(self) -> tuple[Usage, bool]:
        usage, estimated = fill_usage(
            self.usage, self._facts.input_tokens, self._text_bytes + self._tools.argument_bytes
        )
        return (
            Usage(usage.prompt, 0, usage.cached, usage.cache_written) if self._facts.warm_up else usage
        ), estimated

    def _fail(self, error: TranslationError) -> None:
        self.error = error
        self.done = True
        if not self.started:
            # Nothing has left yet: the caller may still answer with the error's own status.
            self._writer.clear()
        self._writer.fail(error)
