"""A backend whose answers are web pages that attack the site, opened by an administrator in Chromium."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Error, Page, Route

from tests.browser.chromium import wait_for
from tests.browser.hostile import HOSTILE_HEADERS, HostileSite, hostile_reply, open_site
from tests.browser.pages_server import PagesServer
from tests.fakes import Reply, Step

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ATTACK = (Path(__file__).parent / "attack.js").read_text()
RUN = "new Image().src='/olla/proxy/exfil?ran-NAME'"
BODY = (
    f'<img src="/olla/proxy/exfil?shown-NAME"><script>{RUN}</script><img src="data:x" onerror="{RUN}">'
    f'<svg onload="{RUN}"></svg><iframe srcdoc="<script>{RUN}</script>"></iframe>'
    f'<object data="data:text/html,<script>{RUN}</script>"></object>'
    '<meta http-equiv="refresh" content="0;url=/olla/proxy/exfil?ran-NAME">'
    '<meta http-equiv="Set-Cookie" content="sessionid=evil; path=/">'
)
HTML = f"<!doctype html><title>Hello</title>{BODY}"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg"><script>{RUN}</script><rect width="9" height="9"/></svg>'
XHTML = f'<html xmlns="http://www.w3.org/1999/xhtml"><head/><body><script>{RUN}</script></body></html>'
BOUNDARY = f"--b\r\nContent-Type: text/html\r\n\r\n{HTML}\r\n--b--\r\n"
FILLER = b"<!--" + b"x" * 70_000 + b"-->"


def page(name: str, text: str = HTML, content_type: bytes = b"text/html", status: int = 200) -> Reply:
    """A hostile page that reports under `name`."""
    return hostile_reply(text.replace("NAME", name).encode(), content_type, status)


def html(name: str) -> bytes:
    """The HTML page's bytes."""
    return HTML.replace("NAME", name).encode()


# What a browser may be made to show; each reports `ran-...` if anything of it runs.
PAGES: dict[str, Step] = {
    "html": page("html"),
    **{f"status-{code}": page(f"status-{code}", status=code) for code in (201, 400, 404, 500, 503)},
    "svg": page("svg", SVG, b"image/svg+xml"),
    "xhtml": page("xhtml", XHTML, b"application/xhtml+xml"),
    "xml": page("xml", XHTML, b"text/xml"),
    "plain": page("plain", HTML, b"text/plain"),
    "json": page("json", HTML, b"application/json"),
    "events": page("events", HTML, b"text/event-stream"),
    "no-type": page("no-type", HTML, b""),
    "odd-type": page("odd-type", HTML, b"text/html; charset=utf-7; x=\"text/plain"),
    "binary": page("binary", HTML, b"application/octet-stream"),
    "mixed": page("mixed", BOUNDARY, b"multipart/x-mixed-replace; boundary=b"),
    "large": hostile_reply(html("large") + FILLER),
    "streamed": hostile_reply(b"", chunks=[html("streamed"), 0.05, FILLER]),
    "gzip": Reply(200, [(b"Content-Type", b"text/html"), (b"Content-Encoding", b"gzip"), *HOSTILE_HEADERS],
                  gzip.compress(html("gzip"), mtime=0)),
}  # fmt: skip
WORKER = b"postMessage(1); onconnect = (event) => event.ports[0].postMessage(1);"
# Those that a browser runs when no product stands before them.
LIVE = ("html", "status-500", "svg", "xhtml", "large", "gzip")
SCRIPT: dict[str, Step] = {
    **{f"/page/{name}": reply for name, reply in PAGES.items()},
    "/exfil": Reply(204),
    "/worker.js": hostile_reply(WORKER, b"text/javascript"),
    "/phish": page("phish"),
    **{
        f"/lib/{kind.replace('/', '-')}": hostile_reply(b"window.pwned = 1;", kind.encode())
        for kind in ("text/javascript", "text/plain", "text/html", "application/json", "image/png")
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HostileSite]:
    """As it comes: nothing of a backend's page runs."""
    async with open_site(tmp_path_factory.mktemp("strict"), SCRIPT) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_minded_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HostileSite]:
    """With OLLA_ALLOW_SCRIPTS: pages run, on an origin of their own."""
    env = {"OLLA_ALLOW_SCRIPTS": "1"}
    async with open_site(tmp_path_factory.mktemp("open"), SCRIPT, env) as opened:
        attack = f"<!doctype html><body><script>{ATTACK}</script>"
        for name in ("victim", "control"):
            text = attack.replace("VICTIM", str(opened.endpoint_id(name)))
            script: Any = opened.backend.script
            script[f"/attack/{name}"] = hostile_reply(text.encode())
        yield opened


