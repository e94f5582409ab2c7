"""Which kind of inference server answers at an address: signature paths asked at once, answers judged.

Judged by what only one kind does (a header, a path with its own shape, `owned_by` of a model), never by a
status alone: LM Studio answers 200 to unknown paths. Nothing asked here loads a model or generates a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from endpoints.asking import AskError, ProbeTarget, Reply, ask
from endpoints.failures import DoorError
from endpoints.model_lists import ModelListError, decode_json
from endpoints.profiles import FALLBACK, PROFILES
from endpoints.transport import Transport

LONGEST_SIGNATURE = 1024 * 1024
# All paths at once are more work than a health check, and LiteLLM takes seconds for its first answers.
LEAST_SECONDS = 5.0
MODELS = "/v1/models"
OLLAMA_VERSION = "/api/version"
OLLAMA_TAGS = "/api/tags"
LM_STUDIO_MODELS = "/api/v0/models"
DMR_MODELS = "/engines/v1/models"
LEMONADE_HEALTH = "/api/v1/health"
LITELLM_ALIVE = "/health/liveliness"
OMLX_STATUS = "/v1/models/status"
SIGNATURE_PATHS = (
    MODELS, OLLAMA_VERSION, OLLAMA_TAGS, LM_STUDIO_MODELS, DMR_MODELS, LEMONADE_HEALTH, LITELLM_ALIVE, OMLX_STATUS,
)  # fmt: skip

LM_STUDIO_FIELDS = frozenset({"compatibility_type", "max_context_length", "arch"})
LEMONADE_FIELDS = frozenset({"model_loaded", "checkpoint_loaded", "all_models_loaded"})

Replies = Mapping[str, Reply]


async def detect_type(target: ProbeTarget, door: Transport, *, timeout: float) -> str:
    """The kind of server at the target within `timeout` seconds; empty when it cannot be told."""
    asked = [_ask_signature(target, path, door, timeout) for path in SIGNATURE_PATHS]
    found = await asyncio.gather(*asked)
    kind = judge({path: reply for path, reply in zip(SIGNATURE_PATHS, found, strict=True) if reply is not None})
    # What no signature speaks for is only sure when every path was answered: a server that has just started may
    # answer its list and be late with the rest, and a detected type stays until it no longer fits.
    return "" if kind == FALLBACK.name and None in found else kind


def seconds_for(target: ProbeTarget) -> float:
    """How long finding out its kind may take: a check's timeout is meant for one small answer."""
    return max(target.check_timeout, LEAST_SECONDS)


async def _ask_signature(target: ProbeTarget, path: str, door: Transport, timeout: float) -> Reply | None:
    try:
        async with asyncio.timeout(timeout):
            return await ask(target, target.own_url(path), door, timeout=timeout, longest=LONGEST_SIGNATURE)
    except (AskError, DoorError, TimeoutError):
        return None


def judge(replies: Replies) -> str:
    """The first kind whose signature is among the replies; most specific first."""
    return next((kind for kind, matches in _SIGNATURES if matches(replies)), "") or _judge_by_owner(replies)


def _judge_by_owner(replies: Replies) -> str:
    """By who owns the listed models; a sound OpenAI listing of anybody's is OpenAI-compatible."""
    entries = _entries(replies, MODELS, "data")
    if entries is None:
        return ""
    owners = {
        entry["owned_by"] for entry in entries if isinstance(entry.get("owned_by"), str) and entry["owned_by"]
    }
    return next((each.name for each in PROFILES.values() if each.listed_owner in owners), FALLBACK.name)


def _is_llamacpp(replies: Replies) -> bool:
    return any(reply.headers.get("server", "").lower() == "llama.cpp" for reply in replies.values())


def _is_litellm(replies: Replies) -> bool:
    if any(name.startswith("x-litellm-") for reply in replies.values() for name in reply.headers):
        return True
    return isinstance(_json(replies, LITELLM_ALIVE), str)  # it says that it is alive, as a JSON string


def _is_lemonade(replies: Replies) -> bool:
    document = _json(replies, LEMONADE_HEALTH)
    return isinstance(document, dict) and not LEMONADE_FIELDS.isdisjoint(document)


def _is_ollama(replies: Replies) -> bool:
    """Both of Ollama's own paths: others imitate one or the other."""
    document = _json(replies, OLLAMA_VERSION)
    known = isinstance(document, dict) and isinstance(document.get("version"), str)
    return known and _entries(replies, OLLAMA_TAGS, "models") is not None


def _is_lm_studio(replies: Replies) -> bool:
    entries = _entries(replies, LM_STUDIO_MODELS, "data")
    return entries is not None and all(not LM_STUDIO_FIELDS.isdisjoint(entry) for entry in entries)


def _is_docker_model_runner(replies: Replies) -> bool:
    return _entries(replies, DMR_MODELS, "data") is not None


def _is_omlx(replies: Replies) -> bool:
    return _entries(replies, OMLX_STATUS, "models") is not None


_SIGNATURES: tuple[tuple[str, Callable[[Replies], bool]], ...] = (
    ("llamacpp", _is_llamacpp),
    ("litellm", _is_litellm),
    ("lemonade", _is_lemonade),
    ("docker-model-runner", _is_docker_model_runner),  # answers as Ollama too
    ("ollama", _is_ollama),
    ("lm-studio", _is_lm_studio),
    ("omlx", _is_omlx),
)


def _json(replies: Replies, path: str) -> Any:
    """The JSON value of a good answer; None for anything else."""
    reply = replies.get(path)
    if reply is None or reply.status != 200 or not reply.whole:
        return None
    try:
        return decode_json(reply.body)
    except ModelListError:
        return None


def _entries(replies: Replies, path: str, key: str) -> list[dict[str, Any]] | None:
    """The objects under `key` of a listing; None when the answer is no such listing."""
    document = _json(replies, path)
    if not isinstance(document, dict) or key not in document:
        return None
    entries = document[key] or []
    if not isinstance(entries, list):
        return None
    return [entry for entry in entries if isinstance(entry, dict)]
