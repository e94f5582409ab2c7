"""Several endpoints at once, in a browser: chosen, drained, probed by the real prober, and the probe stopped."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.browser.chromium import find_package
from tests.browser.desk import open_page, sign_in
from tests.browser.scribe import run_in_django
from tests.browser.test_accessibility import RUN
from tests.browser.test_fleet_live import OLLAMA, is_live
from tests.fakes import Conn, ScriptedBackend
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_it_acts_on_several_endpoints_and_shows_how_far_it_is(browser):
    slow = asyncio.Event()
    slow.set()

    async def answer(conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            await slow.wait()
            await conn.play(OLLAMA.get(request.path, OLLAMA["/api/show"]), request)

    async with ScriptedBackend(OLLAMA) as quick, ScriptedBackend(answer) as stuck:
        with LiveServer(args=()) as server:
            rows = [(f"node-{number}", quick.url) for number in range(3)] + [("node-3", stuck.url)]
            values = "backend_type='ollama', check_interval=600, check_timeout=60"
            run_in_django(
                server.data_dir,
                "from endpoints.models import Endpoint\n"
                f"for name, url in {rows!r}: Endpoint.objects.create(name=name, url=url, {values})",
            )
            async with open_page(browser, server) as page:
                await sign_in(page, server)
                await is_live(page)
                await expect(page.get_by_text("healthy")).to_have_count(4, timeout=30_000)
                bar = page.locator("#bulk")
                await expect(bar).to_be_hidden()

                # The keyboard alone: one box, then all that a search leaves.
                await page.get_by_label("Choose node-0").focus()
                await page.keyboard.press("Space")
                await expect(bar).to_contain_text("1 chosen")
                await page.get_by_label("Search").fill("node-0")
                await page.get_by_label("Search").fill("node-1")
                await expect(bar).to_be_hidden()  # what is not seen is not chosen
                await page.get_by_label("Search").fill("node")
                await page.get_by_label("Choose all that are shown").check()
                await expect(bar).to_contain_text("4 chosen")

                await bar.get_by_role("button", name="Drain", exact=True).click()
                await expect(page.locator("#fleet [data-f=state]:visible")).to_have_count(4, timeout=20_000)
                await bar.get_by_role("button", name="Resume").click()
                await expect(page.locator("#fleet [data-f=state]:visible")).to_have_count(0, timeout=20_000)

                slow.clear()
                await bar.get_by_role("button", name="Probe now").click()
                work = page.locator(".work")
                await expect(work).to_contain_text("Probing: 3 of 4", timeout=20_000)
                await page.evaluate((find_package("axe-core") / "axe.min.js").read_text())
                assert await page.evaluate(RUN) == []
                await work.get_by_role("button", name="Cancel").click()
                await expect(work).to_contain_text("Stopped after 3 of 4. 3 endpoints well.")
                slow.set()
                await work.get_by_role("button", name="Close").click()

                await bar.get_by_role("button", name="Read their models").click()
                await expect(work).to_contain_text("4 endpoints told 1 model in all.", timeout=20_000)
                page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.dismiss()))
                await bar.get_by_role("button", name="Disable", exact=True).click()
                await bar.get_by_role("button", name="Choose none").click()
                await expect(bar).to_be_hidden()
                await expect(page.locator("#fleet [data-f=state]:visible")).to_have_count(0)
