"""Model lists as bytes, put together from entries that were encoded before. (pure)

Clients ask for lists every few seconds, and nothing in them changes while the snapshot stays and no endpoint comes
or goes. So what an entry looks like in a shape is kept with the snapshot, by its name and the endpoints it can be
used at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from endpoints.snapshot import Snapshot
from proxy.listings import CatalogueEntry, Writer

# Entries kept in one shape: each once, and as often again with some of its endpoints out.
_MOST = 20_000
# Encoding more entries than this would hold up the event loop.
MANY = 200

Parts = dict[tuple[str, frozenset[int]], bytes]


@dataclass(frozen=True, slots=True)
class LocalList:
    """A list to be answered here. `shape` names the writer; what it writes of an entry follows from that alone."""

    snapshot: Snapshot
    shape: str
    entries: Sequence[CatalogueEntry]
    write: Writer

    def count_missing(self) -> int:
        """How many of the entries were not encoded in this shape before."""
        parts = _parts_of(self.snapshot, self.shape)
        return sum((entry.name, entry.usable) not in parts for entry in self.entries)

    def encode(self) -> bytes:
        """The JSON of `write(entries)`."""
        parts, found = _parts_of(self.snapshot, self.shape), []
        for entry in self.entries:
            key = (entry.name, entry.usable)
            part = parts.get(key)
            if part is None:
                part = parts[key] = msgspec.json.encode(_items_of(self.write([entry])))[1:-1]
            if part:  # a writer may leave entries out
                found.append(part)
        head, _, tail = msgspec.json.encode(self.write([])).partition(b"[]")
        if len(parts) > _MOST:
            parts.clear()
        return b"%b[%b]%b" % (head, b",".join(found), tail)


def _parts_of(snapshot: Snapshot, shape: str) -> Parts:
    found: Parts = snapshot.lists.setdefault(("parts", shape), {})
    return found


def _items_of(document: dict[str, Any]) -> list[Any]:
    """The one list of a document."""
    (items,) = [value for value in document.values() if isinstance(value, list)]
    return items
