"""The pages on requests and models in a browser: live, explained again, and inert whatever they are shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, Request, Route, expect

from tests.browser import scenes
from tests.browser.desk import fill_fleet, open_page
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

CHAT = "/olla/openai/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[LiveServer]:
    async with scenes.backends() as rows:
        with LiveServer() as running:
            evil = scenes.hostile(rows[0]["url"])
            await fill_fleet(running, scenes.fleet([*rows, *evil]))
            yield running


async def ask(server: LiveServer, model: str = scenes.SLOW, **headers: str) -> str:
    """One chat; the id of the request."""
    async with httpx.AsyncClient(timeout=30) as client:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello."}]}
        answer = await client.post(server.url + CHAT, json=body, headers=headers)
        return answer.headers["X-Olla-Request-ID"]


async def is_logged(page: Page, server: LiveServer, number: str) -> None:
    """Until the log, which is written in batches, has a request."""
    async with asyncio.timeout(60):
        while (await page.request.get(f"{server.url}/requests/id/{number}/")).status != 200:
            await asyncio.sleep(0.2)


async def look_at_log(page: Page, server: LiveServer) -> list[str]:
    """Open the log; the addresses of rows it asks for from then on."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/requests/rows" in request.url:
            asked.append(request.url)

    page.on("request", note)
    await page.goto(f"{server.url}/requests/")
    return asked


async def set_hidden(page: Page, hidden: bool) -> None:
    value = "true" if hidden else "false"
    await page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{value: {value}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


async def test_it_shows_a_request_within_moments(browser, server, state):
    async with open_page(browser, server, state=state) as page:
        await look_at_log(page, server)
        await ask(server, "no-such-model-live")
        await expect(page.locator("#rows tr", has_text="no-such-model-live")).to_be_visible(timeout=20_000)
        await expect(page.locator("#log")).to_be_visible()


async def test_it_asks_for_nothing_while_paused_or_hidden(browser, server, state):
    async with open_page(browser, server, state=state) as page:
        asked = await look_at_log(page, server)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#live")).to_have_text("Paused")
        before = len(asked)
        await ask(server, "while-paused")
        await page.wait_for_timeout(4500)  # two rounds
        assert len(asked) == before
        await set_hidden(page, True)
        await page.get_by_role("button", name="Go on").click()
        await page.wait_for_timeout(2500)
        assert len(asked) == before
        await set_hidden(page, False)
        await expect(page.locator("#rows tr", has_text="while-paused")).to_be_visible(timeout=20_000)


async def test_it_takes_an_answer_that_came_after_the_pause(browser, server, state):
    paused = asyncio.Event()

    async def hold(route: Route) -> None:
        await paused.wait()
        async with asyncio.timeout(60):  # the log is written a moment later
            while "as-it-pauses" not in await (await page.request.get(route.request.url)).text():
                await asyncio.sleep(0.1)
        await route.continue_()

    async with open_page(browser, server, state=state) as page:
        await page.route("**/requests/rows/**", hold)
        await page.goto(f"{server.url}/requests/?status=404")
        async with page.expect_request_finished(lambda request: "/requests/rows/" in request.url) as taken:
            async with page.expect_request("**/requests/rows/**"):  # at the latest when it hears of this one
                await ask(server, "as-it-pauses")
            await page.get_by_role("button", name="Pause").click()
            paused.set()
        answer = await (await taken.value).response()
        assert answer is not None
        assert "as-it-pauses" in await answer.text()
        assert await page.locator("#rows tr", has_text="as-it-pauses").count() == 0


async def test_it_finds_a_request_by_its_id_and_explains_it_again(browser, server, state):
    number = await ask(server)
    async with open_page(browser, server, state=state) as page:
        await is_logged(page, server, number)
        await page.goto(f"{server.url}/requests/id/{number}/")
        await expect(page.locator("h1")).to_have_text(number)
        await expect(page.locator(".waterfall svg")).to_have_count(1)
        await page.get_by_role("link", name="Explain again now").click()
        assert await page.get_by_label("Path").input_value() == CHAT
        assert await page.get_by_label("Model optional").input_value() == scenes.SLOW
        await expect(page.locator("#verdict")).to_have_text("Goes to rack-7 vLLM")


async def hostile_addresses(server: LiveServer, page: Page) -> list[str]:
    """Every page, with hostile text in its address where it takes any."""
    evil = scenes.EVIL
    async with httpx.AsyncClient(timeout=30) as client:
        for model in (f"{evil}0", scenes.LONG):
            body = {"model": model, "user": "fails", "messages": []}
            await client.post(server.url + CHAT, json=body, headers={"User-Agent": "x" * 2000})
        await client.get(f"{server.url}/olla/openai/v1/{quote(evil)}{'W' * 5000}")
    await page.goto(f"{server.url}/")
    ids = await page.locator("#fleet tbody tr").evaluate_all("rows => rows.map((row) => row.id.slice(9))")
    await page.goto(f"{server.url}/requests/?q={quote(evil[:60])}")
    await page.goto(f"{server.url}/requests/")
    await expect(page.locator("#rows tr", has_text="img src=x").first).to_be_visible(timeout=20_000)
    rows = await page.locator("#rows tr").evaluate_all("rows => rows.slice(0, 4).map((row) => row.dataset.key)")
    ask_all = {"path": f"/olla/{evil}", "model": evil, "client": evil, "headers": f"X-A: {evil}", "body": evil}
    return [
        "/", *(f"/fleet/{each}/" for each in ids), "/fleet/add/", "/models/", f"/models/?q={quote(evil)}",
        f"/models/{quote(evil + '0', safe='')}", f"/models/{'0' + scenes.LONG[:499]}", "/requests/",
        f"/requests/?{urlencode({'q': evil, 'model': evil})}", *(f"/requests/{each}/" for each in rows),
        f"/explain/?{urlencode(ask_all)}",
        f"/explain/?{urlencode({'path': CHAT, 'model': evil + '0'})}",
        f"/explain/?{urlencode({'path': CHAT, 'model': '0' + scenes.LONG[:499]})}",
        f"/connect/?{urlencode({'model': evil})}", f"/connect/?model={scenes.LONG[:500]}",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [360, 1280])
async def test_it_shows_hostile_text_inert_and_in_its_place(browser, server, state, width):
    found = {}
    async with open_page(browser, server, width=width, state=state) as page:
        for address in await hostile_addresses(server, page):
            answer = await page.goto(server.url + address)
            assert answer is not None
            found[f"{address[:40]} ({len(address)})"] = (
                answer.status,
                await page.evaluate("String(window.pwned)"),
                await page.evaluate("document.scrollingElement.scrollWidth - innerWidth"),
            )
    wrong = {place: told for place, told in found.items() if told[:2] != (200, "undefined") or told[2] > 0}
    assert wrong == {}
