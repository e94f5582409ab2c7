"""The list of endpoints: live status, search, filters, actions, who may do what."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from endpoints.admin import EndpointAdmin
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ProberLease
from tests.endpoints.desk import LIST, edit_address, make_endpoint

pytestmark = pytest.mark.django_db


def health(row, **values) -> EndpointHealth:
    now = timezone.now()
    values = {"status": "healthy", "last_checked": now, "next_check": now + timedelta(seconds=5), **values}
    return EndpointHealth.objects.update_or_create(endpoint=row, defaults=values)[0]


def lease(seconds: float = 10) -> ProberLease:
    now = timezone.now()
    return ProberLease.objects.create(
        pk=1, holder="test", renewed_at=now, expires_at=now + timedelta(seconds=seconds)
    )


def listing(client, **query) -> str:
    response = client.get(reverse(LIST), query)
    assert response.status_code == 200
    return str(response.content.decode())


def names(client, **query) -> set[str]:
    response = client.get(reverse(LIST), query)
    return {row.name for row in response.context["cl"].result_list}


def act(client, action, *rows):
    return client.post(
        reverse(LIST), {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True
    )


def said(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_it_shows_what_the_prober_found(admin_client):
    lease()
    row = make_endpoint(backend_type="auto")
    health(row, status="busy", latency_ms=12.4, detected_type="vllm", last_error="")
    DiscoveredModel.objects.create(endpoint=row, name="llama3")

    page = listing(admin_client)

    for part in ("olla-warn", ">busy<", "12 ms", "vLLM (detected)", f"endpoint__id__exact={row.pk}"):
        assert part in page


def test_it_shows_the_last_error(admin_client):
    lease()
    health(make_endpoint(), status="offline", last_error="Connection refused <b>")

    page = listing(admin_client)

    assert "Connection refused &lt;b&gt;" in page
    assert "olla-bad" in page


def test_it_shows_an_operator_state_beside_the_status(admin_client):
    lease()
    health(make_endpoint(state="draining"))

    page = listing(admin_client)

    assert ">healthy<" in page
    assert ">draining<" in page


def test_it_marks_a_status_stale_when_no_prober_renews_it(admin_client):
    long_ago = timezone.now() - timedelta(minutes=5)
    health(make_endpoint(), last_checked=long_ago, next_check=long_ago)

    page = listing(admin_client)

    assert ">stale<" in page
    assert "No prober is running" in page


def test_it_does_not_call_a_backed_off_endpoint_stale(admin_client):
    lease()
    health(make_endpoint(), status="healthy", next_check=timezone.now() + timedelta(minutes=1))

    page = listing(admin_client)

    assert ">stale<" not in page
    assert "No prober is running" not in page


def test_it_shows_an_endpoint_without_a_health_row(admin_client):
    make_endpoint()

    assert "Not probed yet." in listing(admin_client)


def test_it_says_which_variable_is_missing(admin_client, monkeypatch):
    monkeypatch.delenv("UNSET_TOKEN", raising=False)
    make_endpoint(auth_type="bearer", auth_secret="${UNSET_TOKEN}")

    assert "The environment variable UNSET_TOKEN is not set." in listing(admin_client)


def test_it_needs_few_queries_however_many_endpoints(admin_client):
    for number in range(30):
        row = make_endpoint(name=f"gpu-{number}", auth_type="bearer", auth_secret="x")
        health(row)
        DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=row, name=f"m{i}") for i in range(5))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        listing(admin_client)

    assert len(queries) <= 10


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("gpu", {"gpu-100%", "gpu_1"}),
        ("%", {"gpu-100%"}),
        ("_", {"gpu_1"}),
        ("10.0.0.7", {"gpu_1"}),
        ("nothing", set()),
    ],
)
def test_it_searches_literally(admin_client, typed, found):
    make_endpoint(name="gpu-100%")
    make_endpoint(name="gpu_1", url="http://10.0.0.7")

    assert names(admin_client, q=typed) == found


def test_it_filters_by_status_state_and_type(admin_client):
    health(make_endpoint(name="up"), status="healthy")
    health(make_endpoint(name="down", backend_type="vllm", state="disabled"), status="offline")

    assert names(admin_client, health__status__exact="offline") == {"down"}
    assert names(admin_client, state__exact="active") == {"up"}
    assert names(admin_client, backend_type__exact="vllm") == {"down"}


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [("drain", "active", "draining"), ("resume", "draining", "active"), ("disable", "active", "disabled")],
)
def test_it_changes_operator_states(admin_client, action, before, after):
    row = make_endpoint(state=before)

    page = act(admin_client, action, row)

    assert Endpoint.objects.get().state == after
    assert said(page) == [f"gpu-1: now {after}."]
    assert (
        f"State set to {after}."
        in admin_client.get(reverse("admin:endpoints_endpoint_history", args=[row.pk])).content.decode()
    )


def test_it_says_when_there_is_nothing_to_change(admin_client):
    assert said(act(admin_client, "drain", make_endpoint(state="draining"))) == [
        "Nothing to do: already draining."
    ]


def test_it_probes_a_resumed_endpoint_at_once(admin_client):
    row = make_endpoint(state="disabled")
    health(row, next_check=timezone.now() + timedelta(hours=1))

    act(admin_client, "resume", row)

    assert EndpointHealth.objects.get().next_check <= timezone.now()


def test_it_says_that_no_prober_is_alive(admin_client):
    row = make_endpoint()
    lease(seconds=-1)

    page = act(admin_client, "probe_now", row)

    assert "No prober is running, so nothing was probed" in said(page)[0]
    assert EndpointHealth.objects.get().next_check <= timezone.now()


def test_it_does_not_probe_a_disabled_endpoint(admin_client):
    lease()

    page = act(admin_client, "probe_now", make_endpoint(state="disabled"))

    assert said(page) == ["gpu-1: disabled, so not probed. Resume first."]


def test_it_says_when_no_result_comes(admin_client):
    lease()
    EndpointAdmin.wait_seconds, kept = 0.3, EndpointAdmin.wait_seconds
    try:
        page = act(admin_client, "probe_now", make_endpoint())
    finally:
        EndpointAdmin.wait_seconds = kept

    assert said(page) == ["gpu-1: no result after 0.3 s; it will show in the list."]


def play_prober(stop: threading.Event, **result) -> None:
    """Answer requests for a probe as the prober does: due rows get a result and a later plan."""
    try:
        while not stop.wait(0.02):
            for row in EndpointHealth.objects.filter(next_check__lte=timezone.now()):
                now = timezone.now()
                later = {"next_check": now + timedelta(hours=1), "next_discovery": now + timedelta(hours=1)}
                EndpointHealth.objects.filter(pk=row.pk, version=row.version).update(
                    version=row.version + 1, last_checked=now, **later, **result
                )
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"status": "healthy", "latency_ms": 7.0, "last_error": ""}, "gpu-1: healthy, 7 ms."),
        ({"status": "offline", "last_error": "Connection refused."}, "gpu-1: offline. Connection refused."),
    ],
)
def test_it_tells_the_result_of_a_probe(admin_client, result, text):
    lease()
    row = make_endpoint()
    health(row, next_check=timezone.now() + timedelta(hours=1), last_checked=timezone.now() - timedelta(hours=1))
    stop = threading.Event()
    prober = threading.Thread(target=play_prober, args=(stop,), kwargs=result)
    prober.start()
    try:
        page = act(admin_client, "probe_now", row)
    finally:
        stop.set()
        prober.join()

    assert said(page) == [text]


def staff(django_user_model, *codenames):
    user = django_user_model.objects.create_user("someone", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def test_it_offers_actions_only_to_who_may_change(client, django_user_model):
    row = make_endpoint()
    client.force_login(staff(django_user_model, "view_endpoint"))

    assert 'value="drain"' not in listing(client)
    act(client, "drain", row)
    assert Endpoint.objects.get().state == "active"


def test_it_offers_actions_to_who_may_change(client, django_user_model):
    row = make_endpoint()
    client.force_login(staff(django_user_model, "view_endpoint", "change_endpoint"))

    act(client, "drain", row)

    assert Endpoint.objects.get().state == "draining"


def test_it_deletes_an_endpoint_with_its_machine_rows(client, django_user_model):
    row = make_endpoint()
    health(row)
    DiscoveredModel.objects.create(endpoint=row, name="llama3")
    client.force_login(staff(django_user_model, "view_endpoint", "delete_endpoint"))

    client.post(reverse("admin:endpoints_endpoint_delete", args=[row.pk]), {"post": "yes"})

    assert not Endpoint.objects.exists()
    assert not DiscoveredModel.objects.exists()


def test_it_lets_nobody_edit_discovered_models(admin_client):
    model = DiscoveredModel.objects.create(endpoint=make_endpoint(), name="llama3")
    change = reverse("admin:endpoints_discoveredmodel_change", args=[model.pk])

    assert "llama3" in admin_client.get(reverse("admin:endpoints_discoveredmodel_changelist")).content.decode()
    assert admin_client.get(reverse("admin:endpoints_discoveredmodel_add")).status_code == 403
    assert admin_client.post(change, {"name": "x"}).status_code == 403
    assert admin_client.post(change.replace("change", "delete"), {"post": "yes"}).status_code == 403


def test_it_shows_health_and_models_on_the_endpoints_page(admin_client):
    row = make_endpoint()
    health(row, latency_ms=3.0, models_error="The model list is no JSON.", consecutive_failures=4)
    DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=row, name=f"model-{i:03}") for i in range(70))

    page = admin_client.get(edit_address(row)).content.decode()

    assert "model-059" in page
    assert "model-060" not in page
    assert "All models" in page
    assert "The model list is no JSON." in page


def test_it_does_not_take_machine_columns_from_a_form(admin_client):
    from tests.endpoints.desk import form_data

    row = make_endpoint()
    health(row, status="offline")

    admin_client.post(edit_address(row), form_data(row, status="healthy", live="healthy", health="x"))

    assert EndpointHealth.objects.get().status == "offline"
