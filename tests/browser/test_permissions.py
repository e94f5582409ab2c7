"""Who may do what, tried in a browser by each kind of reader: pages, buttons, and what a button's address answers.

A button that is not shown is no protection: each action is also asked for behind the page's back, with a valid
token against forgery, by those who have no button for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.desk import fill_fleet, open_page, sign_in_as
from tests.browser.rules_desk import fill_rules
from tests.browser.scenes import THREE, fleet
from tests.browser.scribe import run_in_django
from tests.live import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ANONYMOUS, VIEWER, USER, OPERATOR, ADMINISTRATOR = "anonymous", "viewer", "user", "operator", "administrator"
ROLES = {ANONYMOUS: "", VIEWER: "Viewers", USER: "Users", OPERATOR: "Operators", ADMINISTRATOR: "Administrators"}
PASSWORD = "look-but-do-not-touch"
MAKE_ACCOUNTS = """
from django.contrib.auth.models import Group, User
for name, group in roles.items():
    if group:
        made = User.objects.create_user(name, password=password, is_staff=name == "administrator")
        made.groups.add(Group.objects.get(name=group))
"""
EVERYBODY = frozenset({VIEWER, USER, OPERATOR, ADMINISTRATOR})
TRIERS = frozenset({USER, OPERATOR, ADMINISTRATOR})
OPERATORS = frozenset({OPERATOR, ADMINISTRATOR})
ADMINISTRATORS = frozenset({ADMINISTRATOR})
# {id} and {rule} stand for an endpoint's and a rule's number. A new page adds its line, a new action too.
PAGES = {
    "/": EVERYBODY, "/fleet/rows/": EVERYBODY, "/fleet/{id}/": EVERYBODY, "/fleet/{id}/history/": EVERYBODY,
    "/portal/live.json": EVERYBODY, "/models/": EVERYBODY, "/models/llama3.3:70b": EVERYBODY,
    "/requests/": EVERYBODY, "/requests/rows/": EVERYBODY, "/requests/{request}/": EVERYBODY,
    "/explain/": EVERYBODY, "/rules/": EVERYBODY, "/connect/": EVERYBODY, "/playground/": TRIERS,
    "/fleet/add/": ADMINISTRATORS, "/admin/endpoints/endpoint/": ADMINISTRATORS,
    "/admin/endpoints/routingrule/{rule}/change/": ADMINISTRATORS, "/admin/auth/user/": frozenset(),
}  # fmt: skip
ACTIONS: dict[str, tuple[frozenset[str], dict[str, str]]] = {
    **{f"/fleet/{{id}}/{name}/": (OPERATORS, {})
       for name in ("drain", "resume", "drain-then-disable", "disable", "probe", "discover")},
    "/fleet/bulk/drain/": (OPERATORS, {"endpoint": "{id}"}),
    "/fleet/bulk/resume/": (OPERATORS, {"endpoint": "{id}"}),
    "/rules/preview/alias/": (ADMINISTRATORS, {}),
    "/operator/token": (TRIERS, {"scopes": "pin"}),
    "/fleet/try/": (ADMINISTRATORS, {"name": "tried", "url": "nonsense"}),
    "/fleet/add/": (ADMINISTRATORS, {"name": "added", "url": "nonsense"}),
    "/rules/{rule}/disable/": (ADMINISTRATORS, {}),
    "/rules/{rule}/enable/": (ADMINISTRATORS, {}),
    "/rules/{rule}/down/": (ADMINISTRATORS, {"past": "{next}"}),
    "/rules/{rule}/up/": (ADMINISTRATORS, {"past": "{next}"}),
    "/rules/preview/": (ADMINISTRATORS, {"step": "disable", "rule": "{rule}"}),
    "/rules/preview/form/": (ADMINISTRATORS, {}),
    "/rules/{last}/delete/": (ADMINISTRATORS, {}),
}  # fmt: skip
# Page -> what it offers: a selector, and to whom.
BUTTONS: dict[str, dict[str, tuple[str, frozenset[str]]]] = {
    "/": {
        "row menus": ("#fleet .more", OPERATORS),
        "row actions": ("#row-menu [data-act=drain]", OPERATORS),
        "several at once": ("#bulk", OPERATORS),
        "adding": ("a[href='/fleet/add/']", ADMINISTRATORS),
        "admin": ("header a[href='/admin/']", ADMINISTRATORS),
        "playground": ("header a[href='/playground/']", TRIERS),
        "rules": ("header a[href='/rules/']", EVERYBODY),
        "sign out": ("header form[action='/accounts/logout/']", EVERYBODY),
    },
    "/fleet/{id}/": {
        "actions": ("[data-act=drain]", OPERATORS),
        "editing": ("main a[href^='/admin/endpoints/endpoint/']", ADMINISTRATORS),
    },
    "/models/": {"trying": ("main a[href^='/playground/']", TRIERS)},
    "/connect/": {"asking": ("#ask", TRIERS), "checking": ("#check", EVERYBODY)},
    "/rules/": {
        "switching": (".rule-switch", ADMINISTRATORS),
        "previewing": ("[formaction^='/rules/preview/']", ADMINISTRATORS),
        "editing rules": ("main a[href^='/admin/endpoints/routingrule/']", ADMINISTRATORS),
        "editing aliases": ("main a[href^='/admin/endpoints/modelalias/']", ADMINISTRATORS),
    },
}
REFUSED = {401, 403}
POST = """async ([address, values]) => {
  const headers = { "X-CSRFToken": document.querySelector("meta[name=csrf]").content, "HX-Request": "true" };
  const answer = await fetch(address, { method: "POST", headers, body: new URLSearchParams(values) });
  return [address, answer.status];
}"""
"""What a button's address answers to somebody, from a page of the portal."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[LiveServer]:
    """A fleet, rules and an account of each kind."""
    with LiveServer() as running:
        await fill_fleet(running, fleet(THREE))
        await fill_rules(running)
        run_in_django(running.data_dir, MAKE_ACCOUNTS, roles=ROLES, password=PASSWORD)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def states(browser: Browser, server: LiveServer) -> dict[str, Any]:
    """The cookies of each kind of reader, signed in."""
    found = {}
    for name in EVERYBODY:
        async with open_page(browser, server) as page:
            await sign_in_as(page, server, name, PASSWORD)
            found[name] = await page.context.storage_state()
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def places(browser: Browser, server: LiveServer, states: dict[str, Any]) -> dict[str, str]:
    """What the addresses above leave open."""
    async with open_page(browser, server, state=states[ADMINISTRATOR]) as page:
        await page.goto(server.url)
        await page.locator("#fleet tr", has_text="gpu-1").wait_for(timeout=30_000)
        endpoint = await page.locator("#fleet tr", has_text="gpu-1").get_attribute("id") or ""
        await page.goto(f"{server.url}/rules/")
        rules = await page.locator(".rule").evaluate_all("rules => rules.map((rule) => rule.id.slice(5))")
        await page.goto(f"{server.url}/requests/")
        request = await page.locator("#rows tr").first.get_attribute("data-key") or ""
    numbers = {"id": endpoint.removeprefix("endpoint-"), "request": request}
    return numbers | {"rule": rules[0], "next": rules[1], "last": rules[-1]}


