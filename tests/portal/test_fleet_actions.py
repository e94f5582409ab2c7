"""Buttons over several endpoints: states at once; probes and readings of models with progress and a way back."""

from __future__ import annotations

import html
import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from endpoints.models import Endpoint, EndpointHealth
from endpoints.operations import Ask, ask_prober, read_plans
from olla_site.portal import fleet_work
from olla_site.portal.endpoint_actions import ASKS, WISHES
from olla_site.portal.fleet_work import (
    KEPT_SECONDS,
    MOST_WORKS,
    PATIENCE,
    Work,
    WorkDesk,
    cancel,
    desk,
    look,
    tell,
)
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def fleet(size: int = 4) -> list[int]:
    lease(600)
    return [endpoint(f"gpu-{number}", "llama3", f"own-{number}").pk for number in range(size)]


def press(client, name: str, *ids: Any) -> Any:
    return client.post(f"/fleet/bulk/{name}/", {"endpoint": [str(each) for each in ids]}, headers=HTMX)


def toast(response) -> str:
    return str(json.loads(response.headers["HX-Trigger"])["olla:toast"]["text"])


def words(response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.content.decode())).split())


def address(response) -> str:
    found = re.search(r"/fleet/work/[^/]+/", response.content.decode())
    assert found, response.content
    return found[0]


def probed(*ids: int, **values: Any) -> None:
    """What the prober writes."""
    EndpointHealth.objects.filter(pk__in=ids).update(last_checked=timezone.now(), **values)


def read(*ids: int, **values: Any) -> None:
    later = timezone.now() + timedelta(minutes=5)
    EndpointHealth.objects.filter(pk__in=ids).update(next_discovery=later, **values)


# ------------------------------------------------------------------------------------------------ states


@pytest.mark.parametrize("name", [*WISHES, *ASKS])
def test_it_lets_nobody_else_press(sign_in, client, name):
    ids = fleet(2)

    assert press(sign_in("Users"), name, *ids).status_code == 403
    assert press(client, name, *ids).status_code == 401
    assert set(Endpoint.objects.values_list("state", flat=True)) == {"active"}


def test_it_changes_the_chosen_ones_and_no_others(operator):
    ids = fleet(4)

    said = toast(press(operator, "drain", *ids[:3]))

    assert said == "gpu-0, gpu-1, gpu-2: draining: open requests finish, new ones go elsewhere."
    assert list(Endpoint.objects.order_by("name").values_list("state", flat=True)) == ["draining"] * 3 + ["active"]
    assert LogEntry.objects.count() == 3
    assert toast(press(operator, "drain", *ids)).endswith("go elsewhere. 3 were already.")
    assert toast(press(operator, "drain", *ids)) == "Nothing to do: already draining."


def test_it_costs_the_same_for_many(operator):
    ids = fleet(40)
    ContentType.objects.get_for_model(Endpoint)  # remembered by the process, as after the first change of any
    counts = []
    for chosen in (ids[:1], ids[1:]):
        with CaptureQueriesContext(connection) as queries:
            press(operator, "drain-then-disable", *chosen)
            press(operator, "resume", *chosen)
        counts.append(len(queries))

    assert counts[0] == counts[1]


@pytest.mark.parametrize("ids", [[], ["x"], ["9" * 40], ["-1", "1.5", "\u0663", ""], [2**62]])
def test_it_asks_to_choose_when_nothing_is_chosen(operator, ids):
    fleet(1)

    assert toast(press(operator, "disable", *ids)) == "Choose endpoints first."


def test_it_knows_no_other_button_and_no_reading(operator):
    ids = fleet(1)

    assert press(operator, "explode", *ids).status_code == 404
    assert operator.get("/fleet/bulk/drain/").status_code == 405


def test_it_goes_back_to_the_fleet_without_htmx(operator):
    ids = fleet(2)
    load_now()

    answer = operator.post("/fleet/bulk/disable/", {"endpoint": ids}, follow=True)

    assert answer.redirect_chain[-1][0] == "/"
    assert "gpu-0, gpu-1: disabled" in answer.content.decode()


# ------------------------------------------------------------------------------------------------ work


def test_it_shows_how_far_a_probe_of_many_is(operator):
    ids = fleet(4)
    first = press(operator, "probe", *ids)
    work = address(first)
    assert words(first).startswith("Probing: 0 of 4")

    probed(*ids[:3])
    assert words(operator.get(work, headers=HTMX)).startswith("Probing: 3 of 4")
    assert 'value="3"' in operator.get(work).content.decode()  # without htmx, a page

    probed(ids[3], status="offline")
    over = operator.get(work, headers=HTMX)
    assert words(over).startswith("Probed. 3 endpoints well; 1 not: gpu-3.")
    assert "hx-get" not in over.content.decode()


