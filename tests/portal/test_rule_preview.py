"""The preview of a change of the rules: what it says is what then happens, and nothing is stored by it."""

from __future__ import annotations

import html
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from msgspec.structs import replace

from endpoints import loading
from endpoints.conf import conf
from endpoints.models import ModelAlias, Revision, RuleCondition
from olla_site.portal import preview_jobs
from olla_site.portal.preview_jobs import Job, PreviewDesk, State
from olla_site.portal.preview_making import make_job, read_log
from olla_site.portal.rule_changes import Change, Step, read_rows
from proxy.explain_views import Question, build_asked
from proxy.live import live, plan
from proxy.models import RequestLog
from proxy.rehearsal import explain
from proxy.rerouting import Defaults, Fate, build_logged, reroute, throw_dice
from proxy.routing import Refresh
from tests.endpoints.rule_desk import FILLED, LLAMA, conditions, make_rule, row_of, staff
from tests.portal.fleet_rows import endpoint, lease, load_now
from tests.portal.test_requests_page import log

pytestmark = pytest.mark.django_db
SEED = 20261122
PATHS = ("v1/chat/completions", "v1/embeddings", "api/chat", "v1/models/x y%2Fz")
MODELS = ("llama3", "llama3:8b", "qwen3", "fast", "nothing", "")


@pytest.fixture(autouse=True)
def quiet_process() -> Iterator[None]:
    live.reset()
    yield
    live.reset()


def fleet() -> None:
    lease(600)
    endpoint("big", "llama3", "llama3:8b", "qwen3", tags="gpu")
    endpoint("small", "llama3", "qwen3", tags="cpu, spare", priority=50)
    endpoint("third", "qwen3", tags="spare", backend_type="vllm")
    endpoint("down", "llama3", status="offline")
    ModelAlias.objects.create(name="fast", targets="llama3:8b\nqwen3")
    load_now()


def history(size: int) -> None:
    """Requests of many sorts."""
    dice = random.Random(SEED)
    for number in range(size):
        provider = dice.choice(["proxy", "openai", "ollama", "anthropic", "vllm"])
        path = "v1/messages" if provider == "anthropic" else dice.choice(PATHS)
        log(
            number,
            provider=provider,
            path=f"/olla/{provider}/{path}",
            model=dice.choice(MODELS),
            client=dice.choice(["10.1.0.5", "192.0.2.7"]),
        )


def shows(client, response: Any) -> str:
    """The page a preview led to, once it is over."""
    assert response.status_code == 302, response.content
    key = response.headers["Location"].rstrip("/").rsplit("/", 1)[1]
    assert preview_jobs.desk._jobs[key].ended.wait(20)
    return html.unescape(client.get(response.headers["Location"]).content.decode())


def counts(text: str) -> dict[str, int]:
    return {kind: int(number) for kind, number in re.findall(r'data-kind="(\w+)">(\d+)', text)}


def finish(change: Change, size: int = 1000) -> Job:
    """A job worked off in this thread."""
    job = make_job(1, change, live.view(), size)
    job.state = preview_jobs.run(job)
    return job


def fates(view: Any) -> dict[int, Fate]:
    """What becomes of each logged request by the stored rules."""
    load_now()
    snapshot = loading.current()
    defaults = Defaults(plan(), plan(Refresh.DONE), conf().load_balancer)
    found = {}
    for each in read_log(5000):
        inbound = build_logged(each)
        assert inbound is not None
        found[each.key] = reroute(snapshot, inbound, replace(view, dice=throw_dice(each.key)), defaults)
    return found


RULES: dict[str, dict[str, Any]] = {
    "restrict": {"action": "restrict", "tags": "spare"},
    "nobody": {"action": "restrict", "tags": "nowhere"},
    "prefer": {"action": "prefer", "tags": "cpu"},
    "rewrite": {"action": "rewrite_model", "model": "qwen3"},
    "policy": {"action": "policy", "policy": "round-robin"},
    "optimistic": {"action": "strategy", "strategy": "optimistic", "fallback": "all"},
    "discovery": {"action": "strategy", "strategy": "discovery", "fallback": "none"},
    "split": {"action": "split", "tags": "gpu", "percentage": 40},
    "reject": {"action": "reject", "message": "Not today."},
}
WHEN: dict[str, list[dict[str, Any]]] = {
    "always": [],
    "llama": [LLAMA],
    "network": [{"field": "client_network", "operator": "is", "value": "10.1.0.0/16", "header": ""}],
    "not openai": [{"field": "prefix", "operator": "is_not", "value": "openai", "header": ""}],
    "embeddings": [{"field": "capability", "operator": "is", "value": "embeddings", "header": ""}],
}


