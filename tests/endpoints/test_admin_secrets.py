"""The Secret rules: write-only, encrypted, never shown, entered again when an endpoint moves."""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.core import serializers
from django.db import connection
from django.urls import reverse

from endpoints.models import Endpoint
from endpoints.secrets import Secret
from endpoints.validation import Draft, secrets_to_enter_again
from endpoints.write_only import SecretAction, SecretEdit
from tests.endpoints.desk import ADD, LIST, add, edit_address, error_texts, form_data, make_endpoint

pytestmark = pytest.mark.django_db

TOKEN = "sk-tiger-token-1234567890"
USER = "alice-the-user"
HEADER = "zebra-header-value"
ALL = (TOKEN, USER, HEADER)


def guarded(**values) -> Endpoint:
    """An endpoint with every kind of secret stored."""
    return make_endpoint(
        **{
            "auth_type": "basic",
            "auth_username": USER,
            "auth_secret": TOKEN,
            "extra_headers": f"X-Team: {HEADER}\nX-Region: ${{REGION_TOKEN}}",
            **values,
        }
    )


def save(client, row, **changes):
    return client.post(edit_address(row), form_data(row, **changes))


def reread(row) -> tuple[str, str, str]:
    row = Endpoint.objects.get(pk=row.pk)
    return row.auth_username.reveal(), row.auth_secret.reveal(), row.extra_headers.reveal()


# ------------------------------------------------------------------------------------------------ keeping


def test_it_keeps_secrets_that_are_left_empty(admin_client):
    row = guarded()

    assert save(admin_client, row, notes="moved to rack 4").status_code == 302

    assert reread(row)[:2] == (USER, TOKEN)
    assert f"X-Team: {HEADER}" in reread(row)[2]


def test_it_replaces_a_secret(admin_client):
    row = guarded()

    save(admin_client, row, auth_secret="sk-new")

    assert reread(row)[:2] == (USER, "sk-new")


def test_it_removes_a_secret_on_request(admin_client):
    row = guarded(auth_type="bearer")

    save(admin_client, row, auth_type="none", **{"auth_secret-remove": "on"})

    assert reread(row)[:2] == ("", "")


def test_it_removes_secrets_that_the_chosen_type_does_not_use(admin_client):
    row = guarded()

    save(admin_client, row, auth_type="bearer")

    assert reread(row)[:2] == ("", TOKEN)


def test_it_refuses_to_remove_what_the_type_needs(admin_client):
    row = guarded()

    page = save(admin_client, row, **{"auth_secret-remove": "on"})

    assert error_texts(page.content.decode()) == ["This kind of authentication needs a password."]


def test_it_keeps_masked_header_lines_and_takes_new_ones(admin_client):
    row = guarded(extra_headers=f"X-Team: {HEADER}\nX-Old: gone\nX-Team: second")

    save(admin_client, row, extra_headers="x-team: ********\nX-Team: ********\nX-New: 1")

    assert reread(row)[2] == f"x-team: {HEADER}\nX-Team: second\nX-New: 1"


def test_it_removes_headers_whose_lines_are_gone(admin_client):
    row = guarded()

    save(admin_client, row, extra_headers="")

    assert reread(row)[2] == ""


def test_it_does_not_let_a_masked_line_take_another_headers_value(admin_client):
    row = guarded()

    page = save(admin_client, row, extra_headers="X-Other: ********")

    assert error_texts(page.content.decode()) == ["X-Other: no value is stored under this name. Enter one."]


def test_it_keeps_what_no_key_opens_until_it_is_replaced(admin_client, settings):
    row = guarded()
    with connection.cursor() as cursor:
        cursor.execute("select auth_secret, extra_headers from endpoints_endpoint where id = %s", [row.pk])
        before = cursor.fetchone()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    data = form_data(row, notes="x", extra_headers="")
    assert admin_client.post(edit_address(row), data).status_code == 302

    with connection.cursor() as cursor:
        cursor.execute("select auth_secret, extra_headers from endpoints_endpoint where id = %s", [row.pk])
        assert cursor.fetchone() == before


def test_it_says_in_the_list_that_secrets_cannot_be_decrypted(admin_client, settings):
    guarded()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    assert "cannot be decrypted" in admin_client.get(reverse(LIST)).content.decode()


# ------------------------------------------------------------------------------------------- never shown


def assert_absent(text: str | bytes) -> None:
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for secret in (*ALL, "typed-secret"):
        assert secret not in text


def test_it_shows_no_secret_on_any_page(admin_client):
    row = guarded()
    save(admin_client, row, notes="one more line of history")
    for address in (
        reverse(LIST),
        edit_address(row),
        reverse("admin:endpoints_endpoint_history", args=[row.pk]),
        reverse("admin:endpoints_endpoint_delete", args=[row.pk]),
        reverse("admin:index"),
        reverse("admin:endpoints_discoveredmodel_changelist"),
    ):
        response = admin_client.get(address)
        assert response.status_code == 200
        assert_absent(response.content)


