"""`make screenshots`: every page, light and dark, phone and desktop, with no, three and 200 endpoints.

The README's picture is taken of the running demo with some traffic, the others of a server with made-up endpoints.
`python -m tests.browser.take_pictures FOLDER` writes somewhere else.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Page, ViewportSize

from tests.browser.chromium import open_chromium
from tests.browser.desk import ROOT, fill_fleet, signed_in
from tests.browser.rules_desk import fill_rules
from tests.browser.test_pages import THREE, crowd
from tests.live import LiveServer

FOLDER = ROOT / "docs" / "images"
FIRST = "first-page.png"
FLEETS: dict[str, list[dict[str, Any]]] = {"empty": [], "three": THREE, "many": crowd(200)}
# Name -> address; one in a fleet of three is enough where the fleet is not what is shown.
PAGES = {
    "fleet": "/",
    "endpoint": "",
    "add": "/fleet/add/",
    "rules": "/rules/",
    "connect": "/connect/",
    "playground": "/playground/?model=llama3.3:70b",
    "admin": "/admin/endpoints/endpoint/",
}
IN_EVERY_FLEET = {"fleet"}
LOOKS: dict[str, tuple[ViewportSize, bool]] = {
    "desktop-light": ({"width": 1280, "height": 800}, False),
    "desktop-dark": ({"width": 1280, "height": 800}, True),
    "phone-light": ({"width": 360, "height": 780}, False),
    "phone-dark": ({"width": 360, "height": 780}, True),
}
SETTLE = 2500  # milliseconds: the feed has spoken, charts are drawn
PORT = 40114  # the one people will see
READY = "The demo is ready"
REQUESTS = 36  # below what one client may send a minute


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    asyncio.run(take_all(folder))


async def take_all(folder: Path) -> None:
    """Every page in every look, then the README's."""
    async with open_chromium("--hide-scrollbars") as browser:
        with LiveServer() as server:
            state = await signed_in(browser, server)
            for fleet, rows in FLEETS.items():
                fill_fleet(server.data_dir, [dict(row, health=dict(row["health"])) for row in rows])
                if fleet == "three":
                    fill_rules(server.data_dir)
                await wait_for_fleet(server, len(rows))
                for look in LOOKS:
                    await take_look(browser, server, state, folder / "pages", f"{fleet}/{look}")
        await take_demo(browser, folder / FIRST)


async def wait_for_fleet(server: LiveServer, size: int) -> None:
    """Until the server knows the endpoints: its lists say so without an account."""
    async with httpx.AsyncClient() as client:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            known = (await client.get(f"{server.url}/internal/status")).text
            if known.count('"name"') >= size:
                return
            await asyncio.sleep(0.2)


async def take_look(browser: Browser, server: LiveServer, state: Any, folder: Path, name: str) -> None:
    """The pages of one fleet in one look."""
    fleet, look = name.split("/")
    size, dark = LOOKS[look]
    scheme: Any = "dark" if dark else "light"
    context = await browser.new_context(viewport=size, color_scheme=scheme, storage_state=state, locale="en-GB")
    page = await context.new_page()
    for title, address in PAGES.items():
        if fleet != "three" and title not in IN_EVERY_FLEET:
            continue
        await page.goto(server.url + (address or await first_endpoint(page, server)))
        await page.wait_for_timeout(SETTLE)
        file = folder / f"{title}-{fleet}-{look}.png"
        await page.screenshot(path=file, full_page=fleet != "many")
        sys.stdout.write(f"{file}\n")
    await context.close()


async def first_endpoint(page: Page, server: LiveServer) -> str:
    """The address of the first endpoint's page."""
    await page.goto(f"{server.url}/")
    return await page.locator(".endpoint-name").first.get_attribute("href") or "/"


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