@pytest.mark.parametrize("what", RULES)
@pytest.mark.parametrize("step", ["add", "disable", "enable", "delete", "up"])
def test_it_foretells_what_then_happens(administrator, what, step):
    fleet()
    history(60)
    dice = random.Random(f"{what}{step}")
    when = dice.choice(list(WHEN.values()))
    other = make_rule(LLAMA, name="other", order=20, action="prefer", tags="spare", message="")
    fields = {"message": "", **RULES[what]}
    view = live.view()
    if step == "add":
        before = fates(view)
        data = {"name": "new", "order": "5", "enabled": "on", **fields, **conditions(*when)}
        said = shows(administrator, administrator.post("/rules/preview/form/", data))
        assert administrator.post("/admin/endpoints/routingrule/add/", data).status_code == 302
        job = None
    else:
        rule = make_rule(*when, name="new", order=30, enabled=step != "enable", **fields)
        before = fates(view)
        job = finish(Change(Step(step), rule.pk, other.pk))
        past = {"past": other.pk}
        said = shows(administrator, administrator.post("/rules/preview/", {"step": step, "rule": rule.pk, **past}))
        administrator.post(f"/rules/{rule.pk}/{step}/", past)
    after = fates(view)

    changed = {key for key in before if before[key] != after[key]}
    assert sum(counts(said).values()) == 60
    assert sum(number for kind, number in counts(said).items() if kind != "same") == len(changed)
    assert counts(said)["refused"] == sum(bool(before[k].tiers) and not after[k].tiers for k in before)
    assert counts(said)["answered"] == sum(bool(after[k].tiers) and not before[k].tiers for k in before)
    for group in job.comparison.ordered() if job else ():
        for each in group.examples:
            assert (group.before, group.after) == (before[each.key], after[each.key])


def test_it_judges_as_the_live_router_does():
    fleet()
    history(40)
    make_rule(LLAMA, name="r", action="restrict", tags="gpu", message="")
    compared = 0
    for row in RequestLog.objects.filter(provider__in=["proxy", "openai"]):
        told = explain(build_asked(Question(row.path, row.method, row.model or None, client=row.client)))
        if told["stage"] != "routing":
            continue  # a body without model never comes to be routed
        load_now()
        told = explain(build_asked(Question(row.path, row.method, row.model or None, client=row.client)))
        fate = fates(live.view())[row.pk]
        assert {each["endpoint"] for each in told["tries"]} == fate.endpoints
        compared += 1
    assert compared > 5


def test_it_stores_nothing(administrator):
    fleet()
    history(5)
    rule = make_rule(LLAMA, name="r1", order=10)
    condition = RuleCondition.objects.get()

    def stored() -> Any:
        rows = [(each.name, each.order, each.enabled, each.action, each.message) for each in read_rows()]
        return rows, list(RuleCondition.objects.values()), Revision.objects.get().number, LogEntry.objects.count()

    before = stored()
    row = row_of(condition, value="qwen*")
    changed = {**FILLED, "action": "restrict", "tags": "gpu", "message": "", "name": "r2", "order": "3"}
    said = shows(
        administrator, administrator.post(f"/rules/preview/form/{rule.pk}/", changed | conditions(row, initial=1))
    )
    for step in ("disable", "delete"):
        shows(administrator, administrator.post("/rules/preview/", {"step": step, "rule": rule.pk}))

    assert "when model matches qwen*: only endpoints tagged gpu" in said
    assert "when model matches llama*: refuse: No." in said
    assert stored() == before