def test_it_shows_no_secret_to_who_may_only_look(client, django_user_model):
    row = guarded()
    client.force_login(viewer(django_user_model))

    page = client.get(edit_address(row))

    assert page.status_code == 200
    assert_absent(page.content)


def viewer(django_user_model):
    from django.contrib.auth.models import Permission

    user = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


def test_it_shows_typed_secrets_not_again_when_the_form_is_refused(admin_client):
    page = add(
        admin_client,
        url="ftp://nowhere",
        auth_type="basic",
        auth_username="typed-secret-user",
        auth_secret="typed-secret-password",
        extra_headers="X-Team: typed-secret-header\ntyped-secret without colon\ntyped-secret name: x",
    )

    assert page.status_code == 200
    assert_absent(page.content)
    assert "X-Team: " in page.content.decode()


def test_it_shows_names_and_placeholders_of_stored_headers(admin_client):
    page = admin_client.get(edit_address(guarded())).content.decode()

    assert "X-Team: ********" in page
    assert "X-Region: ${REGION_TOKEN}" in page
    assert "A value is stored." in page


def test_it_keeps_secrets_out_of_history_messages_and_logs(admin_client, caplog):
    caplog.set_level(logging.DEBUG)
    add(admin_client, auth_type="bearer", auth_secret=TOKEN, extra_headers=f"X-Team: {HEADER}")
    row = Endpoint.objects.get()
    save(admin_client, row, auth_secret="typed-secret-2", extra_headers="X-Team: typed-secret-3")

    assert LogEntry.objects.count() == 2
    for entry in LogEntry.objects.all():
        assert_absent(f"{entry.object_repr} {entry.change_message} {entry}")
    assert_absent(caplog.text)


def test_it_keeps_secrets_out_of_dumps():
    assert_absent(serializers.serialize("json", [guarded()]))


def test_it_keeps_secrets_out_of_repr_and_formatting():
    row = guarded()
    assert_absent(f"{row.auth_secret} {row.auth_secret!r} {row.__dict__}")


@pytest.mark.django_db(transaction=True)
def test_it_keeps_secrets_out_of_the_database_file(admin_client, tmp_path):
    add(admin_client, auth_type="basic", auth_username=USER, auth_secret=TOKEN, extra_headers=f"X-Team: {HEADER}")
    assert reread(Endpoint.objects.get())[1] == TOKEN

    with connection.cursor() as cursor:
        cursor.execute("vacuum into %s", [str(tmp_path / "copy.sqlite3")])
    content = (tmp_path / "copy.sqlite3").read_bytes()

    assert b"X-Team" not in content
    for secret in ALL:
        assert secret.encode() not in content


# --------------------------------------------------------------------------------------- moving an endpoint

MOVES = [
    {"url": "http://127.0.0.9:11434"},
    {"url": "https://127.0.0.1:11434"},
    {"url": "http://127.0.0.1:11435"},
    {"health_check_url": "http://127.0.0.9/health"},
    {"model_url": "https://127.0.0.1:11434/models"},
    {"verify_tls": ""},
    {"ca_file": "other.pem"},
]


@pytest.fixture(autouse=True)
def ca_folder(settings, tmp_path):
    """A folder with an authority somebody might name."""
    settings.OLLA_CA_DIR = str(tmp_path)
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    (tmp_path / "other.pem").write_bytes(Path(system).read_bytes())


@pytest.mark.parametrize("move", MOVES)
def test_it_asks_for_every_secret_again_when_an_endpoint_moves(admin_client, move):
    row = guarded()

    page = save(admin_client, row, **move)

    said = error_texts(page.content.decode())
    assert sum("Enter it again" in text or "enter it again" in text for text in said) == 3
    stored = Endpoint.objects.get()
    assert (stored.url, stored.verify_tls, stored.health_check_url) == (row.url, True, "")


@pytest.mark.parametrize("move", MOVES)
def test_it_moves_an_endpoint_whose_secrets_are_entered_again(admin_client, move):
    row = guarded()

    headers = f"X-Team: {HEADER}2\nX-Region: ${{REGION_TOKEN}}"
    response = save(admin_client, row, **move, auth_username="bob", auth_secret="new", extra_headers=headers)

    assert response.status_code == 302
    assert reread(row) == ("bob", "new", headers)


def test_it_moves_an_endpoint_whose_secrets_are_removed(admin_client):
    row = guarded()
    removed = {"auth_username-remove": "on", "auth_secret-remove": "on", "extra_headers": ""}

    response = save(admin_client, row, url="http://127.0.0.9", auth_type="none", **removed)

    assert response.status_code == 302
    assert reread(row) == ("", "", "")


