"""The same model on several endpoints as one catalogue entry. (pure)

    build_catalogue(holders, same) -> Catalogue

Two listings are one model when they carry the same digest, when an operator says so (`same`), or when their names
are equal (letter case and the implied `:latest` do not count). Nothing is concluded from names that are merely
alike. A name that endpoints give to different digests joins nothing by itself: its digests stay apart, and the
catalogue reports the drift. The result depends on neither the order of endpoints nor that of their lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from endpoints.listed import ListedModel, fold_model, fold_tag

# A whole SHA-256: anything shorter, or made up of one character, may be the same for different models.
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
ID_DIGITS = 8


class Holder(Protocol):
    """An endpoint, as far as the catalogue is concerned."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def priority(self) -> int: ...

    @property
    def models(self) -> tuple[ListedModel, ...]: ...


@dataclass(frozen=True, slots=True)
class UnifiedModel:
    """One model and every listing of it: (endpoint id, model), best endpoint first.

    `id` is a name of it that requests may use: the operator's name for it, else the best endpoint's, with the last
    digits of the digest behind it where that name means different models.
    """

    id: str
    sources: tuple[tuple[int, ListedModel], ...]
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """A name that is not the same model everywhere: digest -> ids of the endpoints that have that one."""

    name: str
    digests: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every model there is, by id, and what does not agree."""

    models: tuple[UnifiedModel, ...] = ()
    drifts: tuple[Drift, ...] = ()
    # By endpoint id: case-folded names its models have elsewhere -> the endpoint's own name.
    other_names: Mapping[int, Mapping[str, str]] = field(default_factory=dict)


def fold_digest(digest: str) -> str:
    """A digest in the form digests are compared; empty for one that proves nothing."""
    match = _DIGEST.fullmatch(digest.strip().lower())
    return match[1] if match and len(set(match[1])) > 1 else ""


@dataclass(frozen=True, slots=True)
class _Listing:
    rank: tuple[int, str, int, str, str]  # best endpoint first, then by name
    endpoint_id: int
    model: ListedModel
    name: str
    digest: str


def build_catalogue(holders: Iterable[Holder], same: Mapping[str, Iterable[str]] | None = None) -> Catalogue:
    """One entry for each model. `same` are the operator's names for a model -> its names at the endpoints."""
    listings = sorted(
        (
            _Listing(
                (-each.priority, each.name, each.id, fold_model(model.name), model.name),
                each.id, model, fold_tag(model.name), fold_digest(model.digest),
            )
            for each in holders
            for model in each.models
        ),
        key=lambda listing: listing.rank,
    )  # fmt: skip
    drifts = _find_drifts(listings)
    groups = _group(listings, {fold_tag(drift.name) for drift in drifts}, same or {})
    meanings = _count_meanings(groups)
    models = _name_groups(groups, meanings)
    return Catalogue(tuple(models), tuple(drifts), _other_names(models, meanings))


def _find_drifts(listings: list[_Listing]) -> list[Drift]:
    holders: dict[str, dict[str, list[int]]] = {}
    for listing in listings:
        if listing.digest:
            holders.setdefault(listing.name, {}).setdefault(listing.digest, []).append(listing.endpoint_id)
    return [
        Drift(name, tuple((digest, tuple(ids)) for digest, ids in sorted(by_digest.items())))
        for name, by_digest in sorted(holders.items())
        if len(by_digest) > 1
    ]


class _Classes:
    """Which keys are the same thing: a union-find whose roots are the smallest keys."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, key: str) -> str:
        root = key
        while (parent := self._parents.get(root, root)) != root:
            root = parent
        while (parent := self._parents.get(key, key)) != root:
            self._parents[key], key = root, parent
        return root

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first


@dataclass(slots=True)
class _Group:
    listings: list[_Listing] = field(default_factory=list)
    own_name: str = ""  # the operator's


def _group(listings: list[_Listing], drifting: set[str], same: Mapping[str, Iterable[str]]) -> list[_Group]:
    """The listings of each model, best first. A listing's key is its digest, or its name where it has none."""
    classes = _Classes()
    keys = [f"d:{each.digest}" if each.digest else f"n:{each.name}" for each in listings]
    by_name: dict[str, list[str]] = {}
    for listing, key in zip(listings, keys, strict=True):
        by_name.setdefault(listing.name, []).append(key)
        if listing.name not in drifting:
            classes.join(key, f"n:{listing.name}")
    own_names: dict[str, str] = {}
    for own_name, names in sorted(same.items()):
        members = [key for name in names for key in by_name.get(fold_tag(name), ())]
        for key in members:
            classes.join(members[0], key)
        if members:
            own_names[own_name] = members[0]
    groups: dict[str, _Group] = {}
    for listing, key in zip(listings, keys, strict=True):
        groups.setdefault(classes.find(key), _Group()).listings.append(listing)
    for own_name, key in own_names.items():
        group = groups[classes.find(key)]
        group.own_name = group.own_name or own_name
    return list(groups.values())


def _count_meanings(groups: list[_Group]) -> Mapping[str, int]:
    """How many models each name stands for."""
    meanings: dict[str, int] = {}
    for group in groups:
        for name in {each.name for each in group.listings}:
            meanings[name] = meanings.get(name, 0) + 1
    return meanings


def _name_groups(groups: list[_Group], meanings: Mapping[str, int]) -> list[UnifiedModel]:
    """The entries, sorted by id. No two ids are the same name; digest or number tell namesakes apart."""
    taken: dict[str, int] = {}
    models = []
    # Operators' names first (they hide models of their name), then in the order of the best listing.
    for group in sorted(groups, key=lambda each: not each.own_name):
        best = group.listings[0]
        digests = tuple(sorted({each.digest for each in group.listings if each.digest}))
        name = group.own_name or best.model.name
        if not group.own_name and meanings[best.name] > 1 and digests:
            name = f"{name}-{digests[0][-ID_DIGITS:]}"
        folded = fold_tag(name)
        taken[folded] = taken.get(folded, 0) + 1
        if taken[folded] > 1:
            name = f"{name}-{taken[folded]}"
        sources = tuple((each.endpoint_id, each.model) for each in group.listings)
        models.append(UnifiedModel(name, sources, digests))
    return sorted(models, key=lambda model: (fold_model(model.id), model.id))


def _other_names(models: list[UnifiedModel], meanings: Mapping[str, int]) -> Mapping[int, Mapping[str, str]]:
    """What each endpoint's models are called elsewhere. A name that stands for several models is left out: it
    means the endpoints that list it, and no others.
    """
    found: dict[int, dict[str, str]] = {}
    for model in models:
        names = {fold_model(each.name) for _, each in model.sources}
        if len(names) == 1 and fold_model(model.id) in names:
            continue
        names = {name for name in names if meanings[fold_tag(name)] == 1}
        if fold_tag(model.id) not in meanings:
            names.add(fold_model(model.id))
        names |= {fold_tag(name) for name in names}
        for endpoint_id, listed in reversed(model.sources):  # the best of an endpoint's own names comes last
            own = found.setdefault(endpoint_id, {})
            for name in names:
                own[name] = listed.name
    return MappingProxyType({key: MappingProxyType(value) for key, value in found.items()})
