"""A site with an administrator signed in and a backend that wants to be that administrator.

`python -m tests.browser.hostile '<json>'` makes the database (`tests.e2e.seed`) and an account, and prints a
session's key; it runs in a process of its own, on the data folder of the environment.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext

from tests.e2e import seed
from tests.fakes import Header, Reply, ScriptedBackend, Step
from tests.live import ROOT, LiveServer, lay_tables

HOSTILE_MODEL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
# Everything a backend might send to act as the site whose origin it borrows.
HOSTILE_HEADERS: tuple[Header, ...] = (
    (b"Set-Cookie", b"sessionid=evil; Path=/"),
    (b"set-cookie", b"csrftoken=evil; Path=/"),
    (b"SET-COOKIE2", b"sessionid=evil"),
    (b"Clear-Site-Data", b'"*"'),
    (b"Content-Security-Policy", b"default-src * 'unsafe-inline' 'unsafe-eval'"),
    (b"content-security-policy", b"sandbox allow-scripts allow-same-origin"),
    (b"Content-Security-Policy-Report-Only", b"default-src 'none'; report-uri /olla/proxy/exfil"),
    (b"X-Content-Type-Options", b"sniff"),
    (b"Strict-Transport-Security", b"max-age=31536000"),
    (b"Public-Key-Pins", b"max-age=31536000"),
    (b"Service-Worker-Allowed", b"/"),
    (b"Refresh", b"0; url=/admin/logout/"),
    (b"Alt-Svc", b'h3=":443"; ma=86400'),
    (b"Report-To", b'{"endpoints":[{"url":"/olla/proxy/exfil"}],"max_age":86400}'),
    (b"Reporting-Endpoints", b'default="/olla/proxy/exfil"'),
    (b"NEL", b'{"report_to":"default","max_age":86400}'),
    (b"Accept-CH", b"Sec-CH-UA-Full-Version-List"),
    (b"Critical-CH", b"Sec-CH-UA-Full-Version-List"),
    (b"Use-As-Dictionary", b'match="/admin/*"'),
    (b"Set-Login", b"logged-out"),
    (b"Secure-Session-Registration", b'(ES256);path="/olla/proxy/exfil"'),
    (b"WWW-Authenticate", b'Basic realm="Olla administration"'),
    (b"Access-Control-Allow-Origin", b"https://evil.example"),
    (b"Access-Control-Allow-Credentials", b"true"),
    (b"X-Frame-Options", b"ALLOWALL"),
    (b"X-Olla-Endpoint", b"somebody-else"),
    (b"X-Olla-Request-ID", b"forged"),
)
ALLOWED_AGAIN = frozenset({"x-frame-options"})  # can only forbid framing of the backend's own page


@dataclass
class HostileSite:
    """The server, the backend, and an administrator's session."""

    server: LiveServer
    backend: ScriptedBackend
    session: str

    @property
    def url(self) -> str:
        """The server's address."""
        return self.server.url

    def query(self, sql: str, *values: Any) -> list[Any]:
        """One statement on the server's database."""
        with closing(sqlite3.connect(self.server.data_dir / "olla.sqlite3", timeout=10)) as database, database:
            return database.execute(sql, values).fetchall()

    def read_state(self) -> dict[str, list[Any]]:
        """What an administrator can change."""
        tables = {
            "endpoints": "SELECT id, name, url, state FROM endpoints_endpoint ORDER BY id",
            "users": "SELECT id, username, password, is_superuser, is_active FROM auth_user ORDER BY id",
            "groups": "SELECT id, name FROM auth_group ORDER BY id",
            "log": "SELECT id FROM django_admin_log ORDER BY id",
            "sessions": "SELECT session_key FROM django_session ORDER BY session_key",
        }
        return {name: self.query(sql) for name, sql in tables.items()}

    def endpoint_id(self, name: str) -> int:
        """An endpoint's primary key."""
        return int(self.query("SELECT id FROM endpoints_endpoint WHERE name = ?", name)[0][0])

    def reports(self) -> list[str]:
        """What reached the backend's collecting address, decoded queries in order."""
        seen = (request.target.decode() for request in self.backend.requests)
        return [target.partition("?")[2] for target in seen if target.startswith("/exfil")]

    async def sign_in(self, browser: Browser) -> BrowserContext:
        """A browser context that carries the administrator's session."""
        context = await browser.new_context()
        context.set_default_timeout(20_000)
        await context.add_cookies([
            {"name": "sessionid", "value": self.session, "url": self.url, "httpOnly": True, "sameSite": "Lax"}
        ])  # fmt: skip
        return context


def hostile_reply(body: bytes, content_type: bytes = b"text/html", status: int = 200, **more: Any) -> Reply:
    """An answer with every hostile header."""
    kind = [(b"Content-Type", content_type)] if content_type else []
    return Reply(status, [*kind, *HOSTILE_HEADERS], body, reason=b"As You Like", **more)


def make_database(data_dir: Path, endpoints: list[dict[str, Any]]) -> str:
    """Write the database in `data_dir`; the key of the administrator's session."""
    lay_tables(data_dir)
    made = subprocess.run(
        [sys.executable, "-m", "tests.browser.hostile", json.dumps(endpoints)],
        cwd=ROOT,
        env={**os.environ, "OLLA_DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "olla_site.settings"},
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.split()[-1]


@asynccontextmanager
async def open_site(
    data_dir: Path, script: Mapping[str, Step], env: dict[str, str] | None = None
) -> AsyncIterator[HostileSite]:
    """A server before one hostile backend, and two endpoints that nobody should be able to delete."""
    backend = ScriptedBackend(dict(script))
    async with backend:
        rows = [{"name": "evil", "url": backend.url, "kind": "openai-compatible", "models": [HOSTILE_MODEL]}]
        rows += [
            {"name": name, "url": f"http://{name}.invalid:1", "kind": "ollama", "models": [f"{name}-only"]}
            for name in ("victim", "control")
        ]
        session = make_database(data_dir, rows)
        with LiveServer(data_dir=data_dir, env=env) as server:
            yield HostileSite(server, backend, session)


def main(endpoints: list[dict[str, Any]]) -> None:
    """Write endpoints, an administrator and a session."""
    seed.main(endpoints, [])
    from importlib import import_module

    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model

    # Django's stubs know only the base manager.
    manager: Any = get_user_model().objects
    admin = manager.create_superuser("boss", "boss@example.org", "correct horse battery staple")
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(admin.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = admin.get_session_auth_hash()
    session.create()
    sys.stdout.write(f"{session.session_key}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
