"""Looks at what endpoints have in memory, between discoveries and behind their probes.

Models come and go there within seconds, lists hardly ever change: so this is one small question every
OLLA_LOADED_INTERVAL, to kinds that load on demand only, and the tables hear of it when the answer is another.
"""

from __future__ import annotations

from endpoints.asking import ProbeTarget
from endpoints.conf import conf
from endpoints.enriching import ask_loaded
from endpoints.loaded import Loaded
from endpoints.transport import Transport

# Also an unchanged answer is written that often: it says until when models stay, and a discovery may have come
# between with an older one.
REPEATED_AFTER = 60.0


class MemoryWatch:
    """When each endpoint was looked at, and what it had in memory then (monotonic seconds)."""

    def __init__(self) -> None:
        self._looked: dict[int, float] = {}
        self._told: dict[int, tuple[float, frozenset[str]]] = {}

    async def look(self, endpoint_id: int, target: ProbeTarget, door: Transport, now: float) -> Loaded | None:
        """What the endpoint has in memory, when a look is due and finds news; else None. Never raises."""
        if target.profile.loaded_at is None or now - self._looked.get(endpoint_id, -1e9) < conf().loaded_interval:
            return None
        self._looked[endpoint_id] = now
        loaded = await ask_loaded(target, door, timeout=target.check_timeout)
        if loaded is None or not self._is_news(endpoint_id, frozenset(loaded), now):
            return None
        self._told[endpoint_id] = (now, frozenset(loaded))
        return loaded

    def _is_news(self, endpoint_id: int, names: frozenset[str], now: float) -> bool:
        told_at, told = self._told.get(endpoint_id, (-1e9, frozenset()))
        return names != told or now - told_at >= REPEATED_AFTER
