"""What backends say of the cost of their answers: tokens, times, why they stopped. (pure)

Where each kind says it is data of its profile (`endpoints.answer_metrics`). A stream is read after its end, from
its last few kilobytes alone, which are remembered while it passes and never delay it; what an answer does not
say stays unknown, never 0. Encoded bodies (gzip and the like) are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from endpoints.answer_metrics import Metric
from endpoints.profile import Profile

Value = int | float | str
Values = dict[str, Value]  # by the name of the metric

# What is kept of a body's end; between this and twice this is remembered while it passes.
TAIL = 4096
# The first piece is kept too, up to this: Anthropic's streams tell the input tokens there.
HEAD = 2048
# Usage, finish reason and the end itself come in objects of their own.
_LAST_OBJECTS = 4
# Where the beginning of a long object is lost, its last members may still be whole.
_MOST_CUTS = 8
_LONGEST_WORD = 200
_LARGEST = 2**53


class BodyKind(StrEnum):
    """How a body is read."""

    JSON = "json"
    NDJSON = "ndjson"
    SSE = "sse"


_KINDS = {
    b"application/json": BodyKind.JSON,
    b"text/event-stream": BodyKind.SSE,
    b"application/x-ndjson": BodyKind.NDJSON,
    b"application/ndjson": BodyKind.NDJSON,
    b"application/jsonl": BodyKind.NDJSON,
}
_COUNTS = frozenset({
    Metric.PROMPT_TOKENS, Metric.COMPLETION_TOKENS, Metric.TOTAL_TOKENS, Metric.CACHED_TOKENS,
    Metric.REASONING_TOKENS,
})  # fmt: skip
_WORDS = frozenset({Metric.MODEL, Metric.FINISH_REASON})
_AFTER_CLOSED = re.compile(rb'[\]}]\s*,\s*(?=")')
# The texts themselves: reading a member's value is a call.
_IN, _OUT, _TOTAL = Metric.PROMPT_TOKENS.value, Metric.COMPLETION_TOKENS.value, Metric.TOTAL_TOKENS.value
_PROMPT_MS, _TTFT_MS = Metric.PROMPT_MS.value, Metric.TTFT_MS.value
_WRITING_MS, _SPEED = Metric.GENERATION_MS.value, Metric.TOKENS_PER_SECOND.value
_ENOUGH = frozenset({_OUT, Metric.FINISH_REASON.value})


def choose_kind(headers: Iterable[tuple[bytes, bytes]]) -> BodyKind | None:
    """How an answer with these headers is read; None for what cannot be."""
    kind = None
    for name, value in headers:
        size = len(name)
        if size == 12 and name.lower() == b"content-type":
            kind = _KINDS.get(value.split(b";", 1)[0].strip().lower())
        elif (
            size == 16 and name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity")
        ):
            return None
    return kind


# What a value must be to be believed: backends put null, -1 and worse in these places.


def _word(value: Any, _scale: float) -> Value | None:
    good = isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD and value.isprintable()
    return value if good else None


def _count(value: Any, _scale: float) -> Value | None:
    return int(value) if _is_amount(value) else None


def _amount(value: Any, scale: float) -> Value | None:
    return round(value * scale, 3) if _is_amount(value) else None


def _is_amount(value: Any) -> bool:
    return (type(value) is int or type(value) is float) and 0 <= value <= _LARGEST


class Place(NamedTuple):
    """Where one metric may be below a first key."""

    name: str
    steps: tuple[str | int, ...]
    scale: float
    usable: Callable[[Any, float], Value | None]


Places = tuple[tuple[str, tuple[Place, ...]], ...]


@lru_cache(maxsize=64)
def places_of(profile: Profile) -> Places:
    """Where a kind tells, by first key, so that one look-up passes over all that do not apply."""
    groups: dict[str, list[Place]] = {}
    for metric, path, scale in profile.metrics:
        usable = _word if metric in _WORDS else _count if metric in _COUNTS else _amount
        groups.setdefault(str(path[0]), []).append(Place(metric.value, path[1:], scale, usable))
    return tuple((key, tuple(below)) for key, below in groups.items())


class UsageReader:
    """Remembers of a body that passes its first piece and last kilobytes, and reads them when it has ended.

    A body that is there as a whole is put in `whole` and read instead.
    At most HEAD + 2 * TAIL bytes of a stream are held.
    """

    __slots__ = ("_cut", "_first", "_kind", "_pieces", "_places", "_size", "whole")

    def __init__(self, kind: BodyKind, places: Places) -> None:
        self.whole: bytes | None = None
        self._kind = kind
        self._places = places
        self._cut = False
        self._first: bytes | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def note(self, piece: bytes) -> None:
        """Remember a piece that has passed."""
        if self._first is None:
            self._first = piece[:HEAD]
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > 2 * TAIL:
            self._pieces = [b"".join(self._pieces)[-TAIL:]]
            self._size = TAIL
            self._cut = True

    def read(self) -> Values:
        """What the body told. Never raises, whatever the bytes are."""
        if self.whole is not None:
            return read_body(self.whole, self._places)
        body = b"".join(self._pieces)
        if self._kind is BodyKind.JSON:
            return read_cut(body, self._places) if self._cut else read_body(body, self._places)
        return read_stream(self._first or b"", body, self._kind, self._places, cut=self._cut)


def read_usage_of(status: int, headers: Iterable[tuple[bytes, bytes]], profile: Profile) -> UsageReader | None:
    """A reader for an answer; None for an error and for what cannot be read."""
    kind = choose_kind(headers) if status < 400 else None
    return UsageReader(kind, places_of(profile)) if kind is not None else None


def read_body(body: bytes, places: Places) -> Values:
    """What a whole JSON body tells."""
    return _complete(_read(_decode(body), places))


def read_cut(tail: bytes, places: Places) -> Values:
    """What the end of a long JSON body tells by the members that are whole in it."""
    return _complete(_read_cut(tail, places))


def read_stream(first: bytes, tail: bytes, kind: BodyKind, places: Places, *, cut: bool) -> Values:
    """What the first piece and the end of a stream tell: of each metric the last value."""
    found: Values = {}
    lines = tail.split(b"\n")
    lost = lines.pop(0) if cut else b""  # its beginning is gone
    last = list(islice(_objects(reversed(lines), kind), _LAST_OBJECTS))
    for payload in last:
        found = _read(_decode(payload), places) | found
        if found.keys() >= _ENOUGH:
            break
    if lost and len(last) < _LAST_OBJECTS and not found.keys() >= _ENOUGH:
        found = _read_cut(lost, places) | found
    if kind is BodyKind.SSE and _IN not in found:
        for payload in islice(_objects(iter(first.split(b"\n")), kind), 1):
            found = _read(_decode(payload), places) | found
    return _complete(found)


def _objects(lines: Iterator[bytes], kind: BodyKind) -> Iterator[bytes]:
    """The payloads among lines that may be JSON objects."""
    for line in lines:
        payload = line.strip()
        if kind is BodyKind.SSE:
            if not payload.startswith(b"data:"):
                continue
            payload = payload[5:].strip()
        if payload.startswith(b"{"):
            yield payload


def _decode(payload: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _read_cut(tail: bytes, places: Places) -> Values:
    """The members after the last value that closes, if they are of the top or of a streamed `response`.

    Inside a deeper object one brace too many would be left, and inside a string a quote too few, so that what
    decodes is what it seems.
    """
    for cut in [match.end() for match in _AFTER_CLOSED.finditer(tail)][: -_MOST_CUTS - 1 : -1]:
        for before in (b"{", b'{"response":{'):
            found = _read(_decode(before + tail[cut:]), places)
            if found:
                return found
    return {}


def _read(document: Mapping[str, Any] | None, places: Places) -> Values:
    """What one object tells; of several places of a metric the first with a usable value."""
    found: Values = {}
    if document is None:
        return found
    for key, below in places:
        top = document.get(key)
        if top is None:
            continue
        is_object = type(top) is dict
        for name, steps, scale, usable in below:
            if name in found or (is_object and steps and steps[0] not in top):
                continue
            value = top
            for step in steps:  # exact types: they come from JSON
                if type(value) is dict:
                    value = value.get(step)
                elif type(value) is list and type(step) is int and step < len(value):
                    value = value[step]
                else:
                    value = None
            if value is not None and (told := usable(value, scale)) is not None:
                found[name] = told
    return found


def _complete(found: Values) -> Values:
    """Add what follows from the rest: the total, the speed, the first token's time where only the prompt's is."""
    tokens_in, tokens_out = found.get(_IN), found.get(_OUT)
    if isinstance(tokens_out, int):
        if isinstance(tokens_in, int):
            found.setdefault(_TOTAL, tokens_in + tokens_out)
        writing = found.get(_WRITING_MS)
        if isinstance(writing, float) and tokens_out and writing > 0:
            found.setdefault(_SPEED, round(tokens_out * 1000 / writing, 3))
    prompt = found.get(_PROMPT_MS)
    if prompt is not None:
        found.setdefault(_TTFT_MS, prompt)
    return found
