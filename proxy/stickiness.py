"""Sticky sessions: requests of one conversation go to the endpoint that has it in its cache. (pure)

    key = find_key(inbound, rules)              which conversation, by the first source that knows
    visit = Visit(table, key)                   one request's dealings with the table
    pinned = visit.recall(choices, now)         the endpoint to use if it is among the choices ...
    visit.settle(endpoint_id, now)              ... else where the request goes instead, told before each attempt
    headers = visit.headers()                   what the client is told

Pins expire when idle, the least recently used go first when the table is full, and every operation takes the
same time whatever the table holds. Keys carry hashes of headers and prompts, never the text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from math import inf
from typing import NamedTuple

from endpoints.snapshot import EndpointRecord, Snapshot, fold_model
from proxy.fnv import Hasher
from proxy.inbound import Inbound, RawHeaders, get_header

SESSION_HEADER = b"x-olla-session-id"
# Dead pins removed from the old end by each new one: more than come in, few enough to cost nothing.
_SWEPT_AT_ONCE = 4
_LONGEST_MODEL = 256
_EMPTY_VALUES = frozenset({b"", b"[]", b"null", b'""'})
_LONGEST_EMPTY = 16  # spaces may stand inside `[ ]`; a longer value is not looked at for being empty


class KeySource(StrEnum):
    """Where a session key can come from."""

    SESSION_HEADER = "session_header"
    PREFIX_HASH = "prefix_hash"
    AUTH_HEADER = "auth_header"
    IP = "ip"


class StickyOutcome(StrEnum):
    """What became of one request's session, as X-Olla-Sticky-Session says it."""

    HIT = "hit"
    MISS = "miss"
    REPIN = "repin"
    DISABLED = "disabled"  # no source gave a key


