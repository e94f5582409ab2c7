"""Every page at phone and desktop width, light and dark, empty, small and crowded.

With a folder in OLLA_SCREENSHOTS there are pictures of them to look at.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.desk import fill_fleet, keep_picture, open_page
from tests.browser.scenes import THREE, crowd, fleet

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FLEETS: dict[str, list[dict[str, Any]]] = {"empty": [], "three": THREE, "forty": crowd()}
FILLED = re.compile(".")  # not by an expression to wait for: the pages' policy forbids evaluating texts
LOOKS = [(1280, False), (1280, True), (360, False), (360, True)]


async def assert_fits(page: Page) -> None:
    """Nothing makes the page wider than the window."""
    over = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0


@pytest.mark.parametrize("name", FLEETS)
async def test_it_shows_the_fleet_at_every_size(browser, server, state, name):
    await fill_fleet(server, fleet(FLEETS[name]))
    for width, dark in LOOKS:
        async with open_page(browser, server, width=width, dark=dark, state=state) as page:
            await page.goto(f"{server.url}/")
            if FLEETS[name]:
                await expect(page.locator("#fleet time[datetime]").first).to_have_attribute("title", FILLED)
                await page.locator("#live[data-state=live]").wait_for()
            await assert_fits(page)
            await keep_picture(page, f"fleet-{name}-{width}-{'dark' if dark else 'light'}")


@pytest.mark.parametrize(("width", "dark"), LOOKS)
async def test_it_shows_the_admin_in_the_same_look(browser, server, state, width, dark):
    await fill_fleet(server, fleet(THREE))
    look = f"{width}-{'dark' if dark else 'light'}"
    async with open_page(browser, server, width=width, dark=dark, state=state) as page:
        await page.goto(f"{server.url}/accounts/login/")
        await assert_fits(page)
        await keep_picture(page, f"login-{look}", full_page=False)
        await page.goto(f"{server.url}/admin/endpoints/endpoint/")
        await keep_picture(page, f"admin-list-{look}")
        await page.locator("#result_list a", has_text="gpu-1").first.click()
        await page.wait_for_url("**/change/")
        await keep_picture(page, f"admin-endpoint-{look}")
        await page.goto(f"{server.url}/admin/endpoints/endpoint/add/")
        await page.locator("#id_name").fill("new")
        await page.locator("#id_url").fill("http://alice:secret@169.254.169.254")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("The URL holds credentials").wait_for()
        await keep_picture(page, f"admin-refused-{look}")


async def test_it_styles_the_admin_without_debug_or_collectstatic(browser, server, state):
    async with open_page(browser, server, state=state) as page:
        await page.goto(f"{server.url}/admin/")
        header = page.locator("#header")
        assert await header.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(29, 43, 79)"
        assert await page.evaluate("document.styleSheets.length") >= 4
        missing = await page.request.get(f"{server.url}/admin/nothing/here/")
        assert missing.status == 404
        assert "Traceback" not in await missing.text()


async def test_it_copies_the_request_to_try(browser, server, state):
    await fill_fleet(server, fleet(THREE))
    async with open_page(browser, server, state=state) as page:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(f"{server.url}/connect/")
        said = asyncio.ensure_future(page.get_by_role("button", name="Copied").wait_for())  # for two seconds
        await page.locator("button[data-copy=curl]").click()
        await said
        copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl -N {server.url}/olla/openai/v1/chat/completions")
    assert '"model": "llama3.3:70b"' in copied


async def test_it_shows_times_in_words_with_the_exact_local_time_on_hover(browser, server, state):
    await fill_fleet(server, fleet(THREE))
    async with open_page(browser, server, state=state) as page:
        await page.goto(f"{server.url}/")
        moment = page.locator("#fleet tr", has_text="gpu-1").locator("time[data-f=since]")
        await expect(page.locator("#fleet time[data-f=since]").first).to_have_attribute("title", FILLED)
        title = await moment.get_attribute("title") or ""
        assert re.search(r"\bCES?T\b|GMT\+[12]\b", title), title
        assert "yesterday" in await moment.inner_text()


async def test_it_can_be_used_with_the_keyboard_alone(browser, server, state):
    await fill_fleet(server, [])
    async with open_page(browser, server, state=state) as page:
        await page.goto(f"{server.url}/")
        reached = set()
        for _ in range(18):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.textContent.trim()"))
        assert {"Skip to the content", "Fleet", "Connect", "Admin", "◐", "admin", "Add an endpoint"} <= reached