def test_it_tells_what_is_wrong_with_a_form(administrator):
    data = {**FILLED, "name": "", "action": "split", **conditions({**LLAMA, "value": "[", "operator": "glob"})}
    response = administrator.post("/rules/preview/form/", data)
    text = html.unescape(response.content.decode())

    assert response.status_code == 422
    assert "Name: This field is required." in text
    assert "Percentage: This action needs a value here." in text
    assert "Condition 1, Value: [: every [ needs its ]" in text
    assert administrator.post("/rules/preview/form/", {}).status_code == 422
    assert administrator.post("/rules/preview/form/999/", data).status_code == 404
    assert administrator.post("/rules/preview/", {"step": "explode", "rule": "1"}).status_code == 404
    assert administrator.post("/rules/preview/", {"step": "delete", "rule": "9" * 30}).status_code == 409


def test_it_takes_a_form_of_those_alone_who_may_save_it(sign_in):
    group = Group.objects.get(name="Administrators")
    client = sign_in("Administrators")
    group.permissions.remove(Permission.objects.get(codename="add_routingrule"))

    assert client.post("/rules/preview/form/", FILLED | conditions()).status_code == 403


def test_it_offers_a_preview_in_the_form_after_saving(administrator, django_user_model):
    rule = make_rule(LLAMA, name="r")
    page = administrator.get(f"/admin/endpoints/routingrule/{rule.pk}/change/").content.decode()
    clerk = staff(django_user_model, "change_routingrule")
    administrator.force_login(clerk)
    other = administrator.get(f"/admin/endpoints/routingrule/{rule.pk}/change/").content.decode()

    # The Enter key presses the first button.
    assert 0 < page.index('name="_save"') < page.index(f'formaction="/rules/preview/form/{rule.pk}/"')
    assert "/rules/preview/" not in other


def test_it_says_when_there_is_no_log(administrator):
    fleet()
    rule = make_rule(LLAMA, name="r")

    said = shows(administrator, administrator.post("/rules/preview/", {"step": "disable", "rule": rule.pk}))

    assert "The request log is empty" in said


def test_it_says_what_the_log_does_not_hold(administrator):
    fleet()
    log(1)
    log(2, model="qwen3")
    log(3, outcome="rejected", error_code="rate_limited", status=429)
    log(4, model="x" * 200)
    make_rule(
        LLAMA, {"field": "header", "operator": "is", "value": "blue", "header": "X-Team"}, name="blue", order=1
    )
    rule = make_rule(LLAMA, name="r", order=2)

    said = re.sub(
        r"<[^>]*>",
        "",
        shows(administrator, administrator.post("/rules/preview/", {"step": "disable", "rule": rule.pk})),
    )

    assert "The rule blue looks at headers" in said
    assert "for 1 of 2 that decides which rule applies" in said
    assert "1 left out: refused before any rule is asked" in said
    assert "1 left out: the log has too little" in said
    assert "1 of 2 requests would fare differently" in said


@pytest.mark.parametrize(("value", "uncertain"), [("vision", 1), ("embeddings", 0), ("embed*", 0), ("*", 1)])
def test_it_knows_of_abilities_what_the_path_tells(value, uncertain):
    fleet()
    log(1)
    log(2, path="/olla/openai/v1/embeddings")
    rule = make_rule({"field": "capability", "operator": "glob", "value": value, "header": ""}, name="r")

    assert finish(Change(Step.DISABLE, rule.pk)).comparison.uncertain == uncertain


def test_it_shares_out_as_the_percentage_says():
    fleet()
    history(400)
    rule = make_rule(name="r", action="split", tags="spare", percentage=25, message="", enabled=False)
    RequestLog.objects.update(model="llama3", provider="openai", path="/olla/openai/v1/chat/completions")

    job = finish(Change(Step.ENABLE, rule.pk))

    moved = {group.after.tiers[0]: group.count for group in job.comparison.ordered()}
    assert 60 <= moved["small",] <= 140
    assert sum(moved.values()) == 400


