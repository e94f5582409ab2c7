"""What translating the answer must remember of the request, and what got lost on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from .overflow import OverflowFacts

MAX_WARNING_HEADER = 1000
"""Characters of the warning header; a request can lose the same thing many times."""


class Feature(StrEnum):
    """The things a translation can lose, as the statistics count them."""

    BLOCK = "block"
    CITATIONS = "citations"
    EFFORT = "effort"
    FIELD = "field"
    PARALLEL = "disable_parallel_tool_use"
    PREFILL = "prefill"
    SAMPLING = "sampling"
    SERVER_TOOL = "server_tool"
    STOP_SEQUENCES = "stop_sequences"
    STRICT = "strict"
    SYSTEM_BLOCK = "system_block"
    THINKING = "thinking"
    TOP_K = "top_k"


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing of the request that the backend will not see; `name` says which, as the client wrote it."""

    feature: Feature
    name: str


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """What the answer's translation needs of the request."""

    model: str = ""  # as the client asked for it
    entropy: bytes = b"\0" * 16  # sixteen random bytes
    stream: bool = False
    input_tokens: int = 0  # counted or estimated
    counted: bool = False
    max_tokens: int = 0
    context_length: int | None = None
    stop_sequences: tuple[str, ...] = ()
    tools: frozenset[str] = frozenset()  # names as sent to the backend
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # sent -> the client's
    omit_thinking: bool = False
    warm_up: bool = False  # max_tokens 0: the prompt is read, nothing is answered
    think_tags: bool = False
    live_arguments: bool = False  # tool arguments are streamed unchecked
    signature_key: bytes = b"olla"

    @property
    def overflow(self) -> OverflowFacts:
        """The numbers a context overflow is explained with."""
        return OverflowFacts(self.input_tokens, self.max_tokens, self.context_length, self.counted)

    def client_name(self, sent: str) -> str:
        """The client's name of a tool the backend calls."""
        return self.renamed.get(sent, sent)


def build_warning_header(losses: Iterable[Loss]) -> str:
    """The value of the warning header: each lost thing once, as visible ASCII, bounded; "" for nothing."""
    names: dict[str, None] = {}
    for loss in losses:
        plain = "".join(char if "!" <= char <= "~" and char != "," else "_" for char in loss.name[:80])
        names[plain] = None
    text = ", ".join(names)
    return text if len(text) <= MAX_WARNING_HEADER else text[: MAX_WARNING_HEADER - 3].rsplit(",", 1)[0] + ", ..."
