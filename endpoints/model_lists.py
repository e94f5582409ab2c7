"""Each server's model listing as the same record. (pure)

Lenient by entry and by field: one odd entry costs that entry, one odd field that field, since servers add
and change fields without notice. Only a body that is no listing at all is an error, so that an error page
never empties a catalogue.

    ModelListError   the body is no model listing; the message says what it is instead
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from endpoints.profiles import ListFormat
from endpoints.snapshot import ListedModel

LONGEST_NAME = 500
LARGEST_NUMBER = 2**63 - 1  # what a big integer column holds
LAST_SECOND = 253_402_300_799.0  # the end of the year 9999, the last a datetime holds
BOM = b"\xef\xbb\xbf"

Entry = Mapping[str, Any]


class ModelListError(ValueError):
    """The body is not the model listing it should be."""


def parse_model_list(list_format: ListFormat, body: bytes) -> list[ListedModel]:
    """The models in a listing, in its order, each name once. Raises ModelListError."""
    key, parse_entry = _FORMATS[list_format]
    models: dict[str, ListedModel] = {}
    for entry in _read_entries(body, key):
        model = parse_entry(entry) if isinstance(entry, dict) else None
        if model is not None:
            models.setdefault(model.name, model)
    return list(models.values())


def _read_entries(body: bytes, key: str) -> list[Any]:
    document = decode_json(body)
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
    try:
        return msgspec.json.decode(body.removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        raise ModelListError("The answer is not JSON.") from error


def _parse_ollama(entry: Entry) -> ListedModel | None:
    """One entry of GET /api/tags (Ollama API reference, "List Local Models")."""
    name = _name(entry, "name", "model")
    if not name:
        return None
    details = _mapping(entry, "details")
    return ListedModel(
        name=name,
        digest=_text(entry, 200, "digest"),
        size_bytes=_number(entry, "size"),
        family=_text(details, 100, "family"),
        parameter_size=_text(details, 40, "parameter_size"),
        quantization=_text(details, 40, "quantization_level"),
        context_length=_number(details, "context_length"),
        capabilities=_texts(entry, "capabilities"),
        modified_at=_moment(entry, "modified_at"),
    )


def _parse_openai(entry: Entry) -> ListedModel | None:
    """One entry of GET /v1/models, with the fields vLLM, llama.cpp, LM Studio and others add."""
    name = _name(entry, "id", "name")
    if not name:
        return None
    meta = _mapping(entry, "meta")  # llama.cpp
    return ListedModel(
        name=name,
        size_bytes=_number(meta, "size"),
        family=_text(entry, 100, "arch"),
        quantization=_text(entry, 40, "quantization"),
        context_length=_number(entry, "max_model_len", "max_context_length", "context_length", "context_window")
        or _number(meta, "n_ctx_train"),
        model_type=_text(entry, 40, "type"),
        capabilities=_texts(entry, "capabilities"),
        state=_text(entry, 40, "state"),
        owner=_text(entry, 200, "publisher", "owned_by"),
        modified_at=_moment(entry, "created"),
    )


_FORMATS: dict[ListFormat, tuple[str, Callable[[Entry], ListedModel | None]]] = {
    ListFormat.OLLAMA: ("models", _parse_ollama),
    ListFormat.OPENAI: ("data", _parse_openai),
}


def _name(entry: Entry, *keys: str) -> str:
    """The first usable name; unprintable ones (control characters, lone surrogates) fit no header or table."""
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_NAME and value.isprintable():
            return value.strip()
    return ""


def _text(entry: Entry, longest: int, *keys: str) -> str:
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
            return value
    return ""


def _texts(entry: Entry, key: str) -> tuple[str, ...]:
    values = entry.get(key)
    if not isinstance(values, list):
        return ()
    return tuple(v for v in values[:50] if isinstance(v, str) and 0 < len(v) <= 40 and v.isprintable())


def _number(entry: Entry, *keys: str) -> int | None:
    for key in keys:
        value = entry.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_NUMBER:
            return value
    return None


def _mapping(entry: Entry, key: str) -> Entry:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def _moment(entry: Entry, key: str) -> float | None:
    """Seconds since the epoch from a number of seconds or an RFC 3339 text; None for zero times and nonsense."""
    value = entry.get(key)
    if isinstance(value, str):
        value = _parse_rfc3339(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value <= LAST_SECOND else None


def _parse_rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


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
