"""Somebody who may only change endpoints tries to get at a stored secret and at this server's own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.urls import reverse

from endpoints.credentials import read_access
from endpoints.models import Endpoint
from endpoints.recording import build_target
from tests.endpoints.desk import LIST, edit_address, form_data, make_endpoint

pytestmark = pytest.mark.django_db

TOKEN = "sk-tiger-token-1234567890"
HEADER = "zebra-header-value"
HOME = "https://127.0.0.1:11434"


@pytest.fixture
def row() -> Endpoint:
    return make_endpoint(url=HOME, auth_type="bearer", auth_secret=TOKEN, extra_headers=f"X-Team: {HEADER}")


@pytest.fixture
def attacker(client, django_user_model):
    """Signed in with the right to see and change endpoints, and no other."""
    user = django_user_model.objects.create_user("mallory", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_endpoint", "change_endpoint")))
    client.force_login(user)
    return client


def carries(endpoint: Endpoint) -> bool:
    """Whether a stored secret still would be sent."""
    sent = " ".join(value.reveal() for _, value in read_access(endpoint, {}).headers)
    return TOKEN in sent or HEADER in sent


ATTEMPTS = {
    "another host": {"url": "https://127.0.0.9:11434"},
    "another port": {"url": "https://127.0.0.1:11435"},
    "plain http": {"url": "http://127.0.0.1:11434"},
    "a dot at the end": {"url": "https://localhost.:11434"},
    "user info": {"url": "https://127.0.0.1:11434@127.0.0.9"},
    "a backslash": {"url": "https://127.0.0.1:11434\\@127.0.0.9"},
    "probe elsewhere": {"health_check_url": "https://127.0.0.9/health"},
    "models elsewhere": {"model_url": "https://127.0.0.9/models"},
    "scheme-relative probe": {"health_check_url": "//127.0.0.9/health"},
    "upper-case probe": {"health_check_url": "HTTPS://127.0.0.9/health"},
    "no verification": {"verify_tls": ""},
    "own authority": {"ca_file": "mine.pem"},
    "reflected header": {"auth_type": "api_key", "auth_header": "X-Request-Id"},
    "no authentication and elsewhere": {"auth_type": "none", "url": "https://127.0.0.9"},
    "masked line under another name": {"extra_headers": "X-Request-Id: ********"},
    "a copy": {"_saveasnew": "1", "name": "copy", "url": "https://127.0.0.9"},
    "an empty remove box": {"url": "https://127.0.0.9", "auth_secret-remove": ""},
    "the mask as the secret": {"url": "https://127.0.0.9", "auth_secret": "********"},
}


@pytest.mark.parametrize("change", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_it_keeps_stored_secrets_at_home(attacker, row, change, settings, tmp_path):
    settings.OLLA_CA_DIR = str(tmp_path)
    (tmp_path / "mine.pem").write_text("no certificate")
    attempt = form_data(row, **change)

    page = attacker.post(edit_address(row), attempt)

    assert page.status_code in (200, 302, 403)
    for stored in Endpoint.objects.all():
        moved = (
            stored.url != HOME or not stored.verify_tls or stored.ca_file or stored.auth_header
            or stored.health_check_url.upper().startswith("HTTP") or stored.model_url
        )  # fmt: skip
        assert not (moved and carries(stored))
    assert TOKEN.encode() not in page.content
    assert HEADER.encode() not in page.content


def test_it_does_not_send_secrets_elsewhere_in_two_steps(attacker, row):
    """A probe URL first, with everything removed; then the main URL after it."""
    removed = {"auth_type": "none", "auth_secret-remove": "on", "extra_headers": ""}

    attacker.post(edit_address(row), form_data(row, health_check_url="https://127.0.0.9/h", **removed))
    row.refresh_from_db()
    attacker.post(edit_address(row), form_data(row, url="https://127.0.0.9"))

    assert not carries(Endpoint.objects.get())


def test_it_allows_paths_on_the_same_server(attacker, row):
    changes = {"url": f"{HOME}/base", "preserve_path": "on", "health_check_url": "/up"}

    assert attacker.post(edit_address(row), form_data(row, **changes)).status_code == 302

    assert carries(Endpoint.objects.get())


@pytest.mark.parametrize("address", ["add", "delete", "import", "export"])
def test_it_gives_a_changer_nothing_else(attacker, row, address):
    path = f"/admin/endpoints/endpoint/{'' if address == 'add' else f'{row.pk}/'}{address}/"

    page = attacker.post(path, {"post": "yes", "_confirm": "1"})

    assert page.status_code in (302, 403, 404)
    assert TOKEN.encode() not in page.content
    assert Endpoint.objects.get().auth_secret.reveal() == TOKEN


READS = [
    "${SECRET_KEY}", "${OLLA_SECRET_KEY}", "${OLLA_ENCRYPTION_KEYS}", "${DJANGO_SETTINGS_MODULE}",
    "${DATABASE_URL}", "${HOME}", "${olla_secret_key}", "${file:../outside}", "${file:/etc/passwd}",
    "${file:secret_key}",
    "${file:link}", "${NO_TOKEN:-${OLLA_SECRET_KEY}}", "${file:${HOME}}",
]  # fmt: skip


@pytest.mark.parametrize("reference", READS)
@pytest.mark.parametrize("field", ["auth_secret", "extra_headers"])
def test_it_reads_nothing_of_this_server_itself(attacker, row, reference, field, settings, tmp_path, monkeypatch):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (tmp_path / "outside").write_text("own-value")
    (folder / "link").symlink_to("../outside")
    settings.OLLA_SECRETS_DIR, settings.OLLA_ENV_ALLOW = str(folder), ("*",)
    for name in ("SECRET_KEY", "OLLA_SECRET_KEY", "OLLA_ENCRYPTION_KEYS", "DATABASE_URL"):
        monkeypatch.setenv(name, "own-value")
    if reference == "${HOME}":
        settings.OLLA_ENV_ALLOW = ("*_API_KEY", "*_TOKEN")
    value = f"X-Mine: {reference}" if field == "extra_headers" else reference

    attacker.post(edit_address(row), form_data(row, **{field: value}))

    stored = Endpoint.objects.get()
    access = read_access(stored, os.environ)
    assert all("own-value" not in sent.reveal() and "root:" not in sent.reveal() for _, sent in access.headers)
    # Even stored past the form it is not read.
    setattr(stored, field, value)
    stored.save()
    access = read_access(stored, os.environ)
    assert access.problem
    assert access.headers == ()
    assert "own-value" not in access.problem
    assert build_target(stored, os.environ).problem


@pytest.mark.django_db(transaction=True)
def test_it_leaves_no_secret_in_files_pages_logs_or_errors(attacker, row, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    pages = [
        attacker.get(reverse(LIST)),
        attacker.get(edit_address(row)),
        attacker.get(reverse("admin:endpoints_endpoint_history", args=[row.pk])),
        attacker.post(edit_address(row), form_data(row, url="https://127.0.0.9")),
        attacker.post(edit_address(row), form_data(row, notes="x"), follow=True),
    ]
    with connection.cursor() as cursor:
        cursor.execute("pragma database_list")
        database = Path(cursor.fetchone()[2])
    content = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))

    assert b"endpoints_endpoint" in content
    for secret in (TOKEN, HEADER):
        assert secret.encode() not in content
        assert secret not in caplog.text
        assert all(secret.encode() not in page.content for page in pages)
