"""HeaderLines: the headers of attempts as they go over the wire, written once for requests that say the same.

A client repeats itself: what its library, its key and its host put into the headers stands in each of its
requests, and only the length of the body differs. When there is no room for more all is forgotten, and what still
comes is written again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from endpoints.outgoing import write_lines
from proxy.headers import HeaderPlan, build_upstream_headers
from proxy.inbound import Inbound

MOST = 512
LONGEST = 8192  # bytes sent and written for one of them: all together take a few MB


class HeaderLines:
    """The lines of one process. `via` and `product` are what `build_upstream_headers` adds."""

    def __init__(self, via: bytes, product: bytes) -> None:
        self._via = via
        self._product = product
        self._written: dict[tuple[Any, ...], bytes] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._written)

    def write(self, inbound: Inbound, plan: HeaderPlan) -> bytes:
        """All header lines of an attempt but the length of its body. Raises ValueError for a line break in one."""
        sent = tuple([pair for pair in inbound.headers if pair[0] != b"content-length"])
        key = (plan, sent, inbound.client, inbound.peer, inbound.scheme, inbound.host, inbound.model)
        lines = self._written.get(key)
        if lines is None:
            lines = write_lines(build_upstream_headers(inbound, plan, self._via, self._product))
            self._keep(key, lines)
        return lines

    def _keep(self, key: tuple[Any, ...], lines: bytes) -> None:
        sent, model = key[1], key[-1] or ""
        if len(model) + sum(len(name) + len(value) for name, value in sent) + len(lines) > LONGEST:
            return
        if len(self._written) >= MOST:
            self._written.clear()
        self._written[key] = lines

    def forget(self, plans: Collection[HeaderPlan]) -> None:
        """Nothing goes by these plans any more: the credentials in them may have been taken back."""
        self._written = {key: lines for key, lines in self._written.items() if key[0] not in plans}