@dataclass(frozen=True, slots=True)
class StickyRules:
    """The settings, one to one."""

    enabled: bool = False
    idle_ttl: float = 600.0  # seconds; 0 keeps a pin until it is pushed out
    max_sessions: int = 10_000
    prefix_hash_bytes: int = 512  # 0 is all of it
    key_sources: tuple[KeySource, ...] = (
        KeySource.SESSION_HEADER, KeySource.PREFIX_HASH, KeySource.AUTH_HEADER,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StickyKey:
    """The name of a session. Neither the key nor the client's header shows in a repr."""

    source: KeySource
    text: str = field(repr=False)
    echo: bytes | None = field(default=None, repr=False)  # the session id as the client sent it


_hasher = Hasher()


def find_key(inbound: Inbound, rules: StickyRules) -> StickyKey | None:
    """The session key of a request, by the first source in the rules' order that gives one."""
    model = _model_part(inbound.model or "")
    for source in rules.key_sources:
        if source is KeySource.SESSION_HEADER:
            session = get_header(inbound.headers, SESSION_HEADER)
            if session:
                return StickyKey(source, f"{_hasher.hex(session)}:{model}", session)
        elif source is KeySource.PREFIX_HASH:
            prefix = conversation_prefix(inbound, rules.prefix_hash_bytes)
            if prefix:
                return StickyKey(source, f"{model.replace(':', '_')}:{_hasher.hex(prefix)}")
        elif source is KeySource.AUTH_HEADER:
            credential = get_header(inbound.headers, b"authorization")
            if credential:
                return StickyKey(source, f"auth:{_hasher.hex(credential)}:{model}")
        elif inbound.client:
            return StickyKey(source, f"ip:{inbound.client.strip('[]')}:{model}")
    return None


def _model_part(name: str) -> str:
    """The model as keys carry it; one longer than any real name is hashed, so that keys stay short."""
    folded = fold_model(name)
    return folded if len(folded) <= _LONGEST_MODEL else _hasher.hex(folded.encode("utf-8", "replace"))


def conversation_prefix(inbound: Inbound, length: int) -> bytes:
    """The first `length` bytes (0: all) of the JSON text of `messages`, or of `prompt` when that has none."""
    for name in ("messages", "prompt"):
        raw = inbound.facts.fields.get(name)
        if raw is None:
            continue
        # A view, so that a prompt of many megabytes is not copied for its first bytes.
        text = memoryview(raw)
        if len(text) > _LONGEST_EMPTY or b"".join(bytes(text).split()) not in _EMPTY_VALUES:
            return bytes(text[:length] if length > 0 else text)
    return b""


class _Pin(NamedTuple):
    endpoint_id: int
    generation: int  # of the endpoint's pins: a purge starts a new one and so drops them all at once
    used_at: float


class StickyTable:
    """Session key -> endpoint id, for this process. `now` is monotonic seconds throughout."""

    __slots__ = ("_generations", "_living", "_pins", "evictions", "hits", "insertions", "misses", "rules")

    def __init__(self, rules: StickyRules) -> None:
        self.rules = rules
        self.insertions = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0  # expired, pushed out or purged
        # In order of last use, which is also the order in which they expire.
        self._pins: OrderedDict[str, _Pin] = OrderedDict()
        self._generations: dict[int, int] = {}
        self._living: dict[int, int] = {}  # endpoint id -> its pins of the present generation

    def find(self, key: str, now: float) -> int | None:
        """The endpoint pinned for `key`, whose idle time starts anew; None when there is none."""
        pin = self._pins.get(key)
        if pin is None:
            return None
        if not self._is_alive(pin, now):
            self._drop(key, pin)
            return None
        self._pins[key] = pin._replace(used_at=now)
        self._pins.move_to_end(key)
        return pin.endpoint_id

    def peek(self, key: str, now: float) -> int | None:
        """As `find`, for one who only looks: nothing is counted, renewed or dropped."""
        pin = self._pins.get(key)
        return pin.endpoint_id if pin is not None and self._is_alive(pin, now) else None

    def pin(self, key: str, endpoint_id: int, now: float) -> None:
        """Pin `key` to an endpoint, in place of an earlier pin if there is one."""
        earlier = self._pins.get(key)
        if earlier is not None and self._is_current(earlier):
            self._uncount(earlier.endpoint_id)
        else:
            self.insertions += 1
        self._pins[key] = _Pin(endpoint_id, self._generations.get(endpoint_id, 0), now)
        self._pins.move_to_end(key)
        self._living[endpoint_id] = self._living.get(endpoint_id, 0) + 1
        self._sweep(now)

    def purge(self, endpoint_id: int) -> int:
        """Forget every pin to an endpoint, in constant time; returns how many there were."""
        self._generations[endpoint_id] = self._generations.get(endpoint_id, 0) + 1
        purged = self._living.pop(endpoint_id, 0)
        self.evictions += purged
        return purged

    def sessions_of(self, endpoint_id: int) -> int:
        """How many sessions are pinned to an endpoint, idle ones that nobody asked for since included."""
        return self._living.get(endpoint_id, 0)

    def stats(self, now: float) -> dict[str, bool | int]:
        """The answer of /internal/stats/sticky."""
        if not self.rules.enabled:
            return {"enabled": False}
        self._sweep(now, at_most=len(self._pins))
        return {
            "enabled": True,
            "active_sessions": sum(self._living.values()),
            "insertions": self.insertions,
            "hits": self.hits,
            "misses": self.misses,
            "evictions": self.evictions,
            "max_sessions": self.rules.max_sessions,
            "idle_ttl_seconds": round(self.rules.idle_ttl),
        }

    def _is_current(self, pin: _Pin) -> bool:
        return pin.generation == self._generations.get(pin.endpoint_id, 0)

    def _is_alive(self, pin: _Pin, now: float) -> bool:
        return self._is_current(pin) and now - pin.used_at < (self.rules.idle_ttl or inf)

    def _sweep(self, now: float, *, at_most: int = _SWEPT_AT_ONCE) -> None:
        """Drop dead pins from the old end, and living ones while there are too many."""
        for key, pin in list(islice(self._pins.items(), at_most)):
            if len(self._pins) <= self.rules.max_sessions and self._is_alive(pin, now):
                return
            self._drop(key, pin)

    def _drop(self, key: str, pin: _Pin) -> None:
        del self._pins[key]
        if self._is_current(pin):  # else it was counted out when its endpoint was purged
            self.evictions += 1
            self._uncount(pin.endpoint_id)

    def _uncount(self, endpoint_id: int) -> None:
        left = self._living[endpoint_id] - 1
        if left:
            self._living[endpoint_id] = left
        else:
            del self._living[endpoint_id]


class Visit:
    """One request's dealings with the table: counted once, however many attempts it takes.

    The pin is written when an endpoint is chosen, not when it has answered, so that requests of one session
    sent together stay together; an attempt that fails moves the pin with the request.
    """

    __slots__ = ("_asked", "_key", "_pinned", "_table", "outcome")

    def __init__(self, table: StickyTable, key: StickyKey | None) -> None:
        self._table = table
        self._key = key
        self._asked = False
        self._pinned: int | None = None
        self.outcome: StickyOutcome | None = None  # None: the feature is off
        if table.rules.enabled and key is None:
            self.outcome = StickyOutcome.DISABLED

    def recall(self, choices: Iterable[EndpointRecord], now: float) -> EndpointRecord | None:
        """The pinned endpoint if it is among `choices`; None: choose one and `settle` on it."""
        if self._key is None:
            return None
        pinned = self._look_up(self._key.text, now)
        found = next((each for each in choices if each.id == pinned), None)
        self._judge(found.id if found is not None else None)
        return found

    def settle(self, endpoint_id: int, now: float) -> None:
        """Remember where the request goes, whether or not `recall` was asked before."""
        if self._key is None:
            return
        pinned = self._look_up(self._key.text, now)
        self._judge(endpoint_id)
        if endpoint_id != pinned:
            self._pinned = endpoint_id
            self._table.pin(self._key.text, endpoint_id, now)

    def _look_up(self, key: str, now: float) -> int | None:
        """The pin, read and counted once; from then on what this request made of it."""
        if not self._asked:
            self._asked = True
            self._pinned = self._table.find(key, now)
            if self._pinned is None:
                self._table.misses += 1
            else:
                self._table.hits += 1
        return self._pinned

    def _judge(self, endpoint_id: int | None) -> None:
        if self._pinned is None:
            self.outcome = StickyOutcome.MISS
        else:
            self.outcome = StickyOutcome.HIT if endpoint_id == self._pinned else StickyOutcome.REPIN

    def headers(self) -> RawHeaders:
        """The X-Olla headers that tell the client; none while the feature is off."""
        if self.outcome is None:
            return []
        headers = [(b"X-Olla-Sticky-Session", self.outcome.encode())]
        if self._key is not None:
            headers.append((b"X-Olla-Sticky-Key-Source", self._key.source.encode()))
            if self._key.echo is not None:
                headers.append((b"X-Olla-Session-ID", self._key.echo))
        return headers


def start_visit(table: StickyTable, inbound: Inbound) -> Visit:
    """The visit of one request; its key is only looked for while the feature is on."""
    return Visit(table, find_key(inbound, table.rules) if table.rules.enabled else None)


class Sight(NamedTuple):
    """A snapshot and the moment it was looked at, in seconds since the epoch."""

    snapshot: Snapshot
    at: float


def find_unroutable(before: Sight, after: Sight) -> list[int]:
    """Ids of endpoints that took traffic then and no longer do: their pins are to be purged.

    Within one snapshot only a maintenance window that begins makes a difference.
    """
    same = before.snapshot is after.snapshot
    lost = []
    for each in before.snapshot.windowed if same else before.snapshot.endpoints:
        if each.takes_traffic(before.at):
            now_is = after.snapshot.by_id.get(each.id)
            if now_is is None or not now_is.takes_traffic(after.at):
                lost.append(each.id)
    return lost
