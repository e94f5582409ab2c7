"""axe-core finds no violation on any page, light or dark; no page makes an error or loads from elsewhere."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from olla_site.portal.urls import urlpatterns
from tests.browser.chromium import find_package
from tests.browser.desk import fill_fleet, open_page
from tests.browser.rules_desk import fill_rules, start_preview
from tests.browser.scenes import THREE, crowd, fleet
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

# Name of the address -> address and what to wait for; a new page adds its line.
PAGES = {
    "home": ("/", "#live[data-state=live]"),
    "endpoint": ("/fleet/{endpoint}/", "#charts .u-wrap"),
    "add_endpoint": ("/fleet/add/", "#add-form"),
    "connect": ("/connect/", "main h1"),
    "playground": ("/playground/", "#send:enabled"),
    "models": ("/models/", ".models-table .name"),
    "model": ("/models/llama3.3:70b", "main h1"),
    "requests": ("/requests/", "#rows tr"),
    "request": ("/requests/{request}/", ".waterfall, main h1"),
    "explain": ("/explain/?path=/olla/openai/v1/chat/completions&model=llama3.3:70b", "#considered"),
    "rules": ("/rules/", ".rule .place"),
    "rule_preview": ("{preview}", "#apply"),
    "fleet_work": ("{work}", "main h1"),
}
# Fragments, actions, and addresses that lead to the pages above; the page to sign in has a test of its own.
NO_PAGES = {
    "fleet_rows", "try_endpoint", "endpoint_history", "endpoint_action", "live", "request_rows", "find_request",
    "rule_previews", "rule_preview_form", "rule_preview_again", "rule_preview_cancel", "rule_change", "logout",
    "admin_login", "login",
    "fleet_action", "fleet_work_stop", "alias_preview", "alias_preview_form",
}  # fmt: skip
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  const show = (each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))}`;
  return found.violations.map(show);
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def places(browser: Browser, server: LiveServer, state: Any) -> dict[str, str]:
    """A fleet, rules and a log to look at; what the addresses above leave open."""
    await fill_fleet(server, fleet([*THREE, *crowd(9)]))
    await fill_rules(server)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await client.post(f"{server.url}/olla/openai/v1/chat/completions", json={"model": "none", "messages": []})
    async with open_page(browser, server, state=state) as page:
        await page.goto(f"{server.url}/requests/")
        request = await page.locator("#rows tr").first.get_attribute("data-key") or ""
        await page.goto(server.url)
        row = await page.locator("#fleet tr", has_text="gpu-1").get_attribute("id", timeout=30_000) or ""
        endpoint = row.removeprefix("endpoint-")
        work = await start_work(page, server, endpoint)
        preview = await start_preview(page, server)
    return {"request": request, "endpoint": endpoint, "preview": preview, "work": work}


async def start_work(page: Page, server: LiveServer, endpoint: str) -> str:
    """Have the prober asked; the address that tells how far it is."""
    token = await page.locator("meta[name=csrf]").get_attribute("content") or ""
    form: dict[str, str | float | bool] = {"csrfmiddlewaretoken": token, "endpoint": endpoint}
    answer = await page.request.post(f"{server.url}/fleet/bulk/probe/", form=form)
    assert answer.status == 200
    return answer.url.removeprefix(server.url)


async def test_it_knows_every_page():
    assert {each.name for each in urlpatterns} == PAGES.keys() | NO_PAGES


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_is_accessible(browser, server, state, places, dark, long_form):
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    found = {}
    for width in (1280, 360) if long_form else (360 if dark else 1280,):  # each width and each colour
        async with open_page(browser, server, width=width, dark=dark, state=state) as page:
            for name, (address, ready) in PAGES.items():
                await page.goto(server.url + address.format_map(places))
                await page.locator(ready).first.wait_for()
                await page.evaluate(axe)  # through the debugger: the page's own policy would refuse it
                found[width, name] = await page.evaluate(RUN)
    assert {place: violations for place, violations in found.items() if violations} == {}


async def test_it_signs_in_accessibly(browser, server):
    axe = (find_package("axe-core") / "axe.min.js").read_text()
    async with open_page(browser, server) as page:
        await page.goto(f"{server.url}/accounts/login/")
        await page.evaluate(axe)
        assert await page.evaluate(RUN) == []
