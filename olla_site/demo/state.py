"""One demo backend's name, models, pace and counters, shared by its two dialects."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from olla_site.demo.wire import Request

logger = logging.getLogger(__name__)


class RefusalError(Exception):
    """An error answer; the backend gives it the shape of the dialect that was asked."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass
class DemoState:
    """What the handlers share. `delay` is in seconds for each token."""

    name: str
    kind: str
    models: tuple[str, ...]
    delay: float
    generating: int = 0
    hang_ups: int = 0
    loaded: dict[str, float] = field(default_factory=dict)
    # The latest requests without their bodies, for tests and a curious eye.
    seen: deque[Request] = field(default_factory=lambda: deque(maxlen=1000))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def next_id(self, prefix: str) -> str:
        """An id that says which demo backend gave it."""
        return f"{prefix}-{self.name}-{next(self._numbers)}"

    def find_model(self, name: Any) -> str:
        """The model as listed; Ollama's implied `:latest` may be left out. Raises RefusalError 404."""
        if not isinstance(name, str) or not name:
            raise RefusalError(400, "model is required")
        for model in self.models:
            if name in {model, model.removesuffix(":latest")}:
                return model
        raise RefusalError(404, name, "model_not_found")

    def generation(self, what: str) -> Generation:
        """One answer being made, token by token."""
        return Generation(self, what)


class Generation:
    """Counts one running generation; cancelling it (the client left) is logged with how far it got."""

    def __init__(self, state: DemoState, what: str) -> None:
        self._state = state
        self._what = what
        self._made = 0

    def __enter__(self) -> Generation:
        self._state.generating += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.generating -= 1
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._state.hang_ups += 1
            logger.info(
                "%s: the client left, %s stopped after %d tokens", self._state.name, self._what, self._made
            )

    async def step(self) -> None:
        """Take the time of one token."""
        await asyncio.sleep(self._state.delay)
        self._made += 1

    async def steps(self, count: int) -> None:
        """Take the time of an answer that is sent whole."""
        await asyncio.sleep(self._state.delay * count)
        self._made += count


def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a request body. Raises RefusalError 400."""
    try:
        value = json.loads(request.body)
    except ValueError as error:
        raise RefusalError(400, f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusalError(400, "the body must be a JSON object")
    return value


def read_list(value: Any) -> list[Any]:
    """`value` when it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def read_object(value: Any) -> dict[str, Any]:
    """`value` when it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
