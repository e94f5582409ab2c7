"""How many tokens a prompt has: an estimate, a learned ratio, or the backend's own tokenizer.

The estimate: UTF-8 bytes of everything the model reads, divided by four, plus four tokens per message and a
number per picture or PDF; at least 1. It errs on the high side for prose, because a client that is told too
little runs into the end of the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from .anthropic_request import AnthropicRequest, Block
from .errors import TranslationError
from .image_size import read_image_size
from .json_text import InvalidJsonError, Json, build_json, parse_json, text_size
from .steps import Steps, run
from .turns import DecodedTurn, open_turns
from .usage import as_count

BYTES_PER_TOKEN = 4.0
TOKENS_PER_MESSAGE = 4
IMAGE_TOKENS = 1000
"""A picture whose size cannot be read."""
MAX_IMAGE_TOKENS = 1600
"""Large pictures are scaled down before a model sees them."""
PDF_TOKENS = 3000
LEAST_TAUGHT = 1000
"""Bytes of text below which a model's template, not the text, decides the count."""
_PIXELS_PER_TOKEN = 750
_MAX_DEPTH = 8


class CountSource(StrEnum):
    """Where a token count comes from, as the answer's header says."""

    NATIVE = "native"
    TOKENIZE = "tokenize"
    LEARNED = "learned"
    ESTIMATE = "estimate"


class Tokenizer(StrEnum):
    """How a backend counts tokens, if it does."""

    NATIVE = "native"  # POST <messages path>/count_tokens, the client's body
    VLLM = "vllm"  # POST /tokenize with the translated messages
    LLAMACPP = "llamacpp"  # POST /apply-template, then /tokenize with the prompt
    NONE = "none"


_TOKENIZERS = {
    "vllm": Tokenizer.VLLM,
    "llamacpp": Tokenizer.LLAMACPP,
    "docker-model-runner": Tokenizer.NATIVE,
    "omlx": Tokenizer.NATIVE,
    "vllm-mlx": Tokenizer.NATIVE,
}