def test_it_asks_again_even_when_the_new_type_would_not_use_the_secret(admin_client):
    row = guarded(extra_headers="")

    page = save(admin_client, row, url="http://127.0.0.9", auth_type="none")

    assert page.status_code == 200
    assert Endpoint.objects.get().url == row.url


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://127.0.0.1:11434/base"},
        {"url": "HTTP://127.0.0.1:11434/"},
        {"health_check_url": "/up"},
        {"model_url": "http://127.0.0.1:11434/list"},
        {"name": "other"},
        {"backend_type": "vllm"},
    ],
)
def test_it_keeps_secrets_of_an_endpoint_that_stays(admin_client, change):
    row = guarded()

    assert save(admin_client, row, **change).status_code == 302
    assert reread(row)[:2] == (USER, TOKEN)


# A header that comes back in answers would show the key to every client.
@pytest.mark.parametrize(
    ("stored", "change"),
    [
        ({"auth_type": "api_key"}, {"auth_header": "X-Request-Id"}),
        ({"auth_type": "api_key", "auth_header": "X-Key"}, {"auth_header": ""}),
        ({"auth_type": "api_key", "auth_header": "X-Key"}, {"auth_type": "bearer"}),
        ({"auth_type": "bearer"}, {"auth_type": "api_key", "auth_header": "X-Request-Id"}),
    ],
)
def test_it_asks_again_when_a_secret_would_go_into_another_header(admin_client, stored, change):
    row = guarded(auth_username="", extra_headers="", **stored)

    page = save(admin_client, row, **change)

    assert [text for text in error_texts(page.content.decode()) if "another header" in text]
    assert save(admin_client, row, **change, auth_secret="new").status_code == 302
    assert reread(row)[1] == "new"


def test_it_does_not_ask_again_for_another_spelling_of_the_header(admin_client):
    row = guarded(auth_type="api_key", auth_username="", auth_header="X-Key")

    assert save(admin_client, row, auth_header="x-key").status_code == 302


def test_it_does_not_ask_again_when_verification_was_off_already(admin_client):
    row = guarded(verify_tls=False)

    assert save(admin_client, row, verify_tls="").status_code == 302


def test_it_does_not_carry_secrets_into_a_copy(admin_client):
    row = guarded()

    page = save(admin_client, row, _saveasnew="1", name="copy", url="http://127.0.0.9")

    assert page.status_code == 200
    assert Endpoint.objects.count() == 1


def test_it_does_not_carry_secrets_into_a_copy_without_authentication(admin_client):
    row = guarded()

    save(
        admin_client, row, _saveasnew="1", name="copy", url="http://127.0.0.9", auth_type="none", extra_headers=""
    )

    copy = Endpoint.objects.get(name="copy")
    assert reread(copy) == ("", "", "")
    assert reread(row)[:2] == (USER, TOKEN)


def test_it_takes_no_columns_from_the_list_page(admin_client):
    row = guarded()

    admin_client.post(
        reverse(LIST),
        {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": row.pk, "form-0-url": "http://127.0.0.9"}
        | {"_save": "Save"},
    )

    assert Endpoint.objects.get().url == row.url


@pytest.mark.parametrize("action", ["drain", "resume", "disable"])
def test_it_keeps_url_and_secrets_in_actions(admin_client, action):
    row = guarded(state="maintenance")

    admin_client.post(
        reverse(LIST),
        {"action": action, "_selected_action": [row.pk], "url": "http://127.0.0.9", "auth_secret": "x"},
    )

    assert Endpoint.objects.get().url == row.url
    assert reread(row)[:2] == (USER, TOKEN)


def test_it_counts_a_second_hop_as_a_move_too(admin_client):
    """A probe URL set first (with its secrets) does not make that server a home for the rest."""
    row = guarded(health_check_url="http://127.0.0.9/health")

    page = save(admin_client, row, url="http://127.0.0.9")

    assert page.status_code == 200
    assert Endpoint.objects.get().url == row.url


def test_it_applies_to_any_caller_of_the_plain_function():
    row = guarded()
    kept = Draft(name="x", url="http://127.0.0.9", extra_headers=Secret("X-Team: ********"))
    again = Draft(
        name="x",
        url="http://127.0.0.9",
        auth_username=SecretEdit(SecretAction.REPLACE, Secret("u")),
        auth_secret=SecretEdit(SecretAction.REMOVE),
    )

    assert [finding.field for finding in secrets_to_enter_again(row, kept)] == [
        "auth_username", "auth_secret", "extra_headers",
    ]  # fmt: skip
    assert secrets_to_enter_again(row, again) == []


def test_it_asks_again_for_what_no_key_opens(settings):
    row = guarded()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    found = secrets_to_enter_again(Endpoint.objects.get(pk=row.pk), Draft(name="x", url="http://127.0.0.9"))

    assert {finding.field for finding in found} == {"auth_username", "auth_secret"}


def test_it_marks_secret_inputs_for_password_managers(admin_client):
    page = admin_client.get(reverse(ADD)).content.decode()

    field = re.search(r'<input[^>]* name="auth_secret"[^>]*>', page)
    assert field
    assert 'type="password"' in field[0]
    assert 'autocomplete="new-password"' in field[0]
    assert "value=" not in field[0]
