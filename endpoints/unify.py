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
from typing import NamedTuple, Protocol

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


class _Listing(NamedTuple):
    endpoint_id: int
    model: ListedModel
    name: str  # folded, without its implied tag
    digest: str


def build_catalogue(holders: Iterable[Holder], same: Mapping[str, Iterable[str]] | None = None) -> Catalogue:
    """One entry for each model. `same` are the operator's names for a model -> its names at the endpoints."""
    listings = _read_listings(holders)
    digests_of: dict[str, dict[str, list[int]]] = {}  # name -> digest -> endpoints
    for listing in listings:
        found = digests_of.setdefault(listing.name, {})
        if listing.digest:
            found.setdefault(listing.digest, []).append(listing.endpoint_id)
    drifts = [
        Drift(name, tuple((digest, tuple(ids)) for digest, ids in sorted(found.items())))
        for name, found in sorted(digests_of.items())
        if len(found) > 1
    ]
    groups = _group(listings, digests_of, same or {})
    meanings = _count_meanings(groups)
    models = _name_groups(groups, meanings)
    return Catalogue(tuple(models), tuple(drifts), _other_names(models, meanings))


def _read_listings(holders: Iterable[Holder]) -> list[_Listing]:
    """Every listing, best endpoint first and then by name."""
    listings = []
    for holder in sorted(holders, key=lambda each: (-each.priority, each.name, each.id)):
        folded = [(fold_model(model.name), model) for model in holder.models]
        for name, model in sorted(folded, key=lambda pair: (pair[0], pair[1].name)):
            digest = fold_digest(model.digest) if model.digest else ""
            listings.append(_Listing(holder.id, model, name.removesuffix(":latest"), digest))
    return listings


@dataclass(slots=True)
class _Group:
    listings: list[_Listing] = field(default_factory=list)
    own_name: str = ""  # the operator's


def _key_of(name: str, digest: str, digests_of: Mapping[str, Mapping[str, object]]) -> str:
    """What a listing is grouped by: its digest, or without one the only digest its name has, or its name."""
    if digest:
        return digest
    found = digests_of[name]
    return next(iter(found)) if len(found) == 1 else f"name:{name}"


def _group(
    listings: list[_Listing],
    digests_of: Mapping[str, Mapping[str, object]],
    same: Mapping[str, Iterable[str]],
) -> list[_Group]:
    """The listings of each model, best first."""
    joined, own_names = _join(digests_of, same)
    groups: dict[str, _Group] = {}
    for listing in listings:
        key = _key_of(listing.name, listing.digest, digests_of)
        key = joined.get(key, key)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group(own_name=own_names.get(key, ""))
        group.listings.append(listing)
    return list(groups.values())


def _join(
    digests_of: Mapping[str, Mapping[str, object]], same: Mapping[str, Iterable[str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """What the operator says: key -> key of the whole, and the first name given to each whole."""
    joined: dict[str, str] = {}
    named: list[tuple[str, str]] = []
    for own_name, names in sorted(same.items()):
        known = [name for name in map(fold_tag, names) if name in digests_of]
        keys = {key for name in known for key in (*digests_of[name], _key_of(name, "", digests_of))}
        wholes = {joined.get(key, key) for key in keys}
        if wholes:
            whole = min(wholes)
            named.append((whole, own_name))
            joined = {key: whole if value in wholes else value for key, value in joined.items()}
            joined.update(dict.fromkeys(keys | wholes, whole))
    own_names: dict[str, str] = {}
    for whole, own_name in named:
        own_names.setdefault(joined.get(whole, whole), own_name)
    return joined, own_names


def _count_meanings(groups: list[_Group]) -> Mapping[str, int]:
    """How many models each name stands for."""
    meanings: dict[str, int] = {}
    for group in groups:
        names = {each.name for each in group.listings} if len(group.listings) > 1 else (group.listings[0].name,)
        for name in names:
            meanings[name] = meanings.get(name, 0) + 1
    return meanings


def _name_groups(groups: list[_Group], meanings: Mapping[str, int]) -> list[UnifiedModel]:
    """The entries, sorted by id. No two ids are the same name; digest or number tell namesakes apart."""
    taken: dict[str, int] = {}
    models = []
    # Operators' names first (they hide models of their name), then in the order of the best listing.
    for group in sorted(groups, key=lambda each: not each.own_name):
        best = group.listings[0]
        found = {each.digest for each in group.listings}
        digests = tuple(sorted(found - {""}))
        name = group.own_name or best.model.name
        if not group.own_name and meanings[best.name] > 1 and digests:
            name = f"{name}-{digests[0][-ID_DIGITS:]}"
        name = _choose_free(name, taken)
        sources = tuple([(each.endpoint_id, each.model) for each in group.listings])
        models.append(UnifiedModel(name, sources, digests))
    return sorted(models, key=lambda model: (fold_model(model.id), model.id))


def _choose_free(name: str, taken: dict[str, int]) -> str:
    """The name, with a number behind it if it is taken; `taken` holds the last number given to each."""
    base, free = fold_tag(name), name
    while (folded := fold_tag(free)) in taken:
        taken[base] += 1
        free = f"{name}-{taken[base]}"
    taken[folded] = 1
    return free


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
