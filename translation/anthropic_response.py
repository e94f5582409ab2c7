"""A chat backend's whole answer as an Anthropic message."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from .errors import TranslationError, explain_error_in_success
from .facts import ReplyFacts
from .ids import build_message_id, build_tool_id, sign_thinking
from .json_text import InvalidJsonError, Json, build_json, parse_json, text_size
from .openai_answer import Chunk, read_chunk
from .sse import SseEvent, SseLimitError, SseParser
from .stop_reasons import Ending, Stop, choose_stop
from .think_tags import ThinkTagSplitter
from .tool_arguments import Quality, repair_arguments
from .tool_calls import ToolCall, ToolCalls
from .usage import NO_USAGE, Usage, build_usage, fill_usage, merge_usage


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What the statistics and the log want to know of a translated answer."""

    stop_reason: str = ""
    usage: Usage = NO_USAGE
    usage_estimated: bool = False
    repaired_arguments: int = 0
    malformed_arguments: int = 0
    bad_chunks: int = 0
    upstream_id: str = ""
    upstream_model: str = ""


@dataclass(frozen=True, slots=True)
class AnthropicResponse:
    """The body for the client and what happened on the way."""

    body: bytes
    report: AnswerReport


class Reply:
    """An answer put together from one whole chunk or many."""

    def __init__(self, facts: ReplyFacts) -> None:
        self.facts = facts
        self.thinking: list[str] = []
        self.text: list[str] = []
        self.refused = False
        self.tools = ToolCalls(facts.tools)
        self.finish = ""
        self.matched_stop = ""
        self.usage: Usage | None = None
        self.upstream_id = ""
        self.upstream_model = ""
        self.chunks = 0
        self.bad_chunks = 0
        self._splitter = ThinkTagSplitter() if facts.think_tags else None

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk; raises TranslationError (502)."""
        self.chunks += 1
        self.upstream_id = self.upstream_id or chunk.upstream_id
        self.upstream_model = self.upstream_model or chunk.model
        if chunk.usage is not None:
            self.usage = merge_usage(self.usage, chunk.usage)
        self.thinking.append(chunk.thinking)
        self._add_text(chunk.text)
        if chunk.refusal:
            self.refused = True
            self.text.append(chunk.refusal)
        for delta in chunk.tools or ():
            self.tools.add(delta)
        self.finish = chunk.finish or self.finish
        self.matched_stop = chunk.matched_stop or self.matched_stop

    def close(self) -> None:
        """Take what the think-tag splitter held back."""
        if self._splitter is not None:
            thinking, text = self._splitter.close()
            self.thinking.append(thinking)
            self.text.append(text)

    def _add_text(self, text: str) -> None:
        if self._splitter is not None:
            thinking, text = self._splitter.feed(text)
            self.thinking.append(thinking)
        self.text.append(text)


def build_anthropic_response(body: bytes, facts: ReplyFacts) -> AnthropicResponse:
    """Translate a 2xx answer, whether JSON or an event stream nobody asked for; raises TranslationError."""
    reply = Reply(facts)
    if body.lstrip()[:1] == b"{":
        reply.add(parse_answer(body, facts))
    else:
        _collect_stream(body, reply)
    reply.close()
    return _build_message(reply, facts)


def parse_answer(body: bytes, facts: ReplyFacts) -> Chunk:
    """Read a whole JSON answer; raises TranslationError when it is an error or no answer at all."""
    try:
        value = parse_json(body)
    except InvalidJsonError as error:
        raise TranslationError(f"The backend's answer is not JSON: {error}", status=502) from None
    chunk = read_chunk(value)
    if chunk is not None and chunk.is_error:
        raise explain_error_in_success(value, facts.overflow)
    if chunk is None or not chunk.has_choice:
        raise TranslationError("The backend's answer holds no message.", status=502)
    return chunk


def read_event(event: SseEvent, facts: ReplyFacts) -> list[Chunk] | None:
    """The chunks of one event of a backend's stream, [] for none, None for the end mark.

    Raises TranslationError when the event is an error. Data that is no chunk comes back as an empty list.
    """
    data = event.data.strip()
    if data == b"[DONE]":
        return None
    try:
        value = parse_json(data)
    except InvalidJsonError:
        # Some servers leave out the blank line between events, which glues their data together.
        lines = data.split(b"\n")
        return [] if len(lines) == 1 else _read_glued(lines, event.name, facts)
    chunk = read_chunk(value)
    if event.name == "error" or (chunk is not None and chunk.is_error):
        raise explain_error_in_success(value, facts.overflow)
    return [] if chunk is None else [chunk]


def build_tool_use(call: ToolCall, ordinal: int, facts: ReplyFacts) -> tuple[dict[str, Json], Quality, str]:
    """The parts of a tool_use block without its input, the quality of the arguments, and their text."""
    arguments = repair_arguments(call.text)
    block = {
        "type": "tool_use",
        "id": call.call_id or build_tool_id(facts.entropy, ordinal),
        "name": facts.client_name(call.name),
    }
    return block, arguments.quality, arguments.text


def check_named(call: ToolCall) -> bool:
    """Whether a call can be shown; raises TranslationError (502) for one whose name never came."""
    if call.name:
        return True
    if not call.has_function and not call.pieces:
        return False
    raise TranslationError("The backend called a tool without naming it.", status=502)


def _read_glued(lines: list[bytes], name: str, facts: ReplyFacts) -> list[Chunk] | None:
    chunks: list[Chunk] = []
    for line in lines:
        found = read_event(SseEvent(name, line), facts)
        if found is None:
            return chunks or None
        chunks += found
    return chunks


def _collect_stream(body: bytes, reply: Reply) -> None:
    """Put an event stream together; raises TranslationError when it is none, or breaks off."""
    parser = SseParser()
    try:
        events = [*parser.feed(body), *parser.close()]
    except SseLimitError as error:
        raise TranslationError(f"The backend's answer cannot be read: {error}.", status=502) from None
    for event in events:
        chunks = read_event(event, reply.facts)
        if chunks is None:
            reply.finish = reply.finish or "stop"
            break
        reply.bad_chunks += not chunks and bool(event.data.strip())
        for chunk in chunks:
            reply.add(chunk)
    if not reply.chunks:
        raise TranslationError("The backend's answer is neither JSON nor an event stream.", status=502)
    if not reply.finish:
        raise TranslationError("The backend's answer broke off.", status=502)


def _build_message(reply: Reply, facts: ReplyFacts) -> AnthropicResponse:
    thinking, text = "".join(reply.thinking), "".join(reply.text)
    blocks, qualities, argument_bytes = _build_tool_blocks(reply, facts)
    answer_bytes = text_size(thinking) + text_size(text) + argument_bytes
    usage, estimated = fill_usage(reply.usage, facts.input_tokens, answer_bytes)
    ending = Ending(reply.finish, reply.matched_stop, bool(blocks), reply.refused, reply.usage)
    stop = choose_stop(ending, facts)
    content = [] if facts.warm_up else _build_content(thinking, text, blocks, facts)
    report = AnswerReport(
        stop_reason=stop.reason,
        usage=usage,
        usage_estimated=estimated,
        repaired_arguments=qualities.count(Quality.REPAIRED),
        malformed_arguments=qualities.count(Quality.MALFORMED),
        bad_chunks=reply.bad_chunks,
        upstream_id=reply.upstream_id,
        upstream_model=reply.upstream_model,
    )
    shown = usage if not facts.warm_up else Usage(usage.prompt, 0, usage.cached, usage.cache_written)
    return AnthropicResponse(build_json(build_message(facts, content, stop, shown)), report)


def build_message(facts: ReplyFacts, content: list[Json], stop: Stop | None, usage: Usage) -> dict[str, Json]:
    """An Anthropic message object; without `stop` it is the one a stream begins with."""
    message: dict[str, Json] = {
        "id": build_message_id(facts.entropy),
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": content,
        "stop_reason": stop.reason if stop else None,
        "stop_sequence": stop.sequence if stop else None,
        "usage": build_usage(usage),
    }
    if stop and stop.details:
        message["stop_details"] = stop.details
    return message


def _build_tool_blocks(reply: Reply, facts: ReplyFacts) -> tuple[list[Json], list[Quality], int]:
    blocks: list[Json] = []
    qualities: list[Quality] = []
    size = 0
    for call in reply.tools.calls:
        if check_named(call):
            block, quality, text = build_tool_use(call, len(blocks), facts)
            # The text is known to be an object: it goes into the message as it is, so numbers stay exact.
            blocks.append({**block, "input": msgspec.Raw(text.encode())})
            qualities.append(quality)
            size += text_size(call.text)
    return blocks, qualities, size


def _build_content(thinking: str, text: str, tools: list[Json], facts: ReplyFacts) -> list[Json]:
    content: list[Json] = []
    if thinking:
        shown = "" if facts.omit_thinking else thinking
        signature = sign_thinking(thinking, facts.signature_key)
        content.append({"type": "thinking", "thinking": shown, "signature": signature})
    if text or not (thinking or tools):
        content.append({"type": "text", "text": text})
    return content + tools
