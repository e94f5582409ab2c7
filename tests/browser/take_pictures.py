"""`make screenshots`: every page, light and dark, phone, desktop and wall, with no, three and 200 endpoints.

The picture the README shows is taken of the running demo and goes to docs/images, the others to docs/images/pages,
as WebP: there are some 140. `python -m tests.browser.take_pictures FOLDER [PART OF A NAME]` writes somewhere else.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from playwright.async_api import Browser, Page, ViewportSize

from tests.browser import scenes
from tests.browser.chromium import open_chromium
from tests.browser.desk import fill_fleet, signed_in
from tests.browser.rules_desk import fill_rules, start_preview
from tests.browser.scribe import ROOT
from tests.live import LiveServer

FOLDER = ROOT / "docs" / "images"
FIRST = "first-page.png"
EXPLAIN = "/explain/?path=/olla/openai/v1/chat/completions&model="
# Name -> address, {id} is an endpoint's, {model} a model's, {request} a request's that was tried twice.
PAGES = {
    "fleet": "/",
    "endpoint": "/fleet/{id}/",
    "models": "/models/",
    "model": "/models/{model}",
    "requests": "/requests/",
    "request": "/requests/id/{request}/",
    "explain": EXPLAIN + "{model}",
    "rules": "/rules/",
    "connect": "/connect/",
    "playground": "/playground/?model=llama3.3:70b",
    "add": "/fleet/add/",
    "preview": "{preview}",
    "admin": "/admin/endpoints/endpoint/",
    "login": "/accounts/login/",  # the last, for it takes the session away
}
# What other fleets than that of three have no page for, or one that looks the same.
NOT_OF = {
    "empty": {"endpoint", "model", "request", "preview", "login"},
    "many": {"request", "login"},
}
WALL = {"fleet", "endpoint", "models", "requests", "explain"}  # what hangs on walls
LOOKS: dict[str, tuple[ViewportSize, bool]] = {
    "desktop-light": ({"width": 1280, "height": 800}, False),
    "desktop-dark": ({"width": 1280, "height": 800}, True),
    "phone-light": ({"width": 360, "height": 780}, False),
    "phone-dark": ({"width": 360, "height": 780}, True),
    "wall-light": ({"width": 2560, "height": 1300}, False),
}
SETTLE = 1500  # milliseconds: the feed has spoken, charts are drawn
PORT = 40114  # the one people will see
READY = "The demo is ready"
HIGHEST = 2400  # pixels of a long page that are shown
QUALITY = 70  # of WebP; text stays sharp
REQUESTS = 36  # below what one client may send a minute


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    asyncio.run(take_all(folder, sys.argv[2] if len(sys.argv) > 2 else ""))


async def take_all(folder: Path, part: str) -> None:
    """Every page in every look whose name has the part, then the README's."""
    async with open_chromium("--hide-scrollbars") as browser, scenes.backends() as three:
        with LiveServer() as server:
            state = await signed_in(browser, server)
            for fleet, rows in (("empty", []), ("three", three), ("many", scenes.crowd(200, 10))):
                if not any(part in f"{page}-{fleet}-{look}.webp" for page in PAGES for look in LOOKS):
                    continue
                await fill_fleet(server, scenes.fleet(rows))
                tried_twice = ""
                if fleet == "three":
                    tried_twice = (await scenes.traffic(server.url))[-2]
                if rows:
                    await fill_rules(server)
                for look in LOOKS:
                    await take_look(browser, server, state, folder / "pages", (fleet, look, part, tried_twice))
        if part in FIRST:
            await take_demo(browser, folder / FIRST)