@dataclass(slots=True)
class PromptSize:
    """How large a prompt is: bytes of text, whole tokens of pictures and files, number of messages."""

    text: int = 0
    tokens: int = 0
    messages: int = 0

    @property
    def teaches(self) -> bool:
        """Whether its true count tells something of text: long enough, and nothing but text."""
        return self.text >= LEAST_TAUGHT and not self.tokens

    def estimate(self, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
        """The estimated tokens, at least 1."""
        whole = self.tokens + TOKENS_PER_MESSAGE * self.messages
        return max(1, whole + math.ceil(self.text / bytes_per_token))


def tokenizer_for(kind: str) -> Tokenizer:
    """The tokenizer a backend kind is known to have; probing may know better."""
    return _TOKENIZERS.get(kind.lower(), Tokenizer.NONE)


def measure_prompt(request: AnthropicRequest) -> PromptSize:
    """The size of a request's prompt; raises TranslationError."""
    return run(measure(request))


def measure(request: AnthropicRequest) -> Steps[PromptSize]:
    """The size of a request's prompt, a batch of turns at a time; raises TranslationError."""
    try:
        tally = begin_tally(request)
        for batch in open_turns(request):
            for turn in batch:
                count_turn(turn, tally)
            yield
    except InvalidJsonError as error:
        raise TranslationError(f"The request is {error}") from None
    return tally


def begin_tally(request: AnthropicRequest) -> PromptSize:
    """The size of a request without its turns; raises InvalidJsonError."""
    tally = PromptSize(messages=len(request.messages))
    _count_value(request.system, tally, _MAX_DEPTH)
    for tool in request.tools:
        tally.text += text_size(tool.name or "") + text_size(tool.description or "")
        if tool.input_schema is not None:
            tally.text += len(build_json(tool.input_schema))
    return tally


def count_turn(turn: DecodedTurn, tally: PromptSize) -> None:
    """Add the size of a turn; raises InvalidJsonError."""
    for block in turn.blocks:
        text = block.get("text")
        if isinstance(text, str):  # most are
            tally.text += text_size(text)
        else:
            _count_block(block, tally, _MAX_DEPTH)


def learn_ratio(ratio: float, size: PromptSize, counted: int, weight: float = 0.2) -> float:
    """The next bytes-per-token ratio of a model, from what its backend counted for a prompt of that size.

    A moving average that leans low, for a client that is told too little runs into the end of the window; held
    between 1.5 and 8 so that one odd answer cannot spoil it.
    """
    text_tokens = counted - TOKENS_PER_MESSAGE * size.messages - size.tokens
    if text_tokens <= 0 or not size.text:
        return ratio
    seen = min(8.0, max(1.5, size.text / text_tokens))
    weight = 2 * weight if seen < ratio else weight
    return ratio + weight * (seen - ratio)


def build_count(tokens: int) -> bytes:
    """The body of a count_tokens answer."""
    return build_json({"input_tokens": tokens})


def build_vllm_tokenize(openai_body: bytes) -> bytes:
    """The body for vLLM's `/tokenize`, from the translated request."""
    payload = _parse_object(openai_body)
    names = ("model", "messages", "tools", "chat_template_kwargs", "continue_final_message")
    fields = {name: payload[name] for name in names if name in payload}
    return build_json({**fields, "add_generation_prompt": payload.get("add_generation_prompt", True)})


def build_llamacpp_template(openai_body: bytes) -> bytes:
    """The body for llama.cpp's `/apply-template`, from the translated request."""
    payload = _parse_object(openai_body)
    names = ("messages", "tools", "chat_template_kwargs")
    return build_json({name: payload[name] for name in names if name in payload})


def build_llamacpp_tokenize(template_answer: bytes) -> bytes:
    """The body for llama.cpp's `/tokenize`, from the answer of `/apply-template`; raises (502)."""
    prompt = _parse_object(template_answer).get("prompt")
    if not isinstance(prompt, str):
        raise TranslationError("The backend's template answer holds no prompt.", status=502)
    return build_json({"content": prompt, "add_special": True})


def parse_count(answer: bytes) -> int:
    """The number in a tokenizer's answer: `input_tokens`, `count` or the length of `tokens`; raises (502)."""
    value = _parse_object(answer)
    for name in ("input_tokens", "count"):
        found = as_count(value.get(name))
        if found is not None:
            return found
    tokens = value.get("tokens")
    if isinstance(tokens, list):
        return len(tokens)
    raise TranslationError("The backend's token count cannot be read.", status=502)


def parse_context_length(answer: bytes) -> int | None:
    """The model's window if a tokenizer's answer tells it (vLLM's `max_model_len`)."""
    found = _parse_object(answer).get("max_model_len")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _parse_object(data: bytes) -> dict[str, Json]:
    try:
        value = parse_json(data)
    except InvalidJsonError as error:
        raise TranslationError(f"The backend's answer is not JSON: {error}", status=502) from None
    if not isinstance(value, dict):
        raise TranslationError("The backend's answer is not a JSON object.", status=502)
    return value


def _count_value(value: Json, tally: PromptSize, depth: int) -> None:
    """Count text, a block or a list of blocks; anything nested absurdly deep counts as nothing."""
    if isinstance(value, str):
        tally.text += text_size(value)
    elif depth > 0:
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, dict):
                _count_block(item, tally, depth)


def _count_block(block: Block, tally: PromptSize, depth: int) -> None:
    kind = block.get("type", "text")
    text = block.get("text")
    if isinstance(text, str):
        tally.text += text_size(text)
    elif kind == "tool_result":
        _count_value(block.get("content"), tally, depth - 1)
    elif kind == "tool_use":
        name = block.get("name")
        tally.text += len(build_json(block.get("input", {}))) + (text_size(name) if isinstance(name, str) else 0)
    elif kind == "image":
        tally.tokens += _count_image(block.get("source"))
    elif kind == "document":
        _count_document(block, tally, depth)
    elif kind != "redacted_thinking":
        for name in ("thinking", "title", "source", "tool_name"):
            _count_value(block.get(name), tally, 0)
        _count_value(block.get("content"), tally, depth - 1)


def _count_document(block: Block, tally: PromptSize, depth: int) -> None:
    for name in ("title", "context"):
        _count_value(block.get(name), tally, 0)
    source = block.get("source")
    if not isinstance(source, dict):
        return
    if source.get("type") == "text":
        _count_value(source.get("data"), tally, 0)
    elif source.get("type") == "content":
        _count_value(source.get("content"), tally, depth - 1)
    else:
        tally.tokens += PDF_TOKENS


def _count_image(source: Json) -> int:
    data = source.get("data") if isinstance(source, dict) else None
    size = read_image_size(data) if isinstance(data, str) else None
    if size is None:
        return IMAGE_TOKENS
    return min(MAX_IMAGE_TOKENS, math.ceil(size[0] * size[1] / _PIXELS_PER_TOKEN))
