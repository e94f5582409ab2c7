"""What a preview of a rule says is what then happens to the same requests, sent again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.browser.desk import fill_fleet, open_page
from tests.browser.scribe import run_in_django
from tests.fakes import Conn, ScriptedBackend, json_reply
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SENT = ["shared"] * 4 + ["only-old"] * 2 + ["only-new"] * 3 + ["nowhere"]
RULES: list[dict[str, Any]] = [
    {"name": "shared at the old one", "order": 10, "action": "restrict", "tags": "old", "model": "shared"},
    {"name": "shared at the new one", "order": 20, "action": "restrict", "tags": "new", "model": "shared"},
    {"name": "new one closed", "order": 30, "action": "reject", "model": "only-new", "enabled": False},
]
WRITE = """
from endpoints.models import ModelAlias, RoutingRule, RuleCondition
for table in (RoutingRule, ModelAlias):
    table.objects.all().delete()
for row in rules:
    model = row.pop("model")
    rule = RoutingRule.objects.create(message="Closed.", **row)
    RuleCondition.objects.create(rule=rule, field="model", operator="is", value=model)
"""
Fates = list[tuple[int, str]]


async def answer(conn: Conn) -> None:
    """Say ok to everything."""
    while (request := await conn.request()) is not None:
        await conn.play(json_reply({"choices": [{"message": {"role": "assistant", "content": "ok"}}]}), request)


class Client:
    """Sends chats, and counts them: a preview judges all that the log holds."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.sent: Counter[str] = Counter()

    async def ask(self, *models: str) -> Fates:
        """Send a chat for each model: status and endpoint of each."""
        fates = []
        async with httpx.AsyncClient(timeout=30) as client:
            for model in models:
                body = {"model": model, "messages": [{"role": "user", "content": "Hello."}]}
                said = await client.post(f"{self.server.url}/olla/openai/v1/chat/completions", json=body)
                fates.append((said.status_code, said.headers.get("X-Olla-Endpoint", "")))
                self.sent[model] += 1
        return fates

    async def until(self, model: str, fate: tuple[int, str]) -> None:
        """Wait until a request for a model fares so: endpoints and rules are read anew once a second."""
        async with asyncio.timeout(60):
            while await self.ask(model) != [fate]:
                await asyncio.sleep(0.3)

    async def logged(self, page: Page, model: str) -> int:
        """Wait until the log, which is written in batches, has all requests for a model; how many there are."""
        async with asyncio.timeout(60):
            while True:
                await page.goto(f"{self.server.url}/requests/?model={model}")
                if await page.locator("#rows tr").count() == self.sent[model]:
                    return self.sent[model]
                await asyncio.sleep(0.1)


async def preview(page: Page, server: LiveServer, rule: str, change: str) -> dict[str, int]:
    """Have a change judged on the page: how many requests would change, by kind."""
    await page.goto(f"{server.url}/rules/")
    row = page.locator(".rule", has_text=rule)
    await row.locator("summary").click()
    await row.get_by_role("button", name=change).click()
    await page.locator("#apply").wait_for()
    found: Any = await page.locator("[data-kind]").evaluate_all(
        "tiles => tiles.map((tile) => [tile.dataset.kind, tile.firstChild.textContent])"
    )
    counts = {kind: int(text) for kind, text in found}
    del counts["same"]  # what other tests have asked of this server is in the log too
    return counts


def changes(before: Fates, after: Fates) -> dict[str, str]:
    """The models whose requests fared in another way, and in which, by the preview's words."""
    found = {}
    for model, old, new in zip(SENT, before, after, strict=True):
        if old != new:
            found[model] = "refused" if new[0] >= 400 else "answered" if old[0] >= 400 else "moved"
    return found


async def test_it_does_to_requests_what_the_preview_said(browser, server, state):
    async with ScriptedBackend(answer) as old, ScriptedBackend(answer) as new:
        await fill_fleet(server, [
            {"name": name, "url": backend.url, "backend_type": "vllm", "tags": name,
             "models": ["shared", f"only-{name}"], "health": {"status": "healthy"}}
            for name, backend in (("old", old), ("new", new))
        ])  # fmt: skip
        client = Client(server)
        await client.until("only-new", (200, "new"))
        run_in_django(server.data_dir, WRITE, rules=RULES)
        await client.until("shared", (200, "old"))
        async with open_page(browser, server, state=state) as page:
            before = await client.ask(*SENT)
            for rule, step, model, kind, fate in (
                (RULES[0]["name"], "disable", "shared", "moved", (200, "new")),
                (RULES[2]["name"], "enable", "only-new", "refused", (403, "")),
            ):
                await client.logged(page, model)
                said = await preview(page, server, rule, f"it were {step}d")
                assert said == {"moved": 0, "refused": 0, "answered": 0, "other": 0, kind: client.sent[model]}
                await page.get_by_role("button", name=f"{step.capitalize()} the rule").click()
                await expect(page.get_by_text(f"is {step}d.")).to_be_visible()
                await client.until(model, fate)
                after = await client.ask(*SENT)
                assert changes(before, after) == {model: kind}
                before = after
