"""The same model on several endpoints as one entry, and never two models as one."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.listed import ListedModel
from endpoints.unify import Catalogue, build_catalogue, fold_digest

X, Y, Z = ("0123456789abcdef" * 4, "fedcba9876543210" * 4, "00112233" * 8)


@dataclass(frozen=True)
class Shelf:
    """An endpoint with its models."""

    id: int
    models: tuple[ListedModel, ...]
    priority: int = 100

    @property
    def name(self) -> str:
        return f"e{self.id}"


def shelf(number: int, *models: ListedModel | str, priority: int = 100) -> Shelf:
    return Shelf(number, tuple(ListedModel(m) if isinstance(m, str) else m for m in models), priority)


def model(name: str, digest: str = "") -> ListedModel:
    return ListedModel(name, digest=digest)


def shape(catalogue: Catalogue) -> dict[str, list[tuple[int, str]]]:
    """Id -> where it is under which name."""
    return {each.id: [(where, listed.name) for where, listed in each.sources] for each in catalogue.models}


def test_it_joins_equal_names_across_kinds() -> None:
    catalogue = build_catalogue([shelf(1, "Qwen3:8B"), shelf(2, "qwen3:8b"), shelf(3, "other")])
    assert shape(catalogue) == {"other": [(3, "other")], "Qwen3:8B": [(1, "Qwen3:8B"), (2, "qwen3:8b")]}


def test_it_joins_the_implied_tag() -> None:
    assert shape(build_catalogue([shelf(1, "llama3"), shelf(2, "llama3:latest")])) == {
        "llama3": [(1, "llama3"), (2, "llama3:latest")]
    }


def test_it_joins_equal_digests_whatever_the_names() -> None:
    catalogue = build_catalogue([shelf(1, model("a", X)), shelf(2, model("b", f"sha256:{X.upper()}"), "c")])
    assert shape(catalogue) == {"a": [(1, "a"), (2, "b")], "c": [(2, "c")]}
    assert {key: dict(names) for key, names in catalogue.other_names.items()} == {
        1: {"a": "a", "b": "a"}, 2: {"a": "b", "b": "b"},
    }  # fmt: skip


@pytest.mark.parametrize("digest", ["", "abc", "0" * 64, "sha256:", "x" * 64, X[:-1]])
def test_it_concludes_nothing_from_a_digest_that_proves_nothing(digest: str) -> None:
    assert fold_digest(digest) == ""
    assert len(build_catalogue([shelf(1, model("a", digest)), shelf(2, model("b", digest))]).models) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("llama3.1:8b", "meta-llama-3.1-8b-instruct"), ("llama3:8b", "llama3"), ("llama3:8b", "llama3:8b-q4_0"),
        ("org/m", "m"), ("org/m", "other/m"), ("m.gguf", "m"), ("llama3.1", "llama31"), ("m-v1", "m_v1"),
    ],
)  # fmt: skip
def test_it_never_joins_names_that_are_merely_alike(names: tuple[str, str]) -> None:
    assert len(build_catalogue([shelf(1, names[0]), shelf(2, names[1])]).models) == 2


def test_it_joins_what_the_operator_says_is_one_model() -> None:
    fleet = [shelf(1, model("llama3.1:8b", X)), shelf(2, "meta-llama-3.1-8b-instruct"),
             shelf(3, "meta-llama/Llama-3.1-8B-Instruct"), shelf(4, model("mine", X))]  # fmt: skip
    same = {"llama-8b": ["llama3.1:8b", "META-llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", "gone"]}
    catalogue = build_catalogue(fleet, same)
    assert shape(catalogue) == {
        "llama-8b": [
            (1, "llama3.1:8b"), (2, "meta-llama-3.1-8b-instruct"), (3, "meta-llama/Llama-3.1-8B-Instruct"),
            (4, "mine"),
        ]
    }  # fmt: skip
    assert catalogue.other_names[2]["llama3.1:8b"] == "meta-llama-3.1-8b-instruct"
    assert catalogue.other_names[1]["llama-8b"] == "llama3.1:8b"


def test_it_ignores_what_the_operator_says_of_unknown_names() -> None:
    assert shape(build_catalogue([shelf(1, "a")], {"b": ["c", "d"]})) == {"a": [(1, "a")]}


def test_it_keeps_one_name_with_different_digests_apart_and_reports_it() -> None:
    fleet = [shelf(1, model("m", X)), shelf(2, model("M:latest", Y)), shelf(3, "m"), shelf(4, model("copy", Y))]
    catalogue = build_catalogue(fleet)
    assert shape(catalogue) == {
        "M:latest-76543210": [(2, "M:latest"), (4, "copy")], "m": [(3, "m")], "m-89abcdef": [(1, "m")],
    }  # fmt: skip
    assert [(drift.name, drift.digests) for drift in catalogue.drifts] == [("m", ((X, (1,)), (Y, (2,))))]
    # `m` reaches those that list it, `copy` both that have its digest, and each id its own model.
    assert {key: dict(names) for key, names in catalogue.other_names.items()} == {
        1: {"m-89abcdef": "m"},
        2: {"m:latest-76543210": "M:latest", "copy": "M:latest"},
        4: {"m:latest-76543210": "copy", "copy": "copy"},
    }


def test_it_never_gives_an_id_that_is_another_models_name() -> None:
    catalogue = build_catalogue([shelf(1, model("m", X)), shelf(2, model("m", Y)), shelf(3, "m-89abcdef")])
    assert len({each.id for each in catalogue.models}) == 3
    assert "m-89abcdef" not in catalogue.other_names.get(1, {})


def test_it_numbers_namesakes_past_numbers_that_are_names() -> None:
    """Three models whose digests end alike, and models that are called what the others would be numbered."""
    ends = [digit + X[1:] for digit in "456"]
    fleet = [shelf(number, model("m", digest)) for number, digest in enumerate(ends)]
    fleet.append(shelf(9, "m-89abcdef", "m-89abcdef-2", priority=200))
    assert {each.id for each in build_catalogue(fleet).models} == {
        "m-89abcdef", "m-89abcdef-2", "m-89abcdef-3", "m-89abcdef-4", "m-89abcdef-5",
    }  # fmt: skip


def test_it_names_an_entry_after_its_best_endpoint() -> None:
    fleet = [shelf(1, model("zeta", X)), shelf(2, model("alpha", X), priority=200), shelf(3, model("beta", X))]
    assert list(shape(build_catalogue(fleet))) == ["alpha"]
    assert list(shape(build_catalogue([fleet[0], fleet[2]]))) == ["zeta"]


def test_it_keeps_an_endpoints_first_name_of_a_model_it_has_twice() -> None:
    catalogue = build_catalogue([shelf(1, model("b", X), model("a", X)), shelf(2, model("c", X))])
    assert catalogue.other_names[1]["c"] == "a"


names = st.sampled_from(["a", "A", "a:latest", "b", "c", "org/d", "d", "e:8b"])
digests = st.sampled_from(["", "", X, Y, Z])
shelves = st.lists(
    st.tuples(st.dictionaries(names, digests, max_size=5), st.sampled_from([50, 100])), max_size=6
).map(
    lambda rows: [
        Shelf(number, tuple(ListedModel(name, digest=digest) for name, digest in row.items()), priority)
        for number, (row, priority) in enumerate(rows)
    ]
)
aliases = st.dictionaries(st.sampled_from(["fast", "a", "zz"]), st.lists(names, max_size=3), max_size=2)


@given(shelves, aliases, st.randoms(use_true_random=False))
def test_it_does_not_depend_on_order(fleet: list[Shelf], same: dict[str, list[str]], dice: random.Random) -> None:
    first = build_catalogue(fleet, same)
    mixed = [Shelf(e.id, tuple(dice.sample(e.models, len(e.models))), e.priority) for e in fleet]
    dice.shuffle(mixed)
    assert build_catalogue(mixed, dict(reversed(same.items()))) == first


@given(shelves, aliases)
def test_it_finds_nothing_new_the_second_time(fleet: list[Shelf], same: dict[str, list[str]]) -> None:
    first = build_catalogue(fleet, same)
    listed: dict[int, list[ListedModel]] = {each.id: [] for each in fleet}
    for entry in first.models:
        for where, found in entry.sources:
            listed[where].append(found)
    again = [Shelf(each.id, tuple(listed[each.id]), each.priority) for each in fleet]
    assert build_catalogue(again, same) == first


@given(shelves, aliases)
def test_it_loses_nothing_and_mixes_no_digests(fleet: list[Shelf], same: dict[str, list[str]]) -> None:
    catalogue = build_catalogue(fleet, same)
    listings = [(where, found.name) for entry in catalogue.models for where, found in entry.sources]
    assert sorted(listings) == sorted((each.id, m.name) for each in fleet for m in each.models)
    ids = [entry.id.casefold() for entry in catalogue.models]
    assert len(set(ids)) == len(ids)
    if not same:
        assert all(len(entry.digests) <= 1 for entry in catalogue.models)
    for where, other in catalogue.other_names.items():
        assert set(other.values()) <= {m.name for m in fleet[where].models}


def test_it_unifies_five_thousand_models_on_a_hundred_endpoints_at_once() -> None:
    digests_of = [f"{number:064x}" for number in range(0xABC000, 0xABC000 + 2000)]
    fleet = []
    for number in range(100):
        picked = random.Random(number).sample(range(2000), 50)
        spelling = "org/Model-{}-7B" if number % 2 else "model{}:7b"
        fleet.append(shelf(number, *(model(spelling.format(n), digests_of[n]) for n in picked)))
    build_catalogue(fleet)
    began = time.process_time()
    catalogue = build_catalogue(fleet)
    took = time.process_time() - began
    assert sum(len(entry.sources) for entry in catalogue.models) == 5000
    assert took < 5  # ten times what it may take
