"""Long work on the event loop, in slices between which everything else goes on.

A body of many megabytes takes seconds to translate, and a thread would be no help: it would share one interpreter
with the loop, and each read and write of another client's stream would wait 5 ms for it to let go. So the work is
taken in slices, all that is ready on the loop comes between two of them, and only one such work goes on at a time.
A client that leaves ends its own at the next slice.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TypeVar

from translation.steps import Steps

SLICE_SECONDS = 0.002

_T = TypeVar("_T")


class Pacer:
    """The line in which long works wait for their slices."""

    def __init__(self) -> None:
        self._line = asyncio.Lock()

    async def take(self, steps: Steps[_T]) -> _T:
        """Take all steps and give their result; what fits one slice is done at once."""
        with closing(steps):
            done = _take_slice(steps)
            if done is None:
                async with self._line:
                    while done is None:
                        await asyncio.sleep(0)
                        done = _take_slice(steps)
            return done[0]


def _take_slice(steps: Steps[_T]) -> tuple[_T] | None:
    """Take steps until the slice is over: the result in a tuple, or None while there is more to do."""
    until = time.monotonic() + SLICE_SECONDS
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return (end.value,)
        if time.monotonic() >= until:
            return None
