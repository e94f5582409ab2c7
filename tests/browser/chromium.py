"""Debian's Chromium, as every browser test starts it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NPM_FOLDER = Path(__file__).resolve().parent.parent / "npm"


def find_chromium() -> str:
    """The browser's path; a missing one fails the test in plain words, it never skips it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("Chromium is missing. On Debian and Ubuntu: apt install chromium", pytrace=False)
    return path


def find_package(name: str) -> Path:
    """The folder of an installed npm package; a missing one fails the test in plain words."""
    folder = NPM_FOLDER / "node_modules" / name
    if not folder.is_dir():
        if shutil.which("npm") is None:
            pytest.fail("npm is missing. On Debian and Ubuntu: apt install npm, then run make test", pytrace=False)
        pytest.fail(f"The npm package {name} is missing. Run: make npm", pytrace=False)
    return folder


@asynccontextmanager
async def open_chromium(*flags: str) -> AsyncIterator[Browser]:
    """A running browser.

    Asynchronous on purpose: Playwright's synchronous door leaves an event loop running in the thread, under
    which no asynchronous test can start.
    """
    arguments: Sequence[str] = (*FLAGS, *flags)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=list(arguments))
        try:
            yield browser
        finally:
            await browser.close()


async def wait_for(condition: Callable[[], bool], within: float = 30) -> None:
    """Wait until a condition comes true. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)
