"""Whether whoever sends a session cookie to the API door holds a permission.

Only `/internal/*` asks, and only when a cookie came: the tables are read in a thread of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError
from django.http import HttpRequest

from endpoints.database_thread import DatabaseThread
from proxy.errors import ErrorCode, OllaError

_database = DatabaseThread("olla-session-rights")


async def require_any(cookies: Mapping[str, str], permissions: Collection[str]) -> None:
    """Let a signed-in user pass who holds one of the permissions. Raises OllaError(forbidden_path)."""
    session = cookies.get(settings.SESSION_COOKIE_NAME, "")
    if not session or not await _database.run(lambda: _holds_any(session, permissions)):
        raise OllaError(
            ErrorCode.FORBIDDEN_PATH, "This is for those who are signed in here and may view endpoints."
        )


def _holds_any(session: str, permissions: Collection[str]) -> bool:
    """Whether the user of a session holds one of the permissions; nobody does while the tables are unreadable."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session)
    try:
        user = get_user(request)
        return user.is_active and any(user.has_perm(each) for each in permissions)
    except DatabaseError:
        return False
