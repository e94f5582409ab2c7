"""The tables: secrets encrypted, every change that routing must see counted."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from django.db import connection

from endpoints.fields import UnreadableSecret
from endpoints.models import DiscoveredModel, Endpoint, EndpointHealth, ModelAlias, Revision
from endpoints.secrets import Secret
from tests.endpoints.desk import make_endpoint

pytestmark = pytest.mark.django_db


def revision() -> int:
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0


def stored(row) -> str:
    with connection.cursor() as cursor:
        cursor.execute("select auth_secret from endpoints_endpoint where id = %s", [row.pk])
        return str(cursor.fetchone()[0])


CHANGES = {
    "save": lambda row: row.save(),
    "update": lambda row: Endpoint.objects.filter(pk=row.pk).update(priority=3),
    "bulk_update": lambda row: Endpoint.objects.bulk_update([row], ["priority"]),
    "bulk_create": lambda row: Endpoint.objects.bulk_create([Endpoint(name="x", url="http://x")]),
    "delete": lambda row: row.delete(),
    "query delete": lambda row: Endpoint.objects.all().delete(),
    "alias": lambda row: ModelAlias.objects.create(name="fast", targets="llama3"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_counts_every_change_of_what_people_edit(change):
    row = make_endpoint()
    before = revision()

    change(row)

    assert revision() > before


def test_it_does_not_count_what_the_prober_writes_by_itself():
    row = make_endpoint()
    before = revision()

    EndpointHealth.objects.create(endpoint=row)
    DiscoveredModel.objects.create(endpoint=row, name="llama3")

    assert revision() == before


def test_it_stores_secrets_encrypted():
    row = make_endpoint(auth_secret="sk-tiger")

    assert "sk-tiger" not in stored(row)
    assert Endpoint.objects.get().auth_secret.reveal() == "sk-tiger"


def test_it_stores_no_secret_as_empty_text():
    assert stored(make_endpoint()) == ""


def test_it_makes_whatever_is_assigned_a_secret():
    row = Endpoint(name="x", auth_secret="sk-tiger")
    row.extra_headers = "X-Team: tiger"

    assert isinstance(row.auth_secret, Secret)
    assert "tiger" not in f"{row.auth_secret} {row.extra_headers!r} {row.__dict__}"


def test_it_reads_secrets_of_an_older_key(settings):
    row = make_endpoint(auth_secret="sk-tiger")
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *settings.ENCRYPTION_KEYS]

    assert Endpoint.objects.get(pk=row.pk).auth_secret.reveal() == "sk-tiger"


def test_it_keeps_what_no_key_opens_when_the_row_is_saved(settings):
    row = make_endpoint(auth_secret="sk-tiger")
    before = stored(row)
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    again = Endpoint.objects.get(pk=row.pk)
    again.save()

    assert isinstance(again.auth_secret, UnreadableSecret)
    assert stored(row) == before


def test_it_refuses_to_search_in_secrets():
    with pytest.raises(TypeError, match="cannot be searched"):
        Endpoint.objects.filter(auth_secret="x").exists()
