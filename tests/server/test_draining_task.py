"""The background task that has drained endpoints disabled: what it asks of the tables, and when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from endpoints.drains import QUIET_SECONDS
from endpoints.health import OperatorState
from endpoints.models import Endpoint, EndpointHealth
from endpoints.snapshot import build_snapshot
from olla_site.draining import settle
from tests.endpoints.desk import make_endpoint as make_row
from tests.proxy.builders import NOW, make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def row() -> Endpoint:
    made = make_row(state="draining", drain_then_disable=True)
    EndpointHealth.objects.create(endpoint=made)
    Endpoint.objects.update(updated_at=timezone.now() - timedelta(seconds=QUIET_SECONDS + 1))
    return made


def snapshot_of(row: Endpoint, **changes):
    values = {"id": row.pk, "state": OperatorState.DRAINING, "drain_then_disable": True, **changes}
    return build_snapshot(1, NOW, [make_endpoint(**values)])


async def test_it_disables_what_is_drained(row):
    assert await settle(snapshot_of(row), {}, timezone.now()) == ["gpu-1"]
    assert (await Endpoint.objects.aget()).state == "disabled"


async def test_it_tells_others_of_open_requests(row):
    now = timezone.now()

    assert await settle(snapshot_of(row), {row.pk: 1}, now) == []

    assert (await EndpointHealth.objects.aget()).last_in_flight == now
    assert await settle(snapshot_of(row), {}, now) == []


async def test_it_asks_the_tables_nothing_while_nothing_drains(row):
    for changes in ({"drain_then_disable": False}, {"state": OperatorState.ACTIVE}):
        assert await settle(snapshot_of(row, **changes), {}, timezone.now()) == []
    assert (await Endpoint.objects.aget()).state == "draining"
