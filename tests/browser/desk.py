"""A signed-in browser on the real server: pages that must stay clean, and a fleet to look at."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, ConsoleMessage, Page, Request

from tests.browser.scribe import run_in_django
from tests.live import LiveServer, first_password

_PASSWORD = re.compile(r"password {2,}(\S+)\n")


def printed_password(server: LiveServer) -> str:
    """The administrator's password as a first start printed it."""
    found = _PASSWORD.search(server.output())
    assert found, server.output()
    return found[1]


class Watch:
    """What a page must not do: errors on its console, requests to anywhere else."""

    def __init__(self, page: Page, home: str) -> None:
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self._home = home
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note_request)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._home}/", "data:", "about:", "blob:")):
            self.foreign.append(request.url)


@asynccontextmanager
async def open_page(
    browser: Browser,
    server: LiveServer,
    *,
    width: int = 1280,
    dark: bool = False,
    state: Any = None,
    strict: bool = True,
) -> AsyncIterator[Page]:
    """A page of its own browser profile; at the end it must have made no error and no foreign request.

    `state` is what `signed_in` returned, to spare the sign-in. Without `strict` errors on its console are no
    fault, as when its server goes away.
    """
    context = await browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        locale="en-GB",
        timezone_id="Europe/Berlin",
        storage_state=state,
    )
    context.set_default_timeout(30_000)
    try:
        page = await context.new_page()
        watch = Watch(page, server.url)
        yield page
        assert watch.errors == [] or not strict
        assert watch.foreign == []
    finally:
        await context.close()


async def sign_in(page: Page, server: LiveServer, path: str = "/") -> None:
    """Sign in as the first administrator and end at `path`."""
    await sign_in_as(page, server, "admin", first_password(), path)


async def sign_in_as(page: Page, server: LiveServer, name: str, password: str, path: str = "/") -> None:
    """Sign in with an account's name and password and end at `path`."""
    await page.goto(server.url + path)
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(server.url + path)


async def signed_in(browser: Browser, server: LiveServer) -> Any:
    """The cookies of an administrator who signed in."""
    async with open_page(browser, server) as page:
        await sign_in(page, server)
        return await page.context.storage_state()


async def keep_picture(page: Page, name: str, *, full_page: bool = True) -> None:
    """A picture to look at, where OLLA_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("OLLA_SCREENSHOTS")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=full_page)


async def fill_fleet(server: LiveServer, rows: list[dict[str, Any]]) -> None:
    """Replace the endpoints of a running server, as a prober would have left them; wait until it knows them."""
    run_in_django(server.data_dir, "from tests.browser.desk import replace_fleet; replace_fleet(rows)", rows=rows)
    await wait_for_picture(server)


async def clear_desk(server: LiveServer) -> None:
    """Leave a running server with its first administrator and nothing else; wait until it knows."""
    run_in_django(server.data_dir, "from tests.browser.desk import empty_tables; empty_tables()")
    await wait_for_picture(server)


async def wait_for_picture(server: LiveServer) -> None:
    """Until the server goes by what the tables hold now: until then pages show what an earlier test left there."""
    with closing(sqlite3.connect(server.data_dir / "olla.sqlite3", timeout=30)) as database:
        written = database.execute("SELECT number FROM endpoints_revision").fetchone()[0]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client, asyncio.timeout(60):
        while await revision_of(client, server) < written:
            await asyncio.sleep(0.05)


async def revision_of(client: httpx.AsyncClient, server: LiveServer) -> int:
    """The revision of the tables that the server goes by."""
    answer = await client.get(f"{server.url}/internal/status")
    return int(answer.json()["system"]["snapshot"]["revision"])


def empty_tables() -> None:
    """Forget what operators, users and the server wrote; in the scribe's process."""
    from django.contrib.auth.models import User
    from django.db import transaction

    from endpoints.models import Endpoint, ModelAlias, RoutingRule
    from proxy.models import RequestHour, RequestLog

    with transaction.atomic():
        for table in (Endpoint, RoutingRule, ModelAlias, RequestLog, RequestHour):
            table.objects.all().delete()
        User.objects.exclude(username="admin").delete()


def replace_fleet(rows: list[dict[str, Any]]) -> None:
    """Write; in the scribe's process."""
    from django.db import transaction
    from django.utils import timezone

    from endpoints.models import Endpoint, ProberLease

    now = timezone.now()
    lease = {"holder": "test", "renewed_at": now, "expires_at": now + timedelta(days=1)}
    with transaction.atomic():
        Endpoint.objects.all().delete()
        ProberLease.objects.update_or_create(pk=1, defaults=lease)
        write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    """The rows, their health and models."""
    from django.utils import timezone

    from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth

    now = timezone.now()
    for row in rows:
        health, models = row.pop("health", {}), row.pop("models", [])
        endpoint = Endpoint.objects.create(**row)
        EndpointHealth.objects.create(
            endpoint=endpoint,
            last_checked=now - timedelta(seconds=2),
            next_check=now + timedelta(days=1),
            status_since=now - timedelta(seconds=health.pop("for", 5000)),
            **health,
        )
        facts = [{"name": model} if isinstance(model, str) else model for model in models]
        DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=endpoint, **each) for each in facts)
