"""`python -m tests.browser.take_pictures`: the pictures of the README, taken of the running demo."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import ViewportSize

from tests.browser.chromium import open_chromium

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURE = ROOT / "docs" / "images" / "first-page.png"
SIZE: ViewportSize = {"width": 1280, "height": 680}
PORT = 40114  # the one people will see
READY = "The demo is ready"


def main() -> None:
    """Start the demo on a fresh data folder, take the pictures, end it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        with output.open("wb") as sink:
            demo = subprocess.Popen(
                [sys.executable, "manage.py", "demo", "--delay", "0"],
                cwd=ROOT,
                env={**os.environ, "OLLA_DATA_DIR": f"{folder}/data"},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            asyncio.run(take(f"http://localhost:{PORT}", wait_for_password(output)))
        finally:
            demo.terminate()
            demo.wait()


def wait_for_password(output: Path) -> str:
    """The password the first start printed, once the demo is ready."""
    deadline = time.monotonic() + 60
    while READY not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    password = re.search(r"password +(\S{20,})", output.read_text())
    assert password is not None, output.read_text()
    return password[1]


async def take(url: str, password: str) -> None:
    """Sign in and take the first page."""
    async with open_chromium("--hide-scrollbars") as browser:
        page = await browser.new_page(viewport=SIZE)
        await page.goto(f"{url}/admin/login/?next=/")
        await page.fill("input[name=username]", "admin")
        await page.fill("input[name=password]", password)
        await page.click("[type=submit]")
        await page.wait_for_url(f"{url}/")
        await page.screenshot(path=PICTURE)
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)} written\n")


if __name__ == "__main__":
    main()