def test_it_shows_progress_and_can_be_stopped(administrator):
    fleet()
    history(3)
    rule = make_rule(LLAMA, name="r")
    owner = int(administrator.session["_auth_user_id"])
    job = make_job(owner, Change(Step.DISABLE, rule.pk), live.view(), 100)
    job.state, job.done, key = State.RUNNING, 1, job.key
    preview_jobs.desk._jobs[key] = job  # as one the worker is at
    job.ended.set()

    text = administrator.get(f"/rules/preview/{key}/", headers={"HX-Request": "true"}).content.decode()
    assert 'hx-trigger="load delay:150ms, every 500ms"' in text
    assert "Judging requests: 1 of 3" in text
    assert "<html" not in text
    administrator.post(f"/rules/preview/{key}/cancel/")
    job.state = preview_jobs.run(job)
    stopped = administrator.get(f"/rules/preview/{key}/", headers={"HX-Request": "true"}).content.decode()
    assert (job.state, job.done) == (State.CANCELLED, 1)
    assert "Stopped after 1 of 3 requests" in stopped
    assert "hx-trigger" not in stopped


def test_it_stops_an_earlier_preview_of_the_same_person_and_forgets_old_ones():
    fleet()
    rule = make_rule(LLAMA, name="r")
    desk = PreviewDesk()
    first, other, second = (
        desk.start(make_job(owner, Change(Step.DISABLE, rule.pk), live.view(), 100)) for owner in (1, 2, 1)
    )

    assert (first.stop.is_set(), other.stop.is_set(), second.stop.is_set()) == (True, False, False)
    assert desk.find(second.key, 1) is second
    assert desk.find(second.key, 2) is None
    for owner in range(10, 10 + preview_jobs.MOST_JOBS):
        desk.start(make_job(owner, Change(Step.DISABLE, rule.pk), live.view(), 100))
    assert len(desk._jobs) == preview_jobs.MOST_JOBS
    assert desk.find(second.key, 1) is None
    for each in desk._jobs.values():
        each.made -= preview_jobs.KEPT_SECONDS + 1
    assert desk.find(next(iter(desk._jobs)), 10) is None
    assert not desk._jobs


def test_it_shows_a_preview_to_its_owner_alone(administrator, sign_in, django_user_model):
    fleet()
    rule = make_rule(LLAMA, name="r")
    response = administrator.post("/rules/preview/", {"step": "disable", "rule": rule.pk})
    boss = django_user_model.objects.create_superuser("boss")
    administrator.force_login(boss)

    assert administrator.get(response.headers["Location"]).status_code == 404
    assert administrator.post(f"{response.headers['Location']}again/", {"size": "100"}).status_code == 404
    assert "not kept any more" in administrator.get("/rules/preview/none/").content.decode()


def test_it_judges_as_many_as_are_asked_for(administrator):
    fleet()
    history(120)
    rule = make_rule(LLAMA, name="r")
    first = administrator.post("/rules/preview/", {"step": "disable", "rule": rule.pk, "size": "100"})
    assert "100 requests, the oldest from" in shows(administrator, first)

    second = administrator.post(f"{first.headers['Location']}again/", {"size": "5000"})

    assert "120 requests, the oldest from" in shows(administrator, second)


def test_it_shows_hostile_requests_as_text(administrator):
    evil = "<script>alert(1)</script>"
    fleet()
    log(1, model=evil, client=evil, path=f"/olla/openai/v1/{evil}")
    log(2, model="", path=f"/olla/openai/{evil * 30}")
    rule = make_rule(name=evil, message=evil)

    response = administrator.post("/rules/preview/", {"step": "disable", "rule": rule.pk})
    shows(administrator, response)

    assert "<script>alert" not in administrator.get(response.headers["Location"]).content.decode()


def test_it_leaves_the_interpreter_to_others(long_form):
    fleet()
    history(100)
    rule = make_rule(LLAMA, name="r")
    job = make_job(1, Change(Step.DISABLE, rule.pk), live.view(), 5000)
    job.logged = list(job.logged) * (50 if long_form else 10)
    job.total = len(job.logged)
    desk, turns = PreviewDesk(), 0
    desk.start(job)
    while not job.is_over:
        time.sleep(0.001)
        turns += 1

    assert (job.state, job.done) == (State.DONE, job.total)
    assert turns > 10  # one or two if the job kept the interpreter to itself
