"""A real Chromium (Debian's) against the real server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.browser.chromium import FLAGS, find_chromium
from tests.live import LiveServer

_PASSWORD = re.compile(r"password\s+(\S+)\n")


# Not for the session: while Playwright's synchronous door is open an event loop counts as running in this thread,
# and no asynchronous test of another module can start.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; a missing one fails the tests in plain words, it never skips them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """The server as a newcomer starts it, with its prober, on a fresh data folder."""
    with LiveServer(args=()) as running:
        yield running


def first_password(server: LiveServer) -> str:
    """The administrator's password as the first start printed it."""
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
        page.on("request", self._note)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((f"{self._home}/", "data:", "about:", "blob:")):
            self.foreign.append(request.url)

    def assert_clean(self) -> None:
        assert self.errors == []
        assert self.foreign == []


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, server: LiveServer) -> Iterator[OpenPage]:
    """Open pages in contexts of their own: size, dark or light; every one must stay clean to the end."""
    contexts: list[BrowserContext] = []
    watches: list[Watch] = []

    def build(*, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        watches.append(Watch(page, server.url))
        return page

    yield build
    for watch in watches:
        watch.assert_clean()
    for context in contexts:
        context.close()


def sign_in(page: Page, server: LiveServer, path: str = "/") -> None:
    """Sign in as the first administrator and end at `path`."""
    page.goto(server.url + path)
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(first_password(server))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(server.url + path)


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where screenshots go, to be looked at."""
    import os
    import tempfile

    folder = Path(os.environ.get("OLLA_SCREENSHOTS") or Path(tempfile.gettempdir()) / "olla-screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
