"""Names that are not the same model everywhere. (pure)

    build_drift(snapshot) -> tuple[DriftRow, ...]

An endpoint that was updated and one that was not list the same name with different digests: whoever asks for it
gets the one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from endpoints.listed import fold_tag
from endpoints.snapshot import EndpointRecord, Snapshot
from endpoints.unify import Drift, fold_digest


@dataclass(frozen=True, slots=True)
class DriftVersion:
    """One of the models a name stands for: the endpoints that have it, by name; size and time where they tell."""

    digest: str
    endpoints: tuple[str, ...]
    size_bytes: int | None = None
    modified_at: float | None = None  # seconds since the epoch

    @property
    def short_digest(self) -> str:
        """As people tell digests apart."""
        return self.digest[:12]


@dataclass(frozen=True, slots=True)
class DriftRow:
    """A name and the models it stands for, the one most endpoints have first."""

    name: str
    versions: tuple[DriftVersion, ...]


def build_drift(snapshot: Snapshot) -> tuple[DriftRow, ...]:
    """Every name that endpoints give to different digests, by name."""
    return tuple(_build_row(snapshot, drift) for drift in snapshot.catalogue.drifts)


def _build_row(snapshot: Snapshot, drift: Drift) -> DriftRow:
    versions = []
    for digest, ids in drift.digests:
        holders = [snapshot.by_id[each] for each in dict.fromkeys(ids) if each in snapshot.by_id]
        versions.append(_build_version(drift.name, digest, holders))
    return DriftRow(drift.name, tuple(sorted(versions, key=lambda each: (-len(each.endpoints), each.digest))))


def _build_version(name: str, digest: str, holders: list[EndpointRecord]) -> DriftVersion:
    listed = [
        model
        for each in holders
        for model in each.models
        if fold_tag(model.name) == name and fold_digest(model.digest) == digest
    ]
    return DriftVersion(
        digest=digest,
        endpoints=tuple(each.name for each in holders),
        size_bytes=next((model.size_bytes for model in listed if model.size_bytes), None),
        modified_at=max((model.modified_at for model in listed if model.modified_at), default=None),
    )
