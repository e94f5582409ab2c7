"""Asks an endpoint for what its kind tells of models beyond the list: context, capabilities, what is in memory.

Reads only, never loads a model or generates a token. Bounded in count and time; whatever fails adds nothing, and
the list stands.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from endpoints.asking import AskError, ProbeTarget, ask
from endpoints.detail_shapes import SOURCES, Models, add_ollama_show
from endpoints.failures import DoorError
from endpoints.json_fields import read_text
from endpoints.listed import ListedModel
from endpoints.loaded import READERS, Loaded, mark_loaded, read_loaded
from endpoints.model_lists import ModelListError, decode_json
from endpoints.profiles import DetailSource, Profile
from endpoints.transport import Transport

OLLAMA_SHOW = "/api/show"
LONGEST_VERSION = 40
LONGEST_DETAIL = 8 * 1024 * 1024  # a LiteLLM proxy may tell of thousands of models; tokenizers fill /api/show
MOST_SHOWN = 100  # models asked about in one discovery; the others' turn comes with the next ones
SHOWN_AT_ONCE = 4
LONGEST_WAIT = 10.0  # seconds for everything beyond the list
REMEMBERED = 20_000
REMEMBERED_FOR = 6 * 3600.0  # seconds; a new version of a server may tell more of the same model


class ShowMemory:
    """What endpoints said of their models, by address and digest: the digest stands for the model's every byte."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], tuple[float, ListedModel]] = {}

    def fresh(self, url: str, model: ListedModel, now: float) -> bool:
        """Whether a model need not be asked about again."""
        known = self._shown.get((url, model.digest)) if model.digest else None
        return known is not None and now - known[0] < REMEMBERED_FOR

    def put(self, url: str, model: ListedModel, now: float) -> None:
        """Keep what was said, in place of the oldest when there is too much."""
        if model.digest:
            self._shown.pop((url, model.digest), None)
            self._shown[url, model.digest] = (now, model)
            if len(self._shown) > REMEMBERED:
                del self._shown[next(iter(self._shown))]

    def fill(self, url: str, model: ListedModel) -> ListedModel:
        """The model with what is remembered of it, however long ago."""
        known = self._shown.get((url, model.digest)) if model.digest else None
        if known is None:
            return model
        return _fill(model, known[1])


def _fill(model: ListedModel, known: ListedModel) -> ListedModel:
    return replace(
        model,
        context_length=model.context_length or known.context_length,
        capabilities=model.capabilities or known.capabilities,
        family=model.family or known.family,
        parameter_size=model.parameter_size or known.parameter_size,
    )


_memory = ShowMemory()


@dataclass(frozen=True, slots=True)
class Details:
    """The models with what the endpoint tells beyond its list, and the version of the server, where it tells."""

    models: Models
    version: str = ""


@dataclass(slots=True)
class _Asker:
    """Asks one endpoint until a deadline (monotonic seconds), each path once."""

    target: ProbeTarget
    door: Transport
    deadline: float
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    async def get(self, path: str) -> Any:
        """The decoded answer; None for anything but a whole 200 with JSON."""
        if path not in self.answers:
            self.answers[path] = await _ask_json(self.target, path, self.door, self.left)
        return self.answers[path]


async def add_details(
    target: ProbeTarget, profile: Profile, models: Models, door: Transport, *, timeout: float
) -> Details:
    """The models with what the endpoint tells beyond its list, in at most `timeout` seconds. Never raises."""
    asker = _Asker(target, door, time.monotonic() + min(timeout, LONGEST_WAIT))
    version = ""
    if profile.version_path:
        answer = await asker.get(profile.version_path)
        version = read_text(answer, LONGEST_VERSION, "version") if isinstance(answer, dict) else ""
    if not models:
        return Details(models, version)
    if profile.details in SOURCES:
        path, add = SOURCES[profile.details]
        models = add(models, await asker.get(path))
    # Where the list itself is the source it has told already.
    if profile.loaded_at is not None and READERS[profile.loaded_at][0] != profile.models_path:
        loaded = read_loaded(profile.loaded_at, await asker.get(READERS[profile.loaded_at][0]))
        models = models if loaded is None else mark_loaded(models, loaded)
    if profile.details is DetailSource.OLLAMA:
        models = await _show_all(target, models, door, asker.left)
    return Details(models, version)


async def ask_loaded(target: ProbeTarget, door: Transport, *, timeout: float) -> Loaded | None:
    """What an endpoint has in memory, within `timeout` seconds; None when it does not tell. Never raises."""
    source = target.profile.loaded_at
    if source is None or target.problem:
        return None
    return read_loaded(source, await _ask_json(target, READERS[source][0], door, timeout))


async def _show_all(target: ProbeTarget, models: Models, door: Transport, timeout: float) -> Models:
    now = time.monotonic()
    unknown = [each for each in models if not each.capabilities and not _memory.fresh(target.url, each, now)]
    shown: dict[str, ListedModel] = {}
    line = asyncio.Semaphore(SHOWN_AT_ONCE)

    async def show(model: ListedModel) -> None:
        async with line:
            body = msgspec.json.encode({"model": model.name})
            answer = await _ask_json(target, OLLAMA_SHOW, door, timeout, body)
        if isinstance(answer, dict):
            shown[model.name] = add_ollama_show(model, answer)
            _memory.put(target.url, shown[model.name], now)

    with suppress(TimeoutError):  # what came in time counts
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(show(each) for each in unknown[:MOST_SHOWN]))
    return tuple(shown.get(each.name) or _memory.fill(target.url, each) for each in models)


async def _ask_json(target: ProbeTarget, path: str, door: Transport, timeout: float, body: bytes = b"") -> Any:
    """The decoded answer; None for anything but a whole 200 with JSON."""
    try:
        async with asyncio.timeout(timeout):
            reply = await ask(
                target, target.own_url(path), door, timeout=timeout, longest=LONGEST_DETAIL, body=body
            )
        return decode_json(reply.body) if reply.status == 200 and reply.whole else None
    except (AskError, DoorError, TimeoutError, ModelListError):
        return None
