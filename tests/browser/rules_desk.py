"""Rules, aliases and a request log for a running server, as the scribe writes them."""

from __future__ import annotations

from playwright.async_api import Page

from tests.browser.desk import wait_for_picture
from tests.browser.scribe import run_in_django
from tests.live import LiveServer

LONG = "-with-a-very-long-name-that-somebody-thought-was-a-good-idea-and-then-some-more"


async def fill_rules(server: LiveServer) -> None:
    """Replace what steers requests, and log 240 of them; wait until the server goes by the new rules."""
    run_in_django(server.data_dir, "from tests.browser.rules_desk import replace_rules; replace_rules()")
    await wait_for_picture(server)


async def start_preview(page: Page, server: LiveServer, place: int = 0) -> str:
    """Have it judged what disabling a rule would change; the address of what came of it."""
    await page.goto(f"{server.url}/rules/")
    rule = page.locator(".rule").nth(place)
    await rule.locator(".what-if summary").click()
    await rule.get_by_role("button", name="it were disabled").click()
    await page.locator("#apply").wait_for()
    return page.url.removeprefix(server.url)


def replace_rules() -> None:
    """Write; in the scribe's process."""
    from endpoints.models import Endpoint, ModelAlias, RoutingRule
    from tests.endpoints.rule_desk import LLAMA, make_rule
    from tests.portal.test_requests_page import log

    for table in (RoutingRule, ModelAlias):
        table.objects.all().delete()
    Endpoint.objects.filter(name="gpu-1").update(tags="gpu")
    Endpoint.objects.filter(name="rack-7 vLLM").update(tags="spare")
    team = {"field": "header", "header": "X-Team", "operator": "is", "value": "blue"}
    inside = {"field": "client_network", "header": "", "operator": "is", "value": "10.1.0.0/16"}
    make_rule(team, inside, name="blue stays inside", order=10, action="restrict", tags="gpu", message="")
    make_rule(LLAMA, name="llama on the GPUs", order=20, action="prefer", tags="gpu", message="")
    make_rule(name=f"trial{LONG}", order=30, action="split", tags="spare, new", percentage=10, message="")
    make_rule(name="closed", order=40, message="Closed for the night.", enabled=False)
    ModelAlias.objects.create(name="fast-chat", targets="llama3.3:70b\nqwen3:32b", notes="For the chat window.")
    ModelAlias.objects.create(name="gone", targets="llama2:7b")
    models = ("llama3.3:70b", "qwen3:32b", "fast-chat", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "llama9")
    for number in range(240):
        log(number, model=models[number % len(models)], client=f"10.1.0.{number % 7}", endpoint_id=None)
