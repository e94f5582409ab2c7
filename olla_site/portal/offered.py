"""Names that forms offer while somebody types: few enough to load quickly; every field takes any other too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.utils.html import escape

from endpoints.snapshot import EndpointRecord, Snapshot

# Bytes of names in a list: with them and all its files a page stays below 250 KB, whatever they are.
_ROOM = 30_000
_AROUND = 18  # bytes of the words around each name
# Parts of names by which models that do not chat are told from those that do, for the example only.
_NOT_CHAT = ("embed", "rerank", "bge-", "whisper", "tts", "clip", "stable-diffusion", "dall-e", "moderation")


def offer_models(snapshot: Snapshot) -> list[str]:
    """Aliases first, then what endpoints list, each name once."""
    return fit(_each_model(snapshot))


def offer_endpoints(snapshot: Snapshot) -> list[str]:
    """Endpoints, in the snapshot's order."""
    return fit(endpoint.name for endpoint in snapshot.endpoints)


def _each_model(snapshot: Snapshot) -> Iterator[str]:
    yield from (alias.name for alias in snapshot.aliases.values())
    for endpoint in snapshot.endpoints:
        yield from (model.name for model in endpoint.models)


def fit(names: Iterable[str], room: int = _ROOM) -> list[str]:
    """The first names that fit, without doubles."""
    kept: dict[str, None] = {}
    for name in names:
        if name in kept:
            continue
        # What escaping and UTF-8 make of it counts.
        room -= len(escape(name).encode()) + _AROUND
        if room < 0:
            break
        kept[name] = None
    return list(kept)


def choose_example(endpoints: Iterable[EndpointRecord], now: float) -> str:
    """A model for a request to try: of an endpoint that takes requests, preferably one that chats."""
    ordered = list(endpoints)
    ordered = [each for each in ordered if each.takes_traffic(now)] or ordered
    names = [model.name for each in ordered for model in each.models]
    chatting = (name for name in names if not any(part in name.lower() for part in _NOT_CHAT))
    return next(chatting, names[0] if names else "")