@pytest_asyncio.fixture(loop_scope="session", params=ROLES)
async def reader(
    browser: Browser, server: LiveServer, states: dict[str, Any], request: pytest.FixtureRequest
) -> AsyncIterator[tuple[str, Page]]:
    """Each kind of reader on a page they are given. A page that is refused is an error on its console."""
    async with open_page(browser, server, state=states.get(request.param), strict=False) as page:
        await page.goto(f"{server.url}/connect/")
        yield request.param, page


async def test_it_opens_pages_to_those_who_may(reader, server, places):
    role, page = reader
    found = {}
    for address in PAGES:
        answer = await page.goto(server.url + address.format_map(places))
        assert answer is not None
        found[address] = answer.status == 200 and "/login/" not in page.url
        if role != ANONYMOUS and not found[address] and not address.startswith("/admin/"):
            assert answer.status == 403
            await expect(page.locator("body")).to_contain_text("may not")
    assert found == {address: role in allowed for address, allowed in PAGES.items()}


async def test_it_does_what_somebody_asks_who_may(reader, server, places):
    role, page = reader
    found = {}
    for address, (_, values) in ACTIONS.items():
        filled = {name: value.format_map(places) for name, value in values.items()}
        _, status = await page.evaluate(POST, [address.format_map(places), filled])
        assert status in REFUSED or status in {200, 204, 409, 422}, (address, status)
        found[address] = status not in REFUSED
    assert found == {address: role in allowed for address, (allowed, _) in ACTIONS.items()}


async def test_it_shows_the_buttons_of_those_who_may(reader, server, places):
    role, page = reader
    shown = {}
    for address, buttons in BUTTONS.items():
        await page.goto(server.url + address.format_map(places))
        for name, (selector, _) in buttons.items():
            shown[name] = await page.locator(selector).count() > 0
    wanted = {name: role in allowed for each in BUTTONS.values() for name, (_, allowed) in each.items()}
    assert shown == wanted


async def test_it_refuses_an_action_without_the_token_against_forgery(browser, server, places, states):
    async with open_page(browser, server, state=states[OPERATOR]) as page:
        for headers in ({}, {"HX-Request": "true"}, {"X-CSRFToken": "a" * 64}):
            answer = await page.request.post(f"{server.url}/fleet/{places['id']}/drain/", headers=headers)
            assert answer.status == 403