async def take_look(
    browser: Browser, server: LiveServer, state: Any, folder: Path, wanted: tuple[str, str, str, str]
) -> None:
    """The pages of one fleet in one look."""
    fleet, look, part, request = wanted
    size, dark = LOOKS[look]
    scheme: Any = "dark" if dark else "light"
    context = await browser.new_context(viewport=size, color_scheme=scheme, storage_state=state, locale="en-GB")
    page = await context.new_page()
    for title, address in PAGES.items():
        file = folder / f"{title}-{fleet}-{look}.webp"
        shown = (WALL if "wall" in look else PAGES.keys()) - NOT_OF.get(fleet, set())
        if title not in shown or part not in file.name:
            continue
        if title == "login":
            await context.clear_cookies()
        if address == "{preview}":
            await start_preview(page, server, 2)
        else:
            await page.goto(server.url + await fill_address(page, server, address, request))
        if (title, fleet) == ("playground", "three"):
            await say_hello(page)
        await page.wait_for_timeout(SETTLE)
        picture = await take(page, size["height"] if fleet == "many" else HIGHEST)
        await asyncio.to_thread(file.write_bytes, picture)
        sys.stdout.write(f"{file}\n")
    await context.close()


async def take(page: Page, highest: int) -> bytes:
    """A picture of the page from its top. WebP is Chromium's own word: Playwright knows PNG and JPEG."""
    session = await page.context.new_cdp_session(page)
    size = (await session.send("Page.getLayoutMetrics"))["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], highest), "scale": 1}
    wanted = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True, "clip": clip}
    taken = await session.send("Page.captureScreenshot", wanted)
    await session.detach()
    return base64.b64decode(taken["data"])


async def say_hello(page: Page) -> None:
    """Have a model answer in the playground."""
    await page.locator("#prompt").fill("Say hello.")
    await page.locator("#prompt").press("Control+Enter")
    await page.locator(".turn[data-state=done]").wait_for()


async def fill_address(page: Page, server: LiveServer, address: str, request: str) -> str:
    """An address with the first endpoint, the first model and a request's id in it."""
    if "{id}" in address:
        await page.goto(f"{server.url}/")
        rows = page.locator("#fleet tbody tr")
        busy = rows.filter(has_text="gpu-1")  # has something to show
        row = await (busy if await busy.count() else rows).first.get_attribute("id")
        address = address.replace("{id}", (row or "").removeprefix("endpoint-"))
    if "{model}" in address:
        await page.goto(f"{server.url}/models/")
        names = page.locator(".models-table .name")
        first = await names.first.inner_text() if await names.count() else "none"
        address = address.replace("{model}", quote(first))
    return address.replace("{request}", request)


async def take_demo(browser: Browser, file: Path) -> None:
    """The fleet page of the running demo, after some traffic."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        demo = start_demo(name, output)
        try:
            url = f"http://localhost:{PORT}"
            password = await asyncio.to_thread(wait_for_password, output)
            page = await browser.new_page(viewport={"width": 1280, "height": 680})
            await page.goto(f"{url}/admin/login/?next=/")
            await page.fill("input[name=username]", "admin")
            await page.fill("input[name=password]", password)
            await page.click("[type=submit]")
            await page.wait_for_url(f"{url}/")
            await send_traffic(url)
            await page.screenshot(path=file)
            sys.stdout.write(f"{file}\n")
        finally:
            demo.terminate()
            demo.wait()


def start_demo(folder: str, output: Path) -> subprocess.Popen[bytes]:
    """The demo on a fresh data folder."""
    with output.open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--delay", "0.02"],
            cwd=ROOT,
            env={**os.environ, "OLLA_DATA_DIR": f"{folder}/data"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )


async def send_traffic(url: str) -> None:
    """Chats over twenty seconds, some at once."""
    async with httpx.AsyncClient(timeout=30) as client:
        models = [each["id"] for each in (await client.get(f"{url}/olla/openai/v1/models")).json()["data"]]
        chats = [model for model in models if "embed" not in model]
        for number in range(REQUESTS):
            body = {"model": chats[number % len(chats)], "messages": [{"role": "user", "content": "Say hello."}]}
            count = 1 + number % 4
            asks = [client.post(f"{url}/olla/openai/v1/chat/completions", json=body) for _ in range(count)]
            await asyncio.gather(*asks)
            await asyncio.sleep(0.3)


def wait_for_password(output: Path) -> str:
    """The password the first start printed, once the demo is ready."""
    deadline = time.monotonic() + 60
    while READY not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    password = re.search(r"password +(\S{20,})", output.read_text())
    assert password is not None, output.read_text()
    return password[1]


if __name__ == "__main__":
    main()
