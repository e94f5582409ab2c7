"""`POST /operator/token`: who gets one, and for what."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from proxy.operator_token import LIFETIME, read_token

pytestmark = pytest.mark.django_db
PATH = "/operator/token"


@pytest.fixture
def viewer(django_user_model):
    user = django_user_model.objects.create_user("vera", password="right-password")
    user.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    return user


def test_it_gives_a_viewer_a_token_for_everything(client, viewer):
    client.force_login(viewer)
    answer = client.post(PATH)
    assert answer.status_code == 200
    assert read_token(answer.json()["token"], time.time()) == {"pin", "trace"}
    assert 0 < answer.json()["expires_at"] - time.time() <= LIFETIME
    assert "no-store" in answer.headers["Cache-Control"]


def test_it_gives_no_more_than_was_asked(client, viewer):
    client.force_login(viewer)
    assert read_token(client.post(PATH, {"scopes": "trace"}).json()["token"], time.time()) == {"trace"}


def test_it_lets_who_may_only_look_see_traces_alone(client, viewer):
    viewer.user_permissions.set([Permission.objects.get(codename="view", content_type__app_label="portal")])
    client.force_login(viewer)
    assert client.post(PATH, {"scopes": "trace"}).status_code == 200
    assert client.post(PATH, {"scopes": "pin"}).status_code == 403


def test_it_names_an_unknown_scope(client, viewer):
    client.force_login(viewer)
    answer = client.post(PATH, {"scopes": "trace,root"})
    assert (answer.status_code, "'root'" in answer.json()["error"]["message"]) == (400, True)


def test_it_gives_nothing_without_a_session(client):
    assert client.post(PATH).status_code == 401


def test_it_gives_nothing_without_the_permission(client, django_user_model):
    client.force_login(django_user_model.objects.create_user("nemo", password="right-password"))
    assert client.post(PATH).status_code == 403


def test_it_gives_nothing_for_reading_or_to_another_sites_form(viewer):
    client = Client(enforce_csrf_checks=True)
    client.force_login(viewer)
    assert client.get(PATH).status_code == 405
    assert client.post(PATH).status_code == 403
