"""Operator states: windows, draining until disabled, and what the desk offers for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.messages import get_messages
from django.urls import reverse
from django.utils import timezone

from endpoints import records
from endpoints.drains import QUIET_SECONDS, settle_drains
from endpoints.health import OperatorState, state_now
from endpoints.in_flight import in_flight_of, provide_in_flight
from endpoints.models import Endpoint, EndpointHealth, Revision
from endpoints.operations import set_state
from proxy.live import live
from tests.endpoints.desk import LIST, add, edit_address, error_texts, form_data, make_endpoint

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def split(field: str, moment: datetime) -> dict[str, str]:
    return {f"{field}_0": moment.strftime("%Y-%m-%d"), f"{field}_1": moment.strftime("%H:%M:%S")}


def said(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)] or [
        str(message) for message in response.context["messages"]
    ]


def act(client, action, *rows):
    return client.post(
        reverse(LIST), {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True
    )


def age(row: Endpoint, seconds: float) -> None:
    """Make the last edit of a row older."""
    Endpoint.objects.filter(pk=row.pk).update(updated_at=timezone.now() - timedelta(seconds=seconds))


# ----------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("now", "state"), [(99, "active"), (100, "maintenance"), (199.9, "maintenance"), (200, "active")]
)
def test_it_keeps_a_window_from_begin_to_before_end(now, state):
    assert state_now(OperatorState.ACTIVE, (100, 200), now) == state


@pytest.mark.parametrize("state", [state for state in OperatorState if state is not OperatorState.ACTIVE])
def test_it_lets_a_window_change_active_endpoints_only(state):
    assert state_now(state, (100, 200), 150) is state


@pytest.mark.parametrize(("begin", "end", "held"), [(None, HOUR, True), (-HOUR, None, True), (HOUR, None, False)])
def test_it_takes_windows_open_on_one_side(begin, end, held):
    now = timezone.now()
    row = make_endpoint(
        maintenance_from=now + begin if begin else None, maintenance_until=now + end if end else None
    )

    state = records.build_record(row, (), {}).state_at(now.timestamp())

    assert (state is OperatorState.MAINTENANCE) is held


def test_it_stores_a_window_and_shows_it_when_it_holds(admin_client):
    now = timezone.now()
    add(admin_client, **split("maintenance_from", now - HOUR), **split("maintenance_until", now + HOUR))

    row = Endpoint.objects.get()
    assert row.maintenance_from is not None
    assert row.maintenance_until == row.maintenance_from + 2 * HOUR
    page = admin_client.get(reverse(LIST)).content.decode()
    assert ">maintenance<" in page
    assert f"Maintenance until {(now + HOUR):%Y-%m-%d %H:%M} UTC" in page


def test_it_refuses_a_window_that_ends_before_it_begins(admin_client):
    moment = datetime(2030, 1, 1, tzinfo=UTC)

    page = add(admin_client, **split("maintenance_from", moment), **split("maintenance_until", moment))

    assert error_texts(page.content.decode()) == ["The window must end after it begins."]


def test_it_warns_of_a_window_that_is_over(admin_client):
    page = add(admin_client, **split("maintenance_until", datetime(2020, 1, 1, tzinfo=UTC)))

    assert "The maintenance window is over already." in said(page)
    assert Endpoint.objects.exists()


def test_it_ends_a_window_that_holds_by_resume(admin_client):
    now = timezone.now()
    row = make_endpoint(maintenance_from=now - HOUR)
    later = make_endpoint(name="later", state="draining", maintenance_from=now + HOUR)

    act(admin_client, "resume", row, later)

    assert list(Endpoint.objects.order_by("pk").values_list("state", flat=True)) == ["active", "active"]
    row.refresh_from_db()
    later.refresh_from_db()
    assert (row.maintenance_from, later.maintenance_from) == (None, now + HOUR)


# ---------------------------------------------------------------------------------------------------- draining


@pytest.mark.parametrize(
    ("action", "state", "flag"),
    [
        ("drain", "draining", False),
        ("drain_then_disable", "draining", True),
        ("maintain", "maintenance", False),
        ("disable", "disabled", False),
    ],
)
def test_it_sets_state_and_what_follows(admin_client, action, state, flag):
    row = make_endpoint()

    act(admin_client, action, row)

    row.refresh_from_db()
    assert (row.state, row.drain_then_disable) == (state, flag)


def test_it_takes_the_wish_back_with_the_drain():
    row = make_endpoint(state="draining", drain_then_disable=True)

    set_state([row], OperatorState.ACTIVE)

    assert not Endpoint.objects.get().drain_then_disable


def test_it_turns_a_plain_drain_into_one_that_disables(admin_client):
    row = make_endpoint(state="draining")

    act(admin_client, "drain_then_disable", row)

    assert Endpoint.objects.get().drain_then_disable


@pytest.mark.parametrize(("state", "stored"), [("draining", True), ("active", False), ("disabled", False)])
def test_it_stores_disable_when_drained_with_draining_only(admin_client, state, stored):
    row = make_endpoint()

    page = admin_client.post(edit_address(row), form_data(row, state=state, drain_then_disable="on"), follow=True)

    assert Endpoint.objects.get().drain_then_disable is stored
    assert any("counts for the state Draining only" in text for text in said(page)) is not stored


def drained(**values) -> Endpoint:
    row = make_endpoint(**{"state": "draining", "drain_then_disable": True, **values})
    age(row, QUIET_SECONDS + 1)
    return row


def test_it_disables_an_endpoint_nobody_has_requests_open_to():
    row = drained()
    before = Revision.objects.get().number

    assert settle_drains([], [row.pk], timezone.now()) == ["gpu-1"]

    row.refresh_from_db()
    assert (row.state, row.drain_then_disable) == ("disabled", True)
    assert Revision.objects.get().number > before


def test_it_waits_while_another_process_has_requests_open():
    row, now = drained(), timezone.now()
    EndpointHealth.objects.create(endpoint=row)
    settle_drains([row.pk], [], now)

    assert settle_drains([], [row.pk], now + timedelta(seconds=QUIET_SECONDS - 1)) == []
    assert settle_drains([], [row.pk], now + timedelta(seconds=QUIET_SECONDS)) == ["gpu-1"]


def test_it_waits_until_every_process_knows_of_the_drain():
    row = make_endpoint(state="draining", drain_then_disable=True)

    assert settle_drains([], [row.pk], timezone.now()) == []


@pytest.mark.parametrize("values", [{"state": "active"}, {"state": "maintenance"}, {"drain_then_disable": False}])
def test_it_leaves_others_alone(values):
    row = drained(**values)

    assert settle_drains([], [row.pk], timezone.now()) == []
    assert Endpoint.objects.get().state == values.get("state", "draining")


def test_it_leaves_health_to_the_prober():
    row = drained()
    EndpointHealth.objects.create(endpoint=row, version=3, status="healthy")

    settle_drains([row.pk], [], timezone.now())

    health = EndpointHealth.objects.get()
    assert (health.version, health.status) == (3, "healthy")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"state": "disabled"}, "An operator disabled it"),
        ({"state": "disabled", "drain_then_disable": True}, "Disabled by itself once its last request had ended"),
        ({"state": "draining", "drain_then_disable": True}, "open requests finish, then it is disabled"),
    ],
)
def test_it_tells_disabled_by_hand_from_disabled_by_itself(admin_client, values, reason):
    row = make_endpoint(**values)

    assert reason in admin_client.get(reverse(LIST)).content.decode()
    assert reason in admin_client.get(edit_address(row)).content.decode()


def test_it_keeps_the_trace_of_a_drain_when_the_form_is_saved(admin_client):
    row = make_endpoint(state="disabled", drain_then_disable=True)

    admin_client.post(edit_address(row), form_data(row, state="disabled", drain_then_disable="on", notes="x"))

    assert Endpoint.objects.get().drain_then_disable


def test_it_shows_requests_in_flight(admin_client):
    row = make_endpoint()
    provide_in_flight(lambda: {row.pk: 17})
    try:
        assert '<td class="field-in_flight">17</td>' in admin_client.get(reverse(LIST)).content.decode()
        assert "17 in this process" in admin_client.get(edit_address(row)).content.decode()
    finally:
        provide_in_flight(lambda: live.in_flight)
    assert in_flight_of(row.pk) == 0
