"""The buttons that find out what an address is, in the admin and in the portal, before the real server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from endpoints.profiles import PROFILES
from tests.browser.desk import open_page
from tests.fakes import Reply, ScriptedBackend
from tests.live import LiveServer
from tests.proxy.test_kinds import read_fixture, serve

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
# One that answers another kind's API too, and one that is known by what it lists.
KINDS = ("docker-model-runner", "sglang")


@dataclass
class World:
    browser: Browser
    server: LiveServer
    state: Any


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(browser: Browser, server: LiveServer, state: Any) -> World:
    return World(browser, server, state)


async def test_the_admin_tells_and_chooses_the_type_of_what_is_typed_in(world):
    async with open_page(world.browser, world.server, state=world.state) as page:
        await page.goto(f"{world.server.url}/admin/endpoints/endpoint/add/")
        button, said = page.get_by_role("button", name="Detect type"), page.locator(".olla-detected")
        for kind in KINDS:
            async with serve(read_fixture(kind)) as backend:
                await page.locator("#id_url").fill(backend.url)
                await button.click()
                await expect(said).to_have_text(f"It is {PROFILES[kind].title}.", timeout=30_000)
            assert await page.locator("#id_backend_type").input_value() == kind
        assert backend.requests[0].method == b"GET"


async def test_the_admin_says_when_nothing_known_answers(world):
    async with open_page(world.browser, world.server, state=world.state, strict=False) as page:
        await page.goto(f"{world.server.url}/admin/endpoints/endpoint/add/")
        async with ScriptedBackend(Reply(200, body=b"<html>")) as backend:
            await page.locator("#id_url").fill(backend.url)
            await page.get_by_role("button", name="Detect type").click()
            said = page.locator(".olla-detected")
            await expect(said).to_contain_text("No server of a known type answered there", timeout=30_000)
        assert await page.locator("#id_backend_type").input_value() == "auto"


async def test_the_portal_tells_type_and_models_and_takes_the_type_over(world):
    async with open_page(world.browser, world.server, state=world.state) as page:
        await page.goto(f"{world.server.url}/fleet/add/")
        await page.get_by_label("Name", exact=True).fill("gpu-1")
        for kind in KINDS:
            fixture = read_fixture(kind)
            async with serve(fixture) as backend:
                await page.locator("[name=url]").fill(backend.url)
                await page.locator("[name=backend_type]").select_option("auto")
                await page.get_by_role("button", name="Test the connection").click()
                await expect(page.locator("#trial")).to_contain_text(
                    f"Type: {PROFILES[kind].title}.", timeout=30_000
                )
            for model in fixture["models"]:
                await expect(page.locator("#trial")).to_contain_text(model["name"])
            await page.get_by_role("button", name="Use it").click()
            assert await page.locator("[name=backend_type]").input_value() == kind
