"""HeaderLines: the headers of attempts as they go over the wire, written once for requests that say the same.

A client repeats itself: what its library, its key and its host put into the headers stands in each of its
requests, and only the length of the body differs. When there is no room for more all is forgotten, and what still
comes is written again.
"""

from __future__ import annotations

from collections.abc import Iterable

from endpoints.outgoing import write_lines
from proxy.headers import HeaderPlan, build_upstream_headers
from proxy.inbound import Inbound

# Headers, then client, peer, scheme, host and model: all that the lines of a plan depend on.
_Said = tuple[tuple[tuple[bytes, bytes], ...], str, str, str, str, str | None]

MOST = 512
# Of one of them: bytes sent and written, and headers sent. All together take ten MB at the very most.
LONGEST, MOST_HEADERS = 8192, 64


class HeaderLines:
    """The lines of one process. `via` and `product` are what `build_upstream_headers` adds."""

    def __init__(self, via: bytes, product: bytes) -> None:
        self._via = via
        self._product = product
        self._written: dict[HeaderPlan, dict[_Said, bytes]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many are remembered."""
        return self._count

    def write(self, inbound: Inbound, plan: HeaderPlan) -> bytes:
        """All header lines of an attempt but the length of its body. Raises ValueError for a line break in one."""
        sent = tuple([pair for pair in inbound.headers if pair[0] != b"content-length"])
        said = (sent, inbound.client, inbound.peer, inbound.scheme, inbound.host, inbound.model)
        by_said = self._written.get(plan)
        lines = by_said.get(said) if by_said is not None else None
        if lines is None:
            lines = write_lines(build_upstream_headers(inbound, plan, self._via, self._product))
            size = len(lines) + len(inbound.model or "") + sum(len(name) + len(value) for name, value in sent)
            if size <= LONGEST and len(sent) <= MOST_HEADERS:
                self._keep(plan, said, lines)
        return lines

    def _keep(self, plan: HeaderPlan, said: _Said, lines: bytes) -> None:
        if self._count >= MOST:
            self.forget_all()
        self._written.setdefault(plan, {})[said] = lines
        self._count += 1

    def forget(self, plans: Iterable[HeaderPlan]) -> None:
        """Nothing goes by these plans any more: the credentials in them may have been taken back."""
        for plan in plans:
            self._count -= len(self._written.pop(plan, ()))

    def forget_all(self) -> None:
        """Nothing goes by any plan of before."""
        self._written.clear()
        self._count = 0
