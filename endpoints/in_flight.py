"""Requests open to endpoints in this process, for pages.

Who forwards requests provides the counts (this package knows nothing of it); without a provider they are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Counts = Mapping[int, int]


class _Source:
    """Holds the provider of this process."""

    read: Callable[[], Counts] = staticmethod(dict)


def provide_in_flight(read: Callable[[], Counts]) -> None:
    """Set where the counts by endpoint id come from; called from any thread."""
    _Source.read = staticmethod(read)


def in_flight_of(endpoint_id: int) -> int:
    """Requests open to one endpoint now."""
    return _Source.read().get(endpoint_id, 0)
