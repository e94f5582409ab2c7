"""One browser for the whole run, and one server before which most pages are looked at.

Tests of this folder run on one event loop, the run's: a browser cannot change its loop. Each page has a browser
profile of its own (`desk.open_page`), so that nothing but the server's tables is shared; they are emptied for each
module, and a test writes those that it reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.chromium import open_chromium
from tests.browser.desk import clear_desk, signed_in
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
    """The server of a module, as if nobody had used it; one that needs a server of its own makes another."""
    await clear_desk(plain_server)
    return plain_server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def state(browser: Browser, server: LiveServer) -> Any:
    """The cookies of an administrator of the module's server."""
    return await signed_in(browser, server)