async def assert_signed_in(site: HostileSite, context: BrowserContext) -> None:
    """The session still works and its cookie is the one it was."""
    cookies = {(each["name"], each["value"]) for each in await context.cookies(site.url)}
    assert ("sessionid", site.session) in cookies
    assert not [value for _, value in cookies if "evil" in value]
    answer = await context.request.get(f"{site.url}/admin/", max_redirects=0)
    assert answer.status == 200


async def visit(tab: Page, url: str) -> None:
    """Open an address; a browser that downloads what it is given instead of showing it is fine too."""
    with suppress(Error):
        await tab.goto(url, wait_until="load")


async def test_it_shows_pages_of_a_backend_and_runs_nothing_of_them(strict_site, browser):
    site = strict_site
    before, context = site.read_state(), await site.sign_in(browser)
    tab = await context.new_page()
    for name in PAGES:
        await visit(tab, f"{site.url}/olla/proxy/page/{name}")
        assert "exfil" not in tab.url
    shown = {"shown-html", "shown-status-500", "shown-large", "shown-streamed", "shown-gzip"}
    await wait_for(lambda: shown <= set(site.reports()))
    assert [report for report in site.reports() if report.startswith("ran")] == []
    await assert_signed_in(site, context)
    assert site.read_state() == before
    await context.close()


def has_ran(seen: list[str], name: str) -> bool:
    """Whether a request says that a script of this page ran."""
    return any(url.endswith(f"/exfil?ran-{name}") for url in seen)


async def test_it_would_have_run_without_the_product(strict_site, browser):
    # The counterpart of the test above: the same pages straight from the backend do run.
    context = await browser.new_context()
    home = strict_site.backend.url
    seen: list[str] = []
    context.on("request", lambda request: seen.append(request.url))
    for name in LIVE:
        tab = await context.new_page()  # the page before navigates itself away whenever its refresh comes
        reply: Any = PAGES[name]
        kinds = [(key, value) for key, value in reply.headers if key in (b"Content-Type", b"Content-Encoding")]
        strict_site.backend.script[f"/bare/{name}"] = Reply(reply.status, kinds, reply.body)
        await tab.goto(f"{home}/bare/{name}", wait_until="commit")
        await wait_for(partial(has_ran, seen, name))
    await context.close()


async def open_attack(site: HostileSite, context: BrowserContext, name: str) -> tuple[Page, dict[str, str]]:
    """Let an admin page open the attack, which then has an opener; the admin page and what was reported."""
    start = len(site.reports())
    admin = await context.new_page()
    await admin.goto(f"{site.url}/admin/")
    async with context.expect_page():
        await admin.evaluate(f"void window.open('/olla/proxy/attack/{name}')")
    await wait_for(lambda: "done" in site.reports()[start:], within=300)
    told = [unquote(report).split(":", 2) for report in site.reports()[start:] if report != "done"]
    return admin, {what: f"{result}:{detail}" for result, what, detail in told}


async def test_it_contains_a_page_that_may_run_scripts(open_minded_site, browser):
    site = open_minded_site
    before, context = site.read_state(), await site.sign_in(browser)
    admin, told = await open_attack(site, context, "victim")
    assert len(told) >= 20
    assert {what: result for what, result in told.items() if not result.startswith("no:")} == {}
    assert admin.url == f"{site.url}/admin/"
    assert await admin.evaluate("localStorage.getItem('pwned')") is None
    assert await admin.evaluate("navigator.serviceWorker.getRegistrations().then(all => all.length)") == 0
    await assert_signed_in(site, context)
    assert site.read_state() == before
    await context.close()


async def test_it_is_the_sandbox_that_contains_it(open_minded_site, browser):
    # The counterpart of the test above: the same page without the guarding headers takes the site over.
    site, context = open_minded_site, await open_minded_site.sign_in(browser)

    async def unguard(route: Route) -> None:
        answer = await route.fetch()
        headers = {name: value for name, value in answer.headers.items() if name != "content-security-policy"}
        await route.fulfill(response=answer, headers=headers)

    await context.route("**/olla/proxy/attack/*", unguard)
    _, told = await open_attack(site, context, "control")
    taken = {what for what, result in told.items() if result.startswith("got:")}
    assert {"fetch", "xhr", "postWithToken", "readCookies", "storage", "database", "cache"} <= taken, told
    assert site.query("SELECT 1 FROM endpoints_endpoint WHERE name = 'control'") == []
    await context.close()


