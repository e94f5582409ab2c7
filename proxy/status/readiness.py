"""`/internal/ready`: whether a request sent here now can be routed, and if not, why. (pure)

Routing goes on while the database or the prober is away; both count here only once they have been away for
longer than `OLLA_READY_MAX_AGE`, for what routing knows is then too old to be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from endpoints.snapshot import EndpointRecord
from proxy.sieve import LiveView, is_usable


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was looked at. Ages in seconds; None: never seen."""

    database_age: float | None
    prober_age: float | None
    usable: int
    endpoints: int
    max_age: float  # 0: ages do not count, as long as there is one

    @property
    def checks(self) -> dict[str, bool]:
        """What is well, by name."""
        return {
            "database": self._is_fresh(self.database_age),
            "prober": self._is_fresh(self.prober_age),
            "endpoints": self.usable > 0,
        }

    @property
    def is_ready(self) -> bool:
        """Whether all is."""
        return all(self.checks.values())

    def _is_fresh(self, age: float | None) -> bool:
        return age is not None and (not self.max_age or age <= self.max_age)


def read_readiness(
    endpoints: Iterable[EndpointRecord], view: LiveView, confirmed_at: float, max_age: float
) -> Readiness:
    """Look at the snapshot's endpoints and when database and prober were last seen (Unix time; 0: never)."""
    known = list(endpoints)
    return Readiness(
        database_age=_age(confirmed_at, view.now),
        prober_age=_age(view.prober_seen, view.now),
        usable=sum(is_usable(each, view) for each in known),
        endpoints=len(known),
        max_age=max_age,
    )


def build_ready(readiness: Readiness) -> dict[str, Any]:
    """The answer; names no endpoint, since anyone may ask."""
    checks = readiness.checks
    return {
        "status": "ready" if readiness.is_ready else "not_ready",
        "failing": [name for name, is_well in checks.items() if not is_well],
        "checks": {
            "database": {"ok": checks["database"], "age_seconds": _shown(readiness.database_age)},
            "prober": {"ok": checks["prober"], "age_seconds": _shown(readiness.prober_age)},
            "endpoints": {
                "ok": checks["endpoints"],
                "routable": readiness.usable,
                "total": readiness.endpoints,
            },
        },
    }


def _age(seen: float, now: float) -> float | None:
    return max(0.0, now - seen) if seen else None


def _shown(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
