"""Rules in a real browser: a rule is changed in the admin, previewed, saved, and stands on the page; pictures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.chromium import find_package
from tests.browser.desk import fill_fleet, keep_picture, open_page, signed_in
from tests.browser.rules_desk import fill_rules
from tests.browser.scenes import THREE, fleet
from tests.browser.test_accessibility import RUN
from tests.browser.test_pages import LOOKS, assert_fits
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
A_FIFTH = re.compile(r"^\s*48\s*20\.0\s*%")  # of the 240 requests in the log


async def test_it_previews_a_rule_from_the_admin_and_does_what_it_said(browser):
    with LiveServer() as server:
        await fill_fleet(server, fleet(THREE))
        await fill_rules(server)
        state = await signed_in(browser, server)
        async with open_page(browser, server, state=state) as page:
            await page.goto(f"{server.url}/rules/")
            preview = await preview_in_admin(page)
            await expect(preview.locator("h1")).to_have_text("If llama on the GPUs is saved like this")
            await expect(preview.locator("[data-kind=refused]")).to_have_text(A_FIFTH)
            await page.get_by_role("button", name="Save", exact=True).click()
            await page.get_by_text("was changed successfully").wait_for()
            await page.goto(f"{server.url}/rules/")
            await page.get_by_text("only endpoints tagged nowhere").wait_for()
            await move_and_switch(page)
            result = await preview_disabling(page)
        await take_pictures(browser, server, state, result)


async def preview_in_admin(page: Page) -> Page:
    """Change the second rule in its form, without saving; the tab that tells what would change."""
    await page.get_by_role("link", name="Edit llama on the GPUs").click()
    await page.locator("#id_action").select_option("restrict")
    await page.locator("#id_tags").fill("nowhere")
    await keep_picture(page, "admin-rule")
    async with page.context.expect_page() as opened:
        await page.get_by_role("button", name="Preview").click()
    preview = await opened.value
    await preview.wait_for_url("**/rules/preview/*/")
    return preview


async def move_and_switch(page: Page) -> None:
    """The buttons of the list, without leaving the page."""
    await page.get_by_role("button", name="Move llama on the GPUs up").click()
    await page.get_by_text("llama on the GPUs is now before blue stays inside.").wait_for()
    await expect(page.locator(".rule h2").first).to_contain_text("llama on the GPUs")
    await page.get_by_role("button", name="Enable closed").click()
    await page.get_by_text("closed is enabled.").wait_for()


async def preview_disabling(page: Page) -> str:
    """The menu beside a rule leads to a preview that can be made true."""
    rule = page.locator(".rule", has_text="llama on the GPUs")
    await rule.locator("summary").click()
    await rule.get_by_role("button", name="it were disabled").click()
    await expect(page.locator("[data-kind=answered]")).to_have_text(A_FIFTH)
    found = page.url
    await page.get_by_role("button", name="Disable the rule").click()
    await page.get_by_text("llama on the GPUs is disabled.").wait_for()
    return found


async def take_pictures(browser: Any, server: LiveServer, state: Any, result: str) -> None:
    """Every look of the pages, which fit their window and which axe finds nothing to say about."""
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    for width, dark in LOOKS:
        async with open_page(browser, server, width=width, dark=dark, state=state) as page:
            look = f"{width}-{'dark' if dark else 'light'}"
            for name, address in (("rules", f"{server.url}/rules/"), ("rule-preview", result)):
                await page.goto(address)
                await page.evaluate("document.fonts.ready.then(() => true)")
                if name == "rules":
                    await page.locator(".what-if summary").nth(1).click()
                await keep_picture(page, f"{name}-{look}")
                await assert_fits(page)
                if dark is (width > 1000):  # each width and each colour once
                    await page.evaluate(axe)
                    assert await page.evaluate(RUN) == []
