"""Whether whoever sends a session cookie to the API door holds a permission or is staff.

Only `/internal/*` asks, and only when a cookie came: the tables are read in a thread of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError
from django.http import HttpRequest

from endpoints.database_thread import DatabaseThread
from proxy.errors import ErrorCode, OllaError

_database = DatabaseThread("olla-session-rights")


async def require_any(cookies: Mapping[str, str], permissions: Collection[str]) -> None:
    """Let a signed-in user pass who holds one of the permissions. Raises OllaError(forbidden_path)."""
    if not await _is_user(cookies, lambda user: any(user.has_perm(each) for each in permissions)):
        raise OllaError(
            ErrorCode.FORBIDDEN_PATH, "This is for those who are signed in here and may view endpoints."
        )


async def is_staff(cookies: Mapping[str, str]) -> bool:
    """Whether somebody who may use the admin is signed in."""
    return await _is_user(cookies, lambda user: bool(user.is_staff))


async def _is_user(cookies: Mapping[str, str], judge: Callable[[Any], bool]) -> bool:
    session = cookies.get(settings.SESSION_COOKIE_NAME, "")
    return bool(session) and await _database.run(lambda: _judge_session(session, judge))


def _judge_session(session: str, judge: Callable[[Any], bool]) -> bool:
    """Whether the user of a session is one; nobody is while the tables are unreadable."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session)
    try:
        user = get_user(request)
        return user.is_authenticated and user.is_active and judge(user)
    except DatabaseError:
        return False
