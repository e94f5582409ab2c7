"""Every page with 200 endpoints and 2,000 models: a constant number of queries, and light enough to load."""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from endpoints import loading
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth
from tests.browser.scenes import crowd
from tests.portal.fleet_rows import lease, load_now

pytestmark = pytest.mark.django_db

HEAVIEST = 250_000  # bytes, before compression
SLOWEST = 3.0  # seconds of processor time: ten times what it may take on a quiet machine
SHARED = "shared-0-8b-instruct-q4_K_M"
PAGES = {
    "/": 4,
    "/fleet/{id}/": 4,
    "/models/": 2,
    f"/models/{SHARED}": 2,
    "/models/?sort=used&now=usable&q=shared": 2,
    "/requests/": 5,
    "/explain/": 2,
    f"/explain/?path=/olla/openai/v1/chat/completions&model={SHARED}": 2,
    "/connect/": 2,
    "/fleet/add/": 2,
}


def fill(size: int) -> None:
    """So many endpoints with long names, each with ten models of its own and five that all have."""
    lease()
    for row in crowd(size, 10):
        models, health = row.pop("models"), row.pop("health")
        endpoint = Endpoint.objects.create(**row)
        EndpointHealth.objects.create(endpoint=endpoint, **health)
        DiscoveredModel.objects.bulk_create(DiscoveredModel(endpoint=endpoint, **each) for each in models)


def test_it_draws_every_page_of_a_large_fleet_quickly_and_lightly(admin_client):
    fill(200)
    load_now()
    first = loading.current().endpoints[0].id
    found = {}
    for address in PAGES:
        path = address.replace("{id}", str(first))
        admin_client.get(path)  # what is compiled and counted once
        began = time.process_time()
        with CaptureQueriesContext(connection) as queries:
            response = admin_client.get(path)
        took = time.process_time() - began
        assert response.status_code == 200
        assert took < SLOWEST, address
        found[address] = (len(queries), len(response.content))
    assert {address: weight for address, (_, weight) in found.items() if weight > HEAVIEST} == {}
    assert {address: number for address, (number, _) in found.items()} == PAGES
