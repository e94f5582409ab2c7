"""axe-core finds no violation on any page, light or dark; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chromium import find_package, open_chromium
from tests.browser.desk import fill_fleet, open_page, signed_in
from tests.browser.scenes import THREE, crowd, fleet
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# Address -> what to wait for; a new page adds its line.
PAGES = {
    "/": "#live[data-state=live]",
    "/fleet/1/": "#charts .u-wrap",
    "/fleet/add/": "#add-form",
    "/connect/": "main h1",
    "/playground/": "#send:enabled",
    "/models/": ".models-table .name",
    "/models/llama3.3:70b": "main h1",
    "/requests/": "#rows tr",
    "{request}": ".waterfall, main h1",
    "/explain/?path=/olla/openai/v1/chat/completions&model=llama3.3:70b": "#considered",
}
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  const show = (each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))}`;
  return found.violations.map(show);
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with open_chromium() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LiveServer]:
    with LiveServer() as running:
        fill_fleet(running.data_dir, fleet([*THREE, *crowd(9)]))
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def state(browser: Browser, server: LiveServer) -> Any:
    return await signed_in(browser, server)


async def request_page(browser: Browser, server: LiveServer, state: Any) -> str:
    """Ask for something; the address of the newest request's page."""
    async with httpx.AsyncClient() as client:
        await client.post(f"{server.url}/olla/openai/v1/chat/completions", json={"model": "none", "messages": []})
    async with open_page(browser, server, state=state) as page:
        await page.goto(f"{server.url}/requests/")
        await page.locator("#rows tr").first.wait_for()
        return await page.locator("#rows a").first.get_attribute("href") or ""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_is_accessible(browser, server, state, dark):
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    found = {}
    request = await request_page(browser, server, state)
    for width in (1280, 360):
        async with open_page(browser, server, width=width, dark=dark, state=state) as page:
            for address, ready in PAGES.items():
                await page.goto(server.url + address.replace("{request}", request))
                await page.locator(ready).first.wait_for()
                await page.evaluate(axe)  # through the debugger: the page's own policy would refuse it
                found[width, address] = await page.evaluate(RUN)
    assert {place: violations for place, violations in found.items() if violations} == {}


async def test_it_signs_in_accessibly(browser, server):
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    async with open_page(browser, server) as page:
        await page.goto(f"{server.url}/accounts/login/")
        await page.evaluate(axe)
        assert await page.evaluate(RUN) == []
