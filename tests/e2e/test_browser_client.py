"""The openai npm package in Chromium, on a page of another origin."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.conftest import OPENAI_MODEL, Site, wait_until

FOLDER = Path(__file__).resolve().parent / "browser"
pytestmark = pytest.mark.browser


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """Serves the page and the package."""

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""


@pytest.fixture(scope="module")
def other_origin() -> Iterator[str]:
    """A web server that is not ours: its pages are on another origin."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietFiles, directory=str(FOLDER))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def page(other_origin: str) -> Iterator[Any]:
    """The page in Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto(f"{other_origin}/page.html")
        opened.wait_for_function("window.ready")
        yield opened
        browser.close()


@pytest.fixture
def base_url(site: Site) -> str:
    return f"{site.url}/olla/openai/v1"


def test_it_streams_and_shows_the_page_who_answered(page, base_url):
    result = page.evaluate(
        "([url, model]) => streamChat(url, model, 'Why is the sky blue?')", [base_url, OPENAI_MODEL]
    )
    assert "wavelengths" in "".join(result["pieces"])
    assert len(result["pieces"]) > 10
    assert result["headers"]["x-olla-endpoint"] == "gpu-openai"
    assert result["headers"]["x-olla-request-id"]


def test_it_lists_models(page, base_url):
    assert OPENAI_MODEL in page.evaluate("(url) => listModels(url)", base_url)


def test_it_raises_the_packages_own_error(page, base_url):
    result = page.evaluate("(url) => failChat(url, 'nobody-has-this')", base_url)
    assert result == {"expected": True, "status": 404, "code": "model_not_found"}


def test_it_stops_the_backend_when_the_page_aborts(site, page, base_url):
    state = site.openai.backend.state
    before = state.hang_ups
    state.delay = 0.05
    try:
        page.evaluate("([url, model]) => leaveChat(url, model, 'count to 500')", [base_url, OPENAI_MODEL])
        wait_until(lambda: state.hang_ups == before + 1)
    finally:
        state.delay = 0.0
