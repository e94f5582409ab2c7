"""Guarded paths: requests that change a backend or reveal its configuration. (pure)

Judged on the path that will be sent, decoded until it no longer changes, dots resolved, slashes collapsed and
letters folded, so that no spelling slips by. What a backend would make of a path we cannot know exactly;
where in doubt it is refused.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

from endpoints.profiles import AUTO, OPENAI_FAMILY, PROFILES, Guard, Profile

# An endpoint registered as OpenAI-compatible (or not yet detected) may be any of these in truth.
_DISGUISES = ("ollama", "lm-studio", "vllm", "sglang", "llamacpp", "lemonade")


def normalise_path(path: str) -> str:
    """One spelling for every way of writing a path: decoded, folded, slashes collapsed, dots resolved."""
    text = path
    for _ in range(4):  # more layers of encoding than any server undoes
        decoded = unquote(text)
        if decoded == text:
            break
        text = decoded
    text = text.replace("\\", "/").split("?", 1)[0].split("#", 1)[0].casefold()
    parts = [part.split(";", 1)[0].strip(" .") or part for part in text.split("/") if part]
    return posixpath.normpath("/" + "/".join(parts))


@lru_cache(maxsize=64)
def _guards_of(profile: Profile, backend_type: str) -> tuple[Guard, ...]:
    if backend_type in OPENAI_FAMILY or backend_type == AUTO:
        return profile.guards + tuple(guard for name in _DISGUISES for guard in PROFILES[name].guards)
    return profile.guards


@lru_cache(maxsize=4096)
def is_guarded(
    profile: Profile, backend_type: str, method: str, path: str, *, own_key: bool, opened: tuple[str, ...] = ()
) -> bool:
    """Whether `method` on `path` is refused for an endpoint of this kind.

    `own_key` says that the endpoint's own credentials would be used; `opened` are the types an operator opened
    (`*` for all).
    """
    if "*" in opened or backend_type in opened:
        return False
    plain = normalise_path(path)
    if profile.open_paths and not _matches_any(plain, profile.open_paths):
        return True
    return any(_matches(guard, method, plain, own_key=own_key) for guard in _guards_of(profile, backend_type))


def _matches(guard: Guard, method: str, plain: str, *, own_key: bool) -> bool:
    if guard.own_key_only and not own_key:
        return False
    # HEAD is answered as GET is; an unknown method may be treated as any.
    return guard.method in ("*", method) and fnmatchcase(plain, guard.path)


def _matches_any(plain: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(plain, pattern) for pattern in patterns)
