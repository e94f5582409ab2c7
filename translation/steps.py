"""Long work in short steps.

A translation is a generator that stops after each step and returns its result at the end. `run` takes all of
them at once; a caller with other things to do (an event loop) lets those happen between two steps.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

Steps = Generator[None, None, _T]


def run(steps: Steps[_T]) -> _T:
    """Take all steps and give their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
