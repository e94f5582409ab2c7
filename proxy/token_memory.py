"""What was learned of token counts: bytes per token of each model, and numbers that tokenizers gave. (pure)

A model's ratio is learned from what its backends say of prompts that were measured here. Everything is bounded
and lives in this process; the time is passed in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from endpoints.snapshot import fold_model
from proxy.record import Outcome, RequestRecord
from translation.token_count import BYTES_PER_TOKEN, CountSource, PromptSize, learn_ratio

KEEP_SECONDS = 60.0
"""How long a tokenizer's number holds: a client counts the same conversation again within moments."""
MOST_COUNTS = 1024
MOST_MODELS = 1000
MOST_WAITING = 512
# Measuring what is passed through costs time that the request itself does not need: enough to begin with, then
# one in so many.
_FIRST_SAMPLES = 8
_ONE_IN = 16
MOST_MEASURED = 128 * 1024
"""Bytes of a body that is measured though it is only passed through."""

Number = tuple[int, CountSource]


@dataclass(slots=True)
class TokenMemory:
    """Ratios by model, as clients spell it, and numbers by what was counted."""

    ratios: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, tuple[str, PromptSize]] = field(default_factory=dict)  # request id -> what was asked
    _counts: dict[bytes, tuple[float, Number]] = field(default_factory=dict)  # until (monotonic), number

    @property
    def waiting(self) -> int:
        """Measured prompts whose answers have not ended."""
        return len(self._waiting)

    def ratio(self, model: str) -> float:
        """Bytes per token of a model: learned, else the common one."""
        return self.ratios.get(fold_model(model), BYTES_PER_TOKEN)

    def knows(self, model: str) -> bool:
        """Whether the model's ratio was learned."""
        return fold_model(model) in self.ratios

    def wants(self, model: str, size: int) -> bool:
        """Whether a request that is only passed through is worth measuring; counts it."""
        name = fold_model(model)
        seen = self._seen.get(name, 0)
        if name in self._seen or len(self._seen) < MOST_MODELS:
            self._seen[name] = seen + 1
        return size <= MOST_MEASURED and (seen < _FIRST_SAMPLES or seen % _ONE_IN == 0)

    def expect(self, request_id: str, model: str, size: PromptSize) -> None:
        """A prompt of this size is on its way; its answer will tell its tokens."""
        if size.teaches:
            _make_room(self._waiting, MOST_WAITING)
            self._waiting[request_id] = (fold_model(model), size)

    def note(self, record: RequestRecord) -> None:
        """A request has ended: learn from it."""
        model, size = self._waiting.pop(record.request_id, ("", None))
        usage = record.usage
        if size is None or usage is None or not usage.input_tokens or record.outcome is not Outcome.SUCCESS:
            return
        if model in self.ratios or len(self.ratios) < MOST_MODELS:
            self.ratios[model] = learn_ratio(self.ratios.get(model, BYTES_PER_TOKEN), size, usage.input_tokens)

    def recall(self, key: bytes, now: float) -> Number | None:
        """A number given lately for the same thing."""
        until, number = self._counts.get(key, (0.0, None))
        return number if now < until else None

    def keep(self, key: bytes, number: Number, now: float) -> None:
        """Remember a tokenizer's number."""
        _make_room(self._counts, MOST_COUNTS)
        self._counts[key] = (now + KEEP_SECONDS, number)


def count_key(endpoint_id: int, model: str, body: bytes) -> bytes:
    """What a number is remembered by: who counted which model's tokens of which body."""
    return hashlib.blake2b(body, digest_size=16, person=b"count").digest() + f"{endpoint_id} {model}".encode()


def _make_room(entries: dict[Any, Any], most: int) -> None:
    """Forget the oldest entries of a full table."""
    while len(entries) >= most:
        del entries[next(iter(entries))]
