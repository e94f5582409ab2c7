"""The ids and addresses under which the status routes show endpoints. (pure)

An id is FNV-1a (32 bits, base 36) of the address as shown, so it survives a new database; endpoints that share an
address are numbered by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from endpoints.snapshot import EndpointRecord, Snapshot
from proxy.fnv import base36, fnv1a_32

UNPARSEABLE = "[unparseable url]"


@lru_cache(maxsize=4096)
def shown_url(url: str) -> str:
    """A URL without user, query and fragment; never the raw text of one that does not parse."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return UNPARSEABLE
    if not parts.scheme or not host:
        return UNPARSEABLE
    return f"{parts.scheme}://{host}{parts.path}"


@lru_cache(maxsize=4096)
def id_of_url(shown: str) -> str:
    """The id of an address that one endpoint has."""
    return base36(fnv1a_32(shown.encode("utf-8", "replace")))


def public_ids(endpoints: Iterable[EndpointRecord]) -> Mapping[int, str]:
    """Endpoint id in the tables -> the id shown."""
    sharing: dict[str, list[EndpointRecord]] = {}
    for each in endpoints:
        sharing.setdefault(shown_url(each.url), []).append(each)
    ids: dict[int, str] = {}
    for shown, members in sharing.items():
        name = id_of_url(shown)
        if len(members) == 1:
            ids[members[0].id] = name
            continue
        for number, each in enumerate(sorted(members, key=lambda e: (e.name, e.url, e.id))):
            ids[each.id] = f"{name}-{number}"
    return ids


@lru_cache(maxsize=2)  # snapshots are compared by identity; two, for tests that hold an older one
def ids_of_snapshot(snapshot: Snapshot) -> Mapping[int, str]:
    """The ids of a snapshot's endpoints, worked out once."""
    return public_ids(snapshot.endpoints)
