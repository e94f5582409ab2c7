"""Each server's model listing as the same record. (pure)

Lenient by entry and by field: one odd entry costs that entry, one odd field that field, since servers add
and change fields without notice. Only a body that is no listing at all is an error, so that an error page
never empties a catalogue.

    ModelListError   the body is no model listing; the message says what it is instead
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from endpoints.list_shapes import SHAPES
from endpoints.listed import ListedModel
from endpoints.profiles import ListFormat

BOM = b"\xef\xbb\xbf"


class ModelListError(ValueError):
    """The body is not the model listing it should be."""


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models in a listing, in its order, each name once; how many entries were of no use or repeated."""

    models: tuple[ListedModel, ...]
    unusable: int = 0
    repeated: int = 0

    @property
    def note(self) -> str:
        """What was left out, for people; empty when nothing was."""
        parts = []
        if self.unusable:
            parts.append(f"{self.unusable} without a usable name")
        if self.repeated:
            parts.append(f"{self.repeated} repeated")
        return f"Left out of the list: {' and '.join(parts)}." if parts else ""


def read_model_list(list_format: ListFormat, body: bytes) -> ModelList:
    """A listing with what was left out of it. Raises ModelListError."""
    key, parse_entry = SHAPES[list_format]
    models: dict[str, ListedModel] = {}
    unusable = repeated = 0
    for entry in _read_entries(decode_json(body), key):
        model = parse_entry(entry) if isinstance(entry, dict) else None
        if model is None:
            unusable += 1
        elif model.name in models:
            repeated += 1
        else:
            models[model.name] = model
    return ModelList(tuple(models.values()), unusable, repeated)


def parse_model_list(list_format: ListFormat, body: bytes) -> list[ListedModel]:
    """The models alone. Raises ModelListError."""
    return list(read_model_list(list_format, body).models)


def _read_entries(document: Any, key: str) -> list[Any]:
    if isinstance(document, list):  # some OpenAI-compatible services leave the envelope out
        return document
    if not isinstance(document, dict):
        raise ModelListError("The model list is not a JSON object.")
    if key not in document:
        raise ModelListError(f'The answer is JSON but no model list: it has no "{key}".')
    entries = document[key]
    if entries is None:  # how Go servers write an empty list
        return []
    if not isinstance(entries, list):
        raise ModelListError(f'"{key}" of the model list is not a list.')
    return entries


def decode_json(body: bytes) -> Any:
    """The JSON value of `body`. Raises ModelListError for anything else, absurd nesting included."""
    if not body or body.isspace():
        raise ModelListError("The answer is empty.")
    try:
        return msgspec.json.decode(body.removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        raise ModelListError("The answer is not JSON.") from error


def parse_patterns(text: str) -> tuple[str, ...]:
    """The patterns of a form field, one a line."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def is_listed(name: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Whether a model passes the operator's filters: globs without case, slashes are ordinary characters.

    Nothing to include means everything; exclude wins.
    """
    folded = name.casefold()
    wanted = tuple(include)
    if wanted and not any(fnmatchcase(folded, pattern.casefold()) for pattern in wanted):
        return False
    return not any(fnmatchcase(folded, pattern.casefold()) for pattern in exclude)
