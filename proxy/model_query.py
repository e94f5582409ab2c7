"""What part of `/olla/models` a client asks for, and in which shape. (pure)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from endpoints.listed import Capability, ModelType, parse_capabilities, parse_model_type
from endpoints.profiles import PROFILES, parse_backend_type
from proxy.errors import ErrorCode, OllaError
from proxy.listings import CatalogueEntry, build_entry
from proxy.native_lists import FORMATS
from proxy.sieve import LiveView
from proxy.unified_list import unified_list

UNIFIED = "unified"
# Their clients manage the models of such servers: they are shown those alone, under their own names.
_OWN_ONLY = frozenset({"ollama", "lmstudio"})


@dataclass(frozen=True, slots=True)
class ModelQuery:
    """The parameters; empty and None filter nothing."""

    format: str = UNIFIED
    endpoint: str = ""
    family: str = ""
    model_type: str = ""
    capability: str = ""
    available: bool | None = None
    include_unavailable: bool = False


def parse_query(values: Mapping[str, str]) -> ModelQuery:
    """Read the parameters of a query string. Raises OllaError(invalid_request) for values that mean nothing."""
    types, capabilities = [each.value for each in ModelType], [each.value for each in Capability]
    return ModelQuery(
        format=_parse_format(values.get("format", "")),
        endpoint=values.get("endpoint", ""),
        family=values.get("family", "").casefold(),
        model_type=_parse_word(values.get("type", ""), "type", parse_model_type, types),
        capability=_parse_word(values.get("capability", ""), "capability", _parse_capability, capabilities),
        available=_parse_flag(values.get("available", "")),
        include_unavailable=values.get("include_unavailable") == "true",
    )


def _parse_capability(word: str) -> str:
    return "".join(parse_capabilities([word]))


def _parse_format(text: str) -> str:
    folded = text.strip().lower()
    if folded in {"", UNIFIED}:
        return UNIFIED
    kind = parse_backend_type(folded)
    name = PROFILES[kind].header_name if kind in PROFILES else folded
    if name in FORMATS:
        return name
    known = ", ".join([UNIFIED, *FORMATS])
    raise OllaError(ErrorCode.INVALID_REQUEST, f"There is no format {text[:100]!r}. Known: {known}.")


def _parse_word(text: str, name: str, parse: Callable[[str], str], known: list[str]) -> str:
    word = parse(text) if text else ""
    if text and not word:
        message = f"There is no {name} {text[:100]!r}. Known: {', '.join(known)}."
        raise OllaError(ErrorCode.INVALID_REQUEST, message)
    return word


def _parse_flag(text: str) -> bool | None:
    if text not in {"", "true", "false"}:
        raise OllaError(ErrorCode.INVALID_REQUEST, "available must be true or false.")
    return None if not text else text == "true"


def choose_entries(entries: list[CatalogueEntry], query: ModelQuery) -> list[CatalogueEntry]:
    """The entries that pass every filter; those that cannot be used now only where they are asked for."""
    return [entry for entry in entries if _is_shown(entry, query) and _matches(entry, query)]


def _is_shown(entry: CatalogueEntry, query: ModelQuery) -> bool:
    if query.available is not None:
        return entry.available is query.available
    return entry.available or query.include_unavailable


def _matches(entry: CatalogueEntry, query: ModelQuery) -> bool:
    if query.endpoint and not any(query.endpoint in (each.name, each.url) for each, _ in entry.sources):
        return False
    facts = entry.facts
    if query.family and facts.family.casefold() != query.family:
        return False
    # A model nobody tells the type of is most likely what most are.
    if query.model_type and (facts.model_type or ModelType.LLM) != query.model_type:
        return False
    if query.capability:
        able = entry.abilities or (Capability.CHAT,)
        return query.capability in able
    return True


def write_models(
    entries: Iterable[CatalogueEntry], query: ModelQuery, view: LiveView, now: float
) -> dict[str, Any]:
    """The list in the shape asked for."""
    if query.format == UNIFIED:
        return unified_list(entries, now)
    kind = next((name for name, each in PROFILES.items() if each.header_name == query.format), "")
    native = [_as_kind(entry, kind, view) for entry in entries]
    if query.format in _OWN_ONLY:
        native = [entry for entry in native if entry.sources[0][0].backend_type == kind]
    return FORMATS[query.format](native)


def _as_kind(entry: CatalogueEntry, kind: str, view: LiveView) -> CatalogueEntry:
    """An entry under its name at the first endpoint of a kind, told by that kind's listings; as it is without."""
    own = [source for source in entry.sources if source[0].backend_type == kind]
    return build_entry(own[0][1].name, own, view) if own else entry
