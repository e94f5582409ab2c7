"""The first page: what the fleet is, what to do first, how to use it."""

from __future__ import annotations

import gzip
import re
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from endpoints import loading
from endpoints.loading import LoaderHealth
from olla_site.portal.picture import LATE_SECONDS
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db


def page(client, **extra) -> str:
    load_now()
    response = client.get("/", **extra)
    assert response.status_code == 200
    return str(response.content.decode())


def test_it_says_what_to_do_first(admin_client):
    text = page(admin_client)

    assert "Add your first endpoint" in text
    assert 'href="/fleet/add/"' in text
    assert "No prober is running" not in text


def test_it_sends_who_may_not_add_to_an_administrator(viewer):
    text = page(viewer)

    assert "Ask an administrator" in text
    assert "/admin/" not in text


def test_it_sums_up_the_fleet(admin_client):
    lease()
    endpoint("a", "llama3", "qwen3", latency_ms=12.0)
    endpoint("b", "LLAMA3", status="offline", last_error="Connection refused.")
    endpoint("c", "phi4", status="busy")

    text = page(admin_client)

    assert "2 of 3 endpoints ready" in text
    assert '<span data-s="models">3</span> models' in text
    assert re.findall(r'<a href="#endpoint-\d+">(.*?)</a>', text) == ["b"]
    assert "Connection refused." in text
    assert 'data-f="probe">12<' in text


def test_it_does_not_call_a_drained_endpoint_ready_or_a_problem(admin_client):
    lease()
    endpoint("a", state="draining")
    endpoint("b", state="disabled", status="offline")

    text = page(admin_client)

    assert "None of 2 endpoints ready" in text
    assert 'id="troubles" hidden' in text
    assert ">draining<" in text


def test_it_warns_when_no_prober_runs(admin_client):
    endpoint("a", next_check=timezone.now() - timedelta(minutes=2))

    text = page(admin_client)

    assert "No prober is running" in text
    assert 'data-f="stale">stale<' in text
    assert "None of 1 endpoint ready" in text


def test_it_warns_when_the_picture_is_not_renewed(admin_client):
    lease()
    endpoint("a")
    load_now()
    seen = time.time() - LATE_SECONDS - 1
    loading._loader.health = LoaderHealth(seen, seen, "")
    try:
        text = admin_client.get("/").content.decode()
    finally:
        loading.forget()

    assert "The picture of the endpoints is not being renewed." in text


@pytest.mark.parametrize("nasty", ["<script>alert(1)</script>", '"><img src=x onerror=1>', "\u202egnp.exe"])
def test_it_shows_hostile_names_inert(admin_client, nasty):
    endpoint(f"x{nasty}", f"m{nasty}", last_error=f"e{nasty}", status="offline")

    text = page(admin_client)

    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_it_shows_no_secret(admin_client):
    endpoint("a", auth_type="bearer", auth_secret="sk-tiger", extra_headers="X-Team: zebra-value")

    text = page(admin_client)

    assert "sk-tiger" not in text
    assert "zebra-value" not in text


def count_queries(client) -> int:
    load_now()
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/").status_code == 200
    return len(queries)


def test_it_needs_as_many_queries_for_many_endpoints_as_for_one(admin_client):
    endpoint("one", "m")
    few = count_queries(admin_client)
    for number in range(40):
        endpoint(f"gpu-{number}", *(f"model-{number}-{i}" for i in range(10)), auth_type="bearer", auth_secret="x")

    assert count_queries(admin_client) == few
    assert few <= 8


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/admin/", "/nothing/"])
def test_it_forbids_scripts_of_its_own_pages_and_of_others(admin_client, path):
    policy = admin_client.get(path).headers["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_it_is_not_kept_by_caches(admin_client):
    assert "no-store" in admin_client.get("/").headers["Cache-Control"]


def test_it_answers_unknown_addresses_in_the_same_look(admin_client):
    response = admin_client.get("/nothing/")

    assert response.status_code == 404
    assert b"There is no such page" in response.content


def test_it_compresses_pages(admin_client):
    page = admin_client.get("/", headers={"accept-encoding": "gzip"})

    assert page.headers["Content-Encoding"] == "gzip"
    assert b"<!doctype html>" in gzip.decompress(page.content)
