"""The form of a routing rule in a real browser: it shows what the chosen action needs, and the rule acts."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.desk import open_page, sign_in
from tests.fakes import ScriptedBackend
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

TYPED = ("tags", "endpoints", "model", "policy", "strategy", "fallback", "percentage", "message")


async def shown_fields(page) -> set[str]:
    return {name for name in TYPED if await page.locator(f".form-row.field-{name}").is_visible()}


async def test_it_shows_the_fields_of_the_action_and_stores_a_rule_that_acts(browser):
    with LiveServer(args=()) as server:
        async with open_page(browser, server) as page:
            await sign_in(page, server)
            await page.goto(f"{server.url}/admin/endpoints/routingrule/add/")
            assert await shown_fields(page) == set()
            action = page.locator("#id_action")
            await action.select_option("split")
            assert await shown_fields(page) == {"tags", "endpoints", "percentage"}
            assert await page.locator("#id_endpoints_from").evaluate("box => box.offsetHeight") > 50
            await page.locator("#id_tags").fill("left over")
            await action.select_option("strategy")
            assert await shown_fields(page) == {"strategy", "fallback"}
            await action.select_option("reject")
            assert await shown_fields(page) == {"message"}
            await page.locator("#id_message").fill("Not for blue.")
            await page.locator("#id_name").fill("no blue")
            await page.get_by_role("button", name="Add another Condition").click()
            row = page.locator("#conditions-0")
            header = row.locator("#id_conditions-0-header")
            await expect(header).to_be_hidden()
            await row.locator("#id_conditions-0-field").select_option("header")
            await header.fill("X-Team")
            await row.locator("#id_conditions-0-value").fill("blue")
            await page.get_by_role("button", name="Save", exact=True).click()
            await page.get_by_text("was added successfully").wait_for()
            await expect(page.get_by_text("when header X-Team is blue: refuse: Not for blue.")).to_be_visible()
            await assert_refused(page, server)


async def assert_refused(page, server: LiveServer) -> None:
    """Register a backend (rules are asked once there is one) and send a request of the blue team."""
    async with ScriptedBackend() as backend, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await page.goto(f"{server.url}/admin/endpoints/endpoint/add/")
        await page.locator("#id_name").fill("gpu-1")
        await page.locator("#id_url").fill(backend.url)
        await page.locator("#id_backend_type").select_option("openai-compatible")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("was added successfully").wait_for()

        async def ask() -> httpx.Response:
            body = json.dumps({"model": "m", "messages": []})
            url = f"{server.url}/olla/proxy/v1/chat/completions"
            return await client.post(url, content=body, headers={"X-Team": "Blue"})

        async with asyncio.timeout(60):
            while (answer := await ask()).status_code != 403:
                await asyncio.sleep(0.1)
        assert answer.json()["error"]["code"] == "forbidden_by_rule"
        assert answer.json()["error"]["message"] == "Not for blue."