def test_it_reads_the_models_of_many_and_says_who_is_left_out(operator):
    ids = fleet(4)
    Endpoint.objects.filter(pk=ids[0]).update(state="disabled")
    probed(ids[1], status="offline")
    first = press(operator, "discover", *ids)

    assert words(first).startswith("Reading models: 0 of 2")
    assert "disabled endpoints are not probed: gpu-0." in words(first)
    assert "their models are read later: gpu-1." in words(first)

    read(ids[2])
    read(ids[3], models_error="It answered HTTP 404.")
    said = words(operator.get(address(first), headers=HTMX))
    assert "1 endpoint told 2 models in all; 1 could not be read: gpu-3." in said


def test_it_takes_back_what_is_not_done_yet(operator):
    ids = fleet(3)
    plans = dict(EndpointHealth.objects.values_list("pk", "next_check"))
    versions = dict(EndpointHealth.objects.values_list("pk", "version"))
    work = address(press(operator, "probe", *ids))
    assert not EndpointHealth.objects.filter(next_check__in=plans.values()).exists()
    asked = EndpointHealth.objects.get(pk=ids[0]).next_check
    probed(ids[0], next_check=plans[ids[0]])
    # One the prober planned anew meanwhile keeps its plan.
    EndpointHealth.objects.filter(pk=ids[1]).update(next_check=asked + timedelta(seconds=9))

    stopped = operator.post(f"{work}stop/", headers=HTMX)

    assert words(stopped).startswith("Stopped after 1 of 3. 1 endpoint well.")
    rows = {row.pk: row for row in EndpointHealth.objects.all()}
    assert rows[ids[1]].next_check == asked + timedelta(seconds=9)
    assert rows[ids[2]].next_check == plans[ids[2]]
    assert rows[ids[2]].version == versions[ids[2]] + 2
    assert words(operator.get(work, headers=HTMX)).startswith("Stopped after 1 of 3.")


def test_it_is_over_only_with_the_words_of_what_came_of_it(monkeypatch):
    """The page asks twice a second in other threads; an answer that is over is the last one it asks for."""
    ids = fleet(2)
    plans = read_plans(ids, Ask.PROBE)
    work = Work(1, Ask.PROBE, dict.fromkeys(ids, "gpu"), plans, ask_prober(ids, (Ask.PROBE,)), ())
    probed(ids[0])
    seen = []

    def tell_and_look(asked):
        seen.append(asked.is_over)
        return tell(asked)

    monkeypatch.setattr(fleet_work, "tell", tell_and_look)
    cancel(work, time.monotonic())
    assert seen == [False]
    assert work.is_over
    assert work.told == ("1 endpoint well.",)


def test_it_waits_for_nobody_for_ever(operator):
    ids = fleet(2)
    work = desk.find(address(press(operator, "probe", *ids)).split("/")[3], int(operator.session["_auth_user_id"]))
    assert work is not None

    look(work, time.monotonic() + PATIENCE / 2)
    assert not work.is_over
    probed(ids[0])
    look(work, time.monotonic() + PATIENCE / 2)
    look(work, time.monotonic() + PATIENCE * 2)

    assert work.silent
    assert work.told == ("1 endpoint well.",)


def test_it_ends_when_endpoints_are_deleted_meanwhile(operator):
    ids = fleet(2)
    work = address(press(operator, "probe", *ids))
    Endpoint.objects.all().delete()

    assert words(operator.get(work, headers=HTMX)).startswith("Probed.")


def test_it_says_when_no_prober_runs(operator):
    row = endpoint("gpu-1")
    before = EndpointHealth.objects.get().version

    assert "No prober is running" in toast(press(operator, "probe", row.pk))
    assert EndpointHealth.objects.get().version == before + 1


def test_it_shows_a_work_to_its_owner_alone(operator, administrator):
    work = address(press(operator, "probe", *fleet(2)))

    assert administrator.get(work).status_code == 404
    assert administrator.post(f"{work}stop/").status_code == 404
    gone = administrator.get(work, headers=HTMX)
    assert "restarted" in words(gone)
    assert "hx-get" not in gone.content.decode()


def test_it_forgets_old_works_and_keeps_few():
    mine = WorkDesk()
    endpoint("gpu-1")
    rows = list(Endpoint.objects.all())
    works = [mine.start(1, Ask.PROBE, rows, ()) for _ in range(MOST_WORKS + 1)]

    assert mine.find(works[0].key, 1) is None
    assert mine.find(works[-1].key, 1) is works[-1]
    works[-1].made -= KEPT_SECONDS + 1
    assert mine.find(works[-1].key, 1) is None


def test_it_shows_hostile_names_inert(operator):
    evil = "<script>alert(1)</script>"
    lease(600)
    row = endpoint(evil, status="healthy")
    work = address(press(operator, "probe", row.pk))
    probed(row.pk, status="offline")

    text = operator.get(work, headers=HTMX).content.decode()

    assert evil not in text
    assert evil in html.unescape(text)


def test_it_offers_no_choice_to_who_may_only_look(viewer, operator):
    fleet(1)
    load_now()

    assert 'class="pick"' not in viewer.get("/").content.decode()
    assert 'class="pick"' in operator.get("/").content.decode()
