"""Decisions in words: every code the product can note has words of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from endpoints.failures import DoorError, NotConnected, NotConnectedReason
from proxy import routing
from proxy.decision_words import (
    describe_attempt,
    describe_dropped,
    describe_error,
    describe_reason,
    describe_trace,
)
from proxy.sieve import DropReason
from proxy.upstream import failure_word

CODES = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', Path(routing.__file__).read_text()))
ENDINGS = {"no_fallback", "compatible_only"}  # of two codes that are put together
REASONS = (CODES - ENDINGS) | {
    f"{head}_{end}" for head in ("model_unavailable", "discovery_failed") for end in ENDINGS
}
NOTE = {"endpoint": "gpu", "began_ms": 0.4, "waited_ms": 0, "ms": None, "status": None, "error": ""}


def failures() -> list[str]:
    """The word of every failure of the network door."""
    found, left = [], list(DoorError.__subclasses__())
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind is not NotConnected:
            found.append(failure_word(kind.__new__(kind)))
    return [*found, *(failure_word(NotConnected(each, "text")) for each in NotConnectedReason)]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_it_has_words_for_every_reason(code: str) -> None:
    assert describe_reason(code) != code.replace("_", " ")


@pytest.mark.parametrize("code", list(DropReason))
def test_it_has_words_for_every_way_to_be_left_out(code: DropReason) -> None:
    assert describe_dropped(code) != code.replace("_", " ")


@pytest.mark.parametrize("code", [*failures(), "broke_off", "unfit"])
def test_it_has_words_for_every_failure_of_an_attempt(code: str) -> None:
    assert describe_error(code) != code.replace("_", " ")


def test_it_shows_a_code_of_another_version_without_its_underscores() -> None:
    assert describe_reason("older_reason") == describe_dropped("older_reason") == describe_error("older_reason")
    assert describe_attempt({**NOTE, "error": "odd_end"}) == "gpu: began after 0.4 ms, no answer, odd end"
    assert (
        describe_attempt({**NOTE, "status": 200, "ms": 12345})
        == "gpu: began after 0.4 ms, answered 200, took 12.3 s"
    )


def test_it_tells_a_decision_in_sentences() -> None:
    assert describe_trace({"action": "routed"}) == ["Routed."]
    assert describe_trace({"action": "fallback", "strategy": "optimistic", "reason": "all_healthy_fallback"}) == [
        "Routed elsewhere as a fallback by the strategy optimistic: the endpoints that have the model take no "
        "requests now, so any other may answer."
    ]
    told = {"action": "rejected", "rule": "night", "candidates": [["a", "b"], ["c"]], "dropped": {"status": 2}}
    assert describe_trace(told) == [
        "Rejected.", "Rule: night", "To be tried 1: a, b", "To be tried 2: c",
        "Left out: 2 (its status takes no traffic)",
    ]  # fmt: skip
