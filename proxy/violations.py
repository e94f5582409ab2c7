"""Requests refused for their rate or size, counted for the life of the process. (pure)

`now` is Unix time throughout.
"""

from __future__ import annotations

from proxy.errors import ErrorCode

_TOO_LARGE = (ErrorCode.REQUEST_TOO_LARGE, ErrorCode.HEADERS_TOO_LARGE)
MOST_CLIENTS = 10_000
REMEMBERED_SECONDS = 3600.0


class Violations:
    """Counts, and which clients were refused for their rate within the hour."""

    __slots__ = ("_clients", "rates", "sizes")

    def __init__(self) -> None:
        self.rates: dict[str, int] = {}  # by limit: client, burst, total, concurrent
        self.sizes: dict[str, int] = {}  # by error code
        self._clients: dict[str, float] = {}  # in the order they were last refused

    def note_rate(self, limit: str, client: str, now: float) -> None:
        """A request was refused because there were too many."""
        self.rates[limit] = self.rates.get(limit, 0) + 1
        self._clients.pop(client, None)
        if len(self._clients) >= MOST_CLIENTS:
            del self._clients[next(iter(self._clients))]
        self._clients[client] = now

    def note_error(self, code: ErrorCode) -> None:
        """A request got this error of ours: counted when it says that body or headers are too large."""
        if code in _TOO_LARGE:
            self.sizes[code] = self.sizes.get(code, 0) + 1

    @property
    def rate_total(self) -> int:
        """All refused for their rate."""
        return sum(self.rates.values())

    @property
    def size_total(self) -> int:
        """All refused for their size."""
        return sum(self.sizes.values())

    def limited_clients(self, now: float) -> int:
        """How many different clients were refused for their rate within the hour; the oldest are forgotten."""
        oldest = now - REMEMBERED_SECONDS
        while self._clients:
            client, seen = next(iter(self._clients.items()))
            if seen > oldest:
                break
            del self._clients[client]
        return len(self._clients)

    def forget(self) -> None:
        """Start anew; for tests."""
        self.rates.clear()
        self.sizes.clear()
        self._clients.clear()


violations = Violations()
