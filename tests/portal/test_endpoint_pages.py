"""An endpoint's own page, its buttons, and the form that adds one."""

from __future__ import annotations

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from endpoints.models import Endpoint, EndpointHealth
from olla_site.portal.endpoint_actions import ASKS, WISHES
from tests.fakes import ScriptedBackend, json_reply, refused_origin
from tests.portal.fleet_rows import endpoint, load_now

pytestmark = pytest.mark.django_db
NASTY = '<script>alert(1)</script>"><img src=x onerror=1>'


def press(client, pk, name, **headers):
    return client.post(f"/fleet/{pk}/{name}/", headers={"HX-Request": "true", **headers})


def toast(response) -> str:
    return str(json.loads(response.headers["HX-Trigger"])["olla:toast"]["text"])


def test_it_shows_an_endpoint_to_a_viewer_without_buttons(viewer):
    row = endpoint("gpu-1", "llama3", status="offline", last_error="Connection refused.")
    load_now()

    text = viewer.get(f"/fleet/{row.pk}/").content.decode()

    assert "Connection refused." in text
    assert ">llama3</code>" in text
    assert "data-act" not in text
    assert "/admin/" not in text


def test_it_shows_buttons_to_an_operator_and_editing_to_an_administrator(operator, administrator):
    row = endpoint("gpu-1")
    load_now()

    for_operator = operator.get(f"/fleet/{row.pk}/").content.decode()

    assert 'data-act="drain"' in for_operator
    assert "/admin/endpoints/endpoint/" not in for_operator
    assert f"/admin/endpoints/endpoint/{row.pk}/change/" in administrator.get(f"/fleet/{row.pk}/").content.decode()


def test_it_knows_no_endpoint_that_is_gone(viewer):
    load_now()

    assert viewer.get("/fleet/99/").status_code == 404
    assert viewer.get("/fleet/99/history/").status_code == 404


def test_it_gives_the_history_for_the_charts(viewer):
    row = endpoint("gpu-1")
    load_now()

    found = viewer.get(f"/fleet/{row.pk}/history/").json()

    assert found["step"] == 5.0
    assert len(found["series"]["requests"]) == 180


def test_it_shows_hostile_names_inert(operator):
    row = endpoint(f"x{NASTY}"[:100], f"m{NASTY}", last_error=f"e{NASTY}", status="offline", tags="a")
    load_now()

    for address in ("/", f"/fleet/{row.pk}/", "/fleet/rows/"):
        text = operator.get(address).content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text


@pytest.mark.parametrize(
    ("columns", "said", "models"),
    [
        (
            {"models_error": "The model list is larger than 10 MiB."},
            "cannot be read: The model list is larger",
            (),
        ),
        ({"models_error": "HTTP 500."}, "HTTP 500. These are the models it had before.", ("m",)),
        ({"models_note": "Left out of the list: 1 repeated."}, "Left out of the list: 1 repeated.", ("m",)),
        ({}, "It lists none.", ()),
        ({"models_checked": None}, "None known. They are read when it is well.", ()),
    ],
)
def test_it_says_what_became_of_the_model_list(viewer, columns, said, models):
    row = endpoint("gpu-1", *models)
    EndpointHealth.objects.filter(pk=row.pk).update(**{"models_checked": timezone.now(), **columns})
    load_now()

    assert said in viewer.get(f"/fleet/{row.pk}/").content.decode()


def test_it_needs_as_many_queries_for_many_models_as_for_one(viewer):
    row = endpoint("gpu-1", "m")
    many = endpoint("gpu-2", *(f"model-{number}" for number in range(700)))
    load_now()
    counts = []
    for each in (row, many):
        with CaptureQueriesContext(connection) as queries:
            text = viewer.get(f"/fleet/{each.pk}/").content.decode()
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 8
    assert "and 200 more" in text


# ------------------------------------------------------------------------------------------------ buttons


@pytest.mark.parametrize("name", [*WISHES, *ASKS])
@pytest.mark.parametrize("group", ["Viewers", "Users", ""])
def test_it_lets_nobody_else_press_a_button(sign_in, client, group, name):
    row = endpoint("gpu-1")

    assert press(sign_in(group), row.pk, name).status_code == 403
    assert press(client, row.pk, name).status_code == 401
    assert Endpoint.objects.get().state == "active"


def test_it_lets_nobody_without_an_account_press_a_button_even_inside(client, settings):
    settings.OLLA_PORTAL_ANONYMOUS_NETWORKS = ("127.0.0.0/8",)
    row = endpoint("gpu-1")

    assert press(client, row.pk, "drain").status_code == 401


@pytest.mark.parametrize(
    ("name", "state"),
    [("drain", "draining"), ("drain-then-disable", "draining"), ("disable", "disabled")],
)
def test_it_sets_a_state_and_resumes(operator, name, state):
    row = endpoint("gpu-1")

    answer = press(operator, row.pk, name)

    assert answer.status_code == 204
    assert toast(answer).startswith("gpu-1: ")
    row.refresh_from_db()
    assert (row.state, row.drain_then_disable) == (state, name == "drain-then-disable")
    assert LogEntry.objects.get().change_message == f"State set to {state}."

    press(operator, row.pk, "resume")
    row.refresh_from_db()
    assert row.state == "active"


