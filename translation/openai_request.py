"""A Messages request as the body of a chat completions request for one backend."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .anthropic_request import AnthropicRequest
from .backend_traits import DEFAULT_TRAITS, BackendTraits, Prefill
from .content_blocks import BlockReader
from .conversation import Conversation, read_system
from .errors import TranslationError
from .facts import Feature, Loss, ReplyFacts
from .json_text import InvalidJsonError, Json, build_json
from .overflow import build_overflow_message
from .steps import Steps, run
from .thinking_options import add_thinking, omits_thinking
from .token_count import BYTES_PER_TOKEN, PromptSize, begin_tally, count_turn
from .tools import ToolNames, build_tool_choice, build_tools, forbids_parallel
from .turns import open_turns

Payload = dict[str, Json]

# Fields whose absence nobody can notice in the answer; every other field without an equivalent is reported.
_SILENT = frozenset({"cache_control", "diagnostics"})
_ENCODED_AT_ONCE = 512
_READ_OUTPUT_CONFIG = frozenset({"effort", "format"})


@dataclass(frozen=True, slots=True)
class TranslationOptions:
    """What the caller knows beyond the request."""

    model: str = ""  # the name to send; "" for the client's
    traits: BackendTraits = DEFAULT_TRAITS
    entropy: bytes = b"\0" * 16  # sixteen random bytes for the ids of the answer
    context_length: int | None = None  # of the chosen model, when known
    prompt_tokens: int | None = None  # counted by the backend; None: estimated here
    bytes_per_token: float = BYTES_PER_TOKEN  # as learned of the model
    clamp_max_tokens: bool = False
    live_arguments: bool = False
    signature_key: bytes = b"olla"


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """The body to send, what translating the answer needs, and what the backend will not see."""

    body: bytes
    facts: ReplyFacts
    losses: tuple[Loss, ...]
    size: PromptSize


def build_openai_request(request: AnthropicRequest, options: TranslationOptions) -> OpenAIRequest:
    """Translate a request; raises TranslationError naming the field or block."""
    return run(translate(request, options))


def translate(request: AnthropicRequest, options: TranslationOptions) -> Steps[OpenAIRequest]:
    """Translate a request a batch of turns at a time; raises TranslationError naming the field or block."""
    reader = BlockReader(options.traits)
    names = ToolNames(options.traits.tool_name_limit)
    try:
        tools = build_tools(request, names, reader)
        size = begin_tally(request)
        messages = yield from _build_messages(request, reader, names, size)
        facts = _build_facts(request, options, size.estimate(options.bytes_per_token), tools, names)
        payload = _build_payload(request, options, facts, reader)
        _add_tools(payload, request, tools, names, reader)
        _add_prefill(payload, messages, reader)
        body = yield from _encode(payload, messages)
        return OpenAIRequest(body, facts, reader.losses, size)
    except InvalidJsonError as error:
        raise TranslationError(f"The request is {error}") from None


def _build_payload(
    request: AnthropicRequest, options: TranslationOptions, facts: ReplyFacts, reader: BlockReader
) -> Payload:
    """Everything but the messages and tools."""
    payload: Payload = {"model": options.model or request.model}
    payload[options.traits.max_tokens_field] = _choose_max_tokens(request, options, facts)
    payload["stream"] = request.stream
    _add_stream_options(payload, options.traits)
    _add_sampling(payload, request, reader)
    _add_output_format(payload, request, reader)
    add_thinking(payload, request, reader)
    _add_user(payload, request, options.traits)
    _report_others(request, reader)
    return payload


def _build_messages(
    request: AnthropicRequest, reader: BlockReader, names: ToolNames, size: PromptSize
) -> Steps[list[Payload]]:
    """The messages; adds their size."""
    system = read_system(request.system, reader)
    conversation = Conversation(reader, names)
    for batch in open_turns(request):
        for turn in batch:
            count_turn(turn, size)
            conversation.add(turn)
        yield
    messages = conversation.finish()
    text = "\n\n".join(part for part in (system, *conversation.added_system) if part)
    return [{"role": "system", "content": text}, *messages] if text else messages


def _encode(payload: Payload, messages: list[Payload]) -> Steps[bytes]:
    """The body: the messages, some at a time, and everything else."""
    if len(messages) <= _ENCODED_AT_ONCE:
        return build_json({**payload, "messages": messages})
    pieces = []
    for start in range(0, len(messages), _ENCODED_AT_ONCE):
        pieces.append(build_json(messages[start : start + _ENCODED_AT_ONCE])[1:-1])
        yield
    # Head and end are put to the outer pieces so that the whole is copied once.
    pieces[0] = b'{"messages":[' + pieces[0]
    pieces[-1] += b"]," + build_json(payload)[1:]
    return b",".join(pieces)


def _build_facts(
    request: AnthropicRequest, options: TranslationOptions, estimate: int, tools: list[Payload], names: ToolNames
) -> ReplyFacts:
    counted = options.prompt_tokens is not None
    return ReplyFacts(
        model=request.model,
        entropy=options.entropy,
        stream=request.stream,
        input_tokens=options.prompt_tokens if options.prompt_tokens is not None else estimate,
        counted=counted,
        max_tokens=request.max_tokens,
        context_length=options.context_length,
        stop_sequences=request.stop_sequences,
        tools=frozenset(tool["function"]["name"] for tool in tools),
        renamed=names.renamed,
        omit_thinking=omits_thinking(request.thinking),
        warm_up=request.max_tokens == 0,
        think_tags=options.traits.think_tags,
        live_arguments=options.live_arguments,
        signature_key=options.signature_key,
    )


def _choose_max_tokens(request: AnthropicRequest, options: TranslationOptions, facts: ReplyFacts) -> int:
    """The client's wish, at least 1, cut to what the model's window leaves when the setting asks for it."""
    wished = max(request.max_tokens, 1)
    limit = options.context_length
    if not options.clamp_max_tokens or limit is None:
        return wished
    left = limit - facts.input_tokens
    if left >= 1:
        return min(wished, left)
    if facts.counted:
        raise TranslationError(build_overflow_message(facts.input_tokens, wished, limit))
    # Only an estimate says that the prompt does not fit; the backend knows better.
    return wished


def _add_stream_options(payload: Payload, traits: BackendTraits) -> None:
    if payload["stream"] and traits.stream_usage:
        payload["stream_options"] = {"include_usage": True}
        if traits.continuous_usage:
            payload["stream_options"]["continuous_usage_stats"] = True


def _add_sampling(payload: Payload, request: AnthropicRequest, reader: BlockReader) -> None:
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None and reader.traits.sampling:
            payload[name] = value
        elif value is not None:
            reader.lose(Feature.SAMPLING, name)
    if request.top_k is not None:
        if reader.traits.top_k:
            payload["top_k"] = request.top_k
        else:
            reader.lose(Feature.TOP_K, "top_k")
    # An empty one would end every answer at once, or is refused.
    stops = [stop for stop in request.stop_sequences if stop]
    stops = stops[: reader.traits.max_stop_sequences or None]
    if len(stops) < len(request.stop_sequences):
        reader.lose(Feature.STOP_SEQUENCES, "stop_sequences")
    if stops:
        payload["stop"] = stops


def _add_tools(
    payload: Payload, request: AnthropicRequest, tools: list[Payload], names: ToolNames, reader: BlockReader
) -> None:
    # Without any tool in the request the choice means nothing.
    choice = build_tool_choice(request.tool_choice, tools, names) if request.tools else None
    if not tools:
        return
    payload["tools"] = tools
    if choice is not None:
        payload["tool_choice"] = choice
    if forbids_parallel(request.tool_choice):
        if reader.traits.parallel_flag:
            payload["parallel_tool_calls"] = False
        else:
            reader.lose(Feature.PARALLEL, "tool_choice.disable_parallel_tool_use")


def _add_output_format(payload: Payload, request: AnthropicRequest, reader: BlockReader) -> None:
    config = request.output_config if isinstance(request.output_config, dict) else {}
    wanted = config.get("format") or request.output_format
    for name in config.keys() - _READ_OUTPUT_CONFIG:
        reader.lose(Feature.FIELD, f"output_config.{name}")
    if wanted is None:
        return
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict) or wanted.get("type") != "json_schema":
        raise TranslationError("must be of type json_schema with a schema", path="output_config.format")
    if not reader.traits.structured_output:
        raise TranslationError("the chosen backend cannot hold an answer to a schema", path="output_config.format")
    definition = {"name": "output", "schema": schema, "strict": True}
    payload["response_format"] = {"type": "json_schema", "json_schema": definition}


def _add_prefill(payload: Payload, messages: list[Payload], reader: BlockReader) -> None:
    if messages[-1]["role"] != "assistant":
        return
    if reader.traits.prefill is Prefill.CONTINUE_FLAGS:
        payload["continue_final_message"] = True
        payload["add_generation_prompt"] = False
    elif reader.traits.prefill is Prefill.PLAIN:
        reader.lose(Feature.PREFILL, "prefill")


def _add_user(payload: Payload, request: AnthropicRequest, traits: BackendTraits) -> None:
    if traits.forward_user and request.user_id:
        # The id itself names an account and a session; a hash keeps abuse tracking possible without it.
        payload["user"] = hashlib.sha256(request.user_id.encode()).hexdigest()[:32]


def _report_others(request: AnthropicRequest, reader: BlockReader) -> None:
    for name in request.others:
        if name not in _SILENT:
            reader.lose(Feature.FIELD, name)
