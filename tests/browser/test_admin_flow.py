"""What an operator does in a browser, and what the next request through the proxy makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.desk import open_page, printed_password, sign_in_as, wait_for_picture
from tests.browser.scribe import run_in_django
from tests.fakes import Conn, ScriptedBackend, json_reply
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MODEL = "flow-model"
LOOSE = 60.0  # seconds; the aim is two, a busy machine may need longer


class Backend:
    """An OpenAI-compatible server that says ok to everything."""

    def __init__(self) -> None:
        self.server = ScriptedBackend(self._serve)

    async def _serve(self, conn: Conn) -> None:
        while (request := await conn.request()) is not None:
            if request.path == "/v1/models":
                await conn.play(
                    json_reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]}), request
                )
            else:
                await conn.play(json_reply({"choices": [{"message": {"content": "hello"}}]}), request)

    def last_authorization(self) -> str | None:
        chats = [request for request in self.server.requests if request.path == "/v1/chat/completions"]
        return chats[-1].header("authorization") if chats else None


@dataclass
class World:
    browser: Browser
    server: LiveServer
    backend: Backend

    async def chat(self) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            return await client.post(f"{self.server.url}/olla/openai/v1/chat/completions", json=body, timeout=30)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[LiveServer]:
    """The server as a newcomer starts it, with its prober, on a data folder with nothing in it."""
    with LiveServer(args=(), first_start=True) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def state(browser: Browser, server: LiveServer) -> Any:
    """The cookies of the administrator, who signed in with the password that the first start printed."""
    async with open_page(browser, server) as page:
        await sign_in_as(page, server, "admin", printed_password(server))
        return await page.context.storage_state()


@pytest_asyncio.fixture(loop_scope="session")
async def world(browser: Browser, server: LiveServer) -> AsyncIterator[World]:
    """A backend, and no endpoint yet."""
    run_in_django(server.data_dir, "from endpoints.models import Endpoint; Endpoint.objects.all().delete()")
    await wait_for_picture(server)
    backend = Backend()
    async with backend.server:
        yield World(browser, server, backend)


async def until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Wait for a condition; the seconds it took. Raises TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(LOOSE):
        while not await condition():
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def add_backend(page, world: World, **choices: str) -> None:
    await page.goto(f"{world.server.url}/admin/endpoints/endpoint/add/")
    await page.locator("#id_name").fill("gpu-1")
    await page.locator("#id_url").fill(world.backend.server.url)
    await page.locator("#id_backend_type").select_option("openai-compatible")
    if choices:
        await page.locator("#id_auth_type").select_option("bearer")
        await page.locator("#id_auth_secret").fill(choices["token"])
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_text("was added successfully").wait_for()


async def test_it_routes_to_a_backend_added_in_the_form_until_it_is_disabled(world, state):
    async with open_page(world.browser, world.server, state=state) as page:
        await add_backend(page, world, token="sk-first-token")

        async def answered() -> bool:
            return (await world.chat()).status_code == 200

        took = await until(answered)
        print(f"routed {took:.2f} s after saving")
        assert world.backend.last_authorization() == "Bearer sk-first-token"

        await page.locator("#result_list a", has_text="gpu-1").click()
        assert "sk-first-token" not in await page.content()
        await page.locator("#id_auth_secret").fill("sk-second-token")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("was changed successfully").wait_for()

        async def renewed() -> bool:
            await world.chat()
            return world.backend.last_authorization() == "Bearer sk-second-token"

        took = await until(renewed)
        print(f"new credentials {took:.2f} s after saving")

        await page.locator("#result_list a", has_text="gpu-1").click()
        await page.locator("#id_state").select_option("disabled")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("was changed successfully").wait_for()

        async def refused() -> bool:
            return (await world.chat()).status_code == 503

        took = await until(refused)
        print(f"disabled {took:.2f} s after saving")
        error = (await world.chat()).json()["error"]
        assert error["code"] in {"model_unavailable", "no_healthy_endpoints"}
        assert error["message"]


async def test_it_probes_on_demand_and_says_what_came_of_it(world, state):
    async with open_page(world.browser, world.server, state=state) as page:
        await add_backend(page, world)
        for action, said in (("probe_now", "gpu-1: healthy"), ("discover_now", "gpu-1: 1 model")):
            await page.goto(f"{world.server.url}/admin/endpoints/endpoint/")
            await page.locator("input.action-select").check()
            await page.locator("select[name=action]").select_option(action)
            await page.get_by_role("button", name="Go", exact=False).first.click()
            await page.get_by_text(said).wait_for()


async def test_it_asks_for_the_token_again_when_the_address_changes(world, state):
    async with open_page(world.browser, world.server, state=state) as page:
        await add_backend(page, world, token="sk-first-token")
        await page.locator("#result_list a", has_text="gpu-1").click()
        await page.locator("#id_url").fill("http://127.0.0.1:9")
        await page.get_by_role("button", name="Save", exact=True).click()
        await page.get_by_text("Enter it again (or remove it)").wait_for()
        assert "sk-first-token" not in await page.content()