def test_it_says_when_there_is_nothing_to_do(operator):
    row = endpoint("gpu-1")

    assert toast(press(operator, row.pk, "resume")) == "gpu-1: already active."
    assert not LogEntry.objects.exists()


def test_it_goes_back_with_a_message_without_htmx(operator):
    row = endpoint("gpu-1")
    load_now()

    answer = operator.post(f"/fleet/{row.pk}/drain/", follow=True)

    assert answer.redirect_chain[-1][0] == f"/fleet/{row.pk}/"
    assert "draining: open requests finish" in answer.content.decode()


def test_it_notes_a_probe_for_the_prober_and_says_when_none_runs(operator):
    row = endpoint("gpu-1")
    version = EndpointHealth.objects.get().version

    assert "No prober is running" in toast(press(operator, row.pk, "probe"))
    assert EndpointHealth.objects.get().version == version + 1


def test_it_does_not_probe_what_is_disabled(operator):
    row = endpoint("gpu-1", state="disabled")

    assert "Resume it first" in toast(press(operator, row.pk, "probe"))


def test_it_knows_no_other_buttons(operator):
    row = endpoint("gpu-1")

    assert press(operator, row.pk, "explode").status_code == 404
    assert press(operator, 99, "drain").status_code == 404
    assert operator.get(f"/fleet/{row.pk}/drain/").status_code == 405


# ------------------------------------------------------------------------------------------------ adding

FORM = {"name": "new", "backend_type": "auto", "priority": "100", "auth_type": "none", "verify_tls": "on"}


@pytest.mark.parametrize("address", ["/fleet/add/", "/fleet/try/"])
@pytest.mark.parametrize("group", ["Viewers", "Users", "Operators"])
def test_it_lets_only_administrators_add(sign_in, group, address):
    assert sign_in(group).post(address, {**FORM, "url": "http://127.0.0.1:9"}).status_code == 403
    assert not Endpoint.objects.exists()


def test_it_adds_an_endpoint_and_has_it_probed(administrator):
    answer = administrator.post(
        "/fleet/add/", {**FORM, "url": "http://192.0.2.7:8000", "auth_type": "bearer", "auth_secret": "sk-tiger"}
    )

    made = Endpoint.objects.get()
    assert answer.headers["Location"] == f"/#endpoint-{made.pk}"
    assert (made.name, made.url, made.check_interval) == ("new", "http://192.0.2.7:8000", 5.0)
    assert made.auth_secret.reveal() == "sk-tiger"
    assert EndpointHealth.objects.filter(endpoint=made).exists()
    assert LogEntry.objects.get().change_message == "Added in the portal."


def test_it_refuses_what_the_admin_refuses_and_repeats_no_secret(administrator):
    answer = administrator.post(
        "/fleet/add/",
        {**FORM, "url": "http://u:hunter2@169.254.169.254", "auth_type": "bearer", "auth_secret": "sk-tiger"},
    )

    text = answer.content.decode()
    assert answer.status_code == 422
    assert "The URL holds credentials" in text
    assert "hunter2" not in text
    assert "sk-tiger" not in text
    assert not Endpoint.objects.exists()


@pytest.mark.django_db(transaction=True)
async def test_it_tries_an_address_and_stores_nothing(administrator):
    paths = {
        "/": json_reply("Ollama is running"),
        "/api/version": json_reply({"version": "0.12.0"}),
        "/api/tags": json_reply({"models": [{"name": "llama3:8b"}]}),
    }
    async with ScriptedBackend(paths) as backend:
        form = {**FORM, "url": backend.url, "auth_type": "bearer", "auth_secret": "sk-tiger"}
        answer = await sync_to_async(administrator.post)("/fleet/try/", form)

    text = answer.content.decode()
    assert "It answered in" in text
    assert 'data-use-type="ollama"' in text
    assert "llama3:8b" in text
    assert "sk-tiger" not in text
    assert any(b"sk-tiger" in each.raw for each in backend.requests)
    assert not await Endpoint.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_it_says_why_an_address_cannot_be_used(administrator):
    with refused_origin() as origin:
        form = {**FORM, "url": f"http://{origin.host}:{origin.port}", "backend_type": "ollama"}
        answer = await sync_to_async(administrator.post)("/fleet/try/", form)

    assert "It could not be reached" in answer.content.decode()


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://[fe80::1]/", "gopher://x"])
def test_it_asks_no_forbidden_address(administrator, url):
    answer = administrator.post("/fleet/try/", {**FORM, "url": url})

    assert "Not asked yet" in answer.content.decode()


def test_it_stops_somebody_who_tries_all_the_time(administrator):
    # The window is a minute of the clock, which may end on the way: then as many again are let through.
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) <= 60:
        statuses.append(administrator.post("/fleet/try/", {}).status_code)

    assert statuses[-1] == 429
    assert set(statuses[:30]) == {200}
