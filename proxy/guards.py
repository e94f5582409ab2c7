"""Guarded paths: requests that change a backend or reveal its configuration. (pure)

Judged on the path that will be sent, decoded until it no longer changes, dots resolved, slashes collapsed and
letters folded, so that no spelling slips by. A guard holds wherever in the path it stands, for a backend may
answer below a prefix we do not know of. What a backend would make of a path we cannot know exactly; where in
doubt it is refused.
"""

from __future__ import annotations

import posixpath
import re
from fnmatch import translate
from functools import lru_cache
from urllib.parse import unquote

from endpoints.profiles import DISGUISES, OPENAI_FAMILY, PROFILES, Guard, Profile

# Nothing an inference server needs; TRACE would send the endpoint's own key back to the client (RFC 9110, 9.3.8).
_NEVER = frozenset({"TRACE", "CONNECT"})
# Methods that are judged alike. A backend may take HEAD for GET, and any of the others for POST.
_JUDGED_AS = {"GET": "GET", "HEAD": "GET", "OPTIONS": "OPTIONS", "POST": "POST", "PUT": "POST", "PATCH": "POST"}
_JUDGED_AS |= {"DELETE": "DELETE"}
_UNKNOWN = "*"
_CUT = re.compile(r"[;\x00-\x1f\x7f].*", re.DOTALL)


def normalise_path(path: str) -> str:
    """One spelling for every way of writing a path: decoded, folded, slashes collapsed, dots resolved."""
    text = path
    for _ in range(4):  # more layers of encoding than any server undoes
        decoded = unquote(text)
        if decoded == text:
            break
        text = decoded
    text = text.replace("\\", "/").split("?", 1)[0].split("#", 1)[0].casefold()
    parts = [_CUT.sub("", part).strip(" .") or part for part in text.split("/") if part]
    return posixpath.normpath("/" + "/".join(parts))


def is_opened(backend_type: str, opened: tuple[str, ...]) -> bool:
    """Whether an operator opened the guarded paths of a type (`*` for all)."""
    return "*" in opened or backend_type in opened


@lru_cache(maxsize=4096)
def is_guarded(profile: Profile, method: str, path: str, *, base: str = "", own_key: bool = False) -> bool:
    """Whether `method` on `path` is refused for an endpoint of this kind.

    `base` is the path put before it, which is the operator's and by itself never refused; `own_key` says that
    the endpoint's own credentials would be used.
    """
    if method.upper() in _NEVER:
        return True
    plain = normalise_path(path)
    if profile.open_paths and not _open_pattern(profile).fullmatch(plain):
        return True
    guards = _guard_pattern(profile, _JUDGED_AS.get(method.upper(), _UNKNOWN), own_key)
    if guards is None:
        return False
    if guards.search(plain):
        return True
    return bool(base) and _reaches_beyond(guards, normalise_path(f"{base}/{path}"), len(normalise_path(base)))


def _reaches_beyond(guards: re.Pattern[str], plain: str, base: int) -> bool:
    """Whether a guard matches `plain` by more than its first `base` characters."""
    found = guards.search(plain)
    while found is not None:
        if found.end() > base:
            return True
        found = guards.search(plain, found.start() + 1)
    return False


@lru_cache(maxsize=256)
def _guard_pattern(profile: Profile, method: str, own_key: bool) -> re.Pattern[str] | None:
    """One expression for all guards that count, each from any slash on."""
    guards = [*profile.guards]
    if profile.name in OPENAI_FAMILY:
        guards += [guard for name in DISGUISES for guard in PROFILES[name].guards if guard.path != "*"]
    counting = [guard for guard in guards if _counts(guard, method, own_key=own_key)]
    if not counting:
        return None
    return re.compile("|".join(sorted({_expression(guard.path) for guard in counting})))


def _counts(guard: Guard, method: str, *, own_key: bool) -> bool:
    if guard.own_key_only and not own_key:
        return False
    return _UNKNOWN in (guard.method, method) or guard.method == method


def _expression(path: str) -> str:
    text = re.escape(path.rstrip("*")).replace(r"\*", ".*")
    return text if path.endswith("*") else text + "(?![^/])"


@lru_cache(maxsize=64)
def _open_pattern(profile: Profile) -> re.Pattern[str]:
    return re.compile("|".join(translate(path) for path in profile.open_paths))
