"""One browser for the whole run, and one server before which most pages are looked at.

Tests of this folder run on one event loop, the run's: a browser cannot change its loop. Each page has a browser
profile of its own (`desk.open_page`), so that nothing but the server's fleet is shared, which each test writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.chromium import open_chromium
from tests.browser.desk import signed_in
from tests.live import LiveServer

# As long as an action waits (`desk.open_page`): the default of five seconds is short for a page on a busy machine.
expect.set_options(timeout=30_000)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium; to it `rebind.example` is this machine."""
    async with open_chromium("--host-resolver-rules=MAP rebind.example 127.0.0.1") as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def plain_server() -> AsyncIterator[LiveServer]:
    """A server without prober whose fleet each test fills (`desk.fill_fleet`)."""
    with LiveServer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(plain_server: LiveServer) -> LiveServer:
    """The server of a module; one that needs a fleet or a database of its own makes another."""
    return plain_server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def state(browser: Browser, server: LiveServer) -> Any:
    """The cookies of an administrator of the module's server."""
    return await signed_in(browser, server)