@pytest.mark.parametrize("kind", ["text/javascript", "text/plain", "text/html", "application/json", "image/png"])
async def test_it_gives_its_own_pages_no_script_of_a_backend(open_minded_site, browser, kind):
    site, context = open_minded_site, await open_minded_site.sign_in(browser)
    admin = await context.new_page()
    await admin.goto(f"{site.url}/admin/")
    outcome = await admin.evaluate(
        """address => new Promise(ready => {
            const script = document.createElement("script");
            script.onload = () => ready("loaded");
            script.onerror = () => ready("refused");
            script.src = address;
            document.head.append(script);
        })""",
        f"/olla/proxy/lib/{kind.replace('/', '-')}",
    )
    assert (outcome, await admin.evaluate("window.pwned")) == ("refused", None)
    await context.close()


async def test_it_shows_a_models_name_as_text(strict_site, browser):
    site, context = strict_site, await strict_site.sign_in(browser)
    tab = await context.new_page()
    for path in ("/", "/admin/endpoints/endpoint/", "/admin/endpoints/discoveredmodel/", "/olla/models"):
        await tab.goto(f"{site.url}{path}")
        assert await tab.evaluate("window.pwned") is None, path
    await context.close()


# -- pages of other origins


FOREIGN = """<!doctype html><title>Elsewhere</title>"""
READ = """async ([home, path]) => {
    try {
        const answer = await fetch(home + path, {credentials: "include"});
        return (await answer.text()).slice(0, 100);
    } catch (error) { return null; }
}"""
READ_PLAINLY = READ.replace("include", "omit")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_it_is_closed_to_pages_of_other_origins(strict_site, browser, host):
    # 127.0.0.1 on another port is another origin, but the same site: its requests carry the session.
    site = strict_site
    before, context = site.read_state(), await site.sign_in(browser)
    with PagesServer({"/": FOREIGN}) as pages:
        tab = await context.new_page()
        await tab.goto(f"http://{host}:{pages.port}/")
        for path in ("/admin/", "/", "/internal/status", "/internal/process", "/internal/", "/olla/models"):
            assert await tab.evaluate(READ, [site.url, path]) is None, path
        for path in ("/admin/", "/", "/internal/status", "/internal/process", "/internal/"):
            assert await tab.evaluate(READ_PLAINLY, [site.url, path]) is None, path
        for path in ("/internal/health", "/version", "/olla/models"):
            assert await tab.evaluate(READ_PLAINLY, [site.url, path]), path
        await post_from(tab, f"{site.url}/admin/endpoints/endpoint/{site.endpoint_id('victim')}/delete/")
        await tab.close()
    await assert_signed_in(site, context)
    assert site.read_state() == before
    await context.close()


async def post_from(tab: Page, address: str) -> None:
    """Post to the admin as a page of another origin can: blindly, and as a form with the cookie's token."""
    await tab.evaluate(
        """async (address) => {
            const stolen = /csrftoken=([^;]+)/.exec(document.cookie);
            const fields = {csrfmiddlewaretoken: stolen ? stolen[1] : "a".repeat(32), post: "yes"};
            await fetch(address, {method: "POST", mode: "no-cors", credentials: "include",
                body: new URLSearchParams(fields)}).catch(() => null);
            const form = document.createElement("form");
            form.method = "POST";
            form.action = address;
            for (const [name, value] of Object.entries(fields)) form.append(Object.assign(
                document.createElement("input"), {name, value}));
            document.body.append(form);
            form.submit();
        }""",
        address,
    )
    await tab.wait_for_url(address)
    assert "403" in await tab.title() or "Forbidden" in await tab.content()


async def test_it_cannot_be_framed(strict_site, browser):
    site, context = strict_site, await strict_site.sign_in(browser)
    with PagesServer({"/": f'<iframe id="f" src="{site.url}/admin/"></iframe>'}) as pages:
        tab = await context.new_page()
        await tab.goto(f"http://127.0.0.1:{pages.port}/")
        await wait_for(lambda: tab.frames[1].url.startswith("chrome-error:"))
    await context.close()


async def test_it_answers_no_rebound_name(strict_site, browser):
    site, context = strict_site, await browser.new_context()
    tab = await context.new_page()
    for path in ("/admin/", "/", "/olla/models", "/internal/health"):
        answer = await tab.goto(f"http://rebind.example:{site.server.port}{path}")
        assert answer is not None
        assert answer.status == 400
        assert "OLLA_ALLOWED_HOSTS" in await answer.text()
    await context.close()
