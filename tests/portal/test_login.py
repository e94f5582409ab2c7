"""Signing in: one page for portal and admin, guessing slowed down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.urls import reverse

pytestmark = pytest.mark.django_db
PAGES = ["/accounts/login/", "/admin/login/"]


@pytest.fixture(autouse=True)
def one_minute(monkeypatch):
    """Every try falls into one window of the limits, however long the tests take."""
    monkeypatch.setattr("django_ratelimit.core.time", SimpleNamespace(time=lambda: 1_700_000_000.0))


@pytest.fixture
def alice(django_user_model):
    return django_user_model.objects.create_user("alice", password="right-password")


def post(client, page, username="alice", password="wrong", **extra):
    return client.post(page, {"username": username, "password": password, "next": "/"}, **extra)


def test_it_asks_who_opens_the_portal_to_sign_in(client):
    response = client.get("/")

    assert response.status_code == 302
    assert response.headers["Location"] == "/accounts/login/?next=/"


def test_it_leads_from_the_admin_to_the_same_page_and_back(client):
    response = client.get("/admin/", follow=True)

    assert response.redirect_chain[-1][0] == "/admin/login/?next=/admin/"
    assert response.templates[0].name == "portal/login.html"
    assert b'name="next" value="/admin/"' in response.content


@pytest.mark.parametrize("page", PAGES)
def test_it_signs_in_and_goes_on(client, alice, page):
    response = post(client, page, password="right-password")

    assert (response.status_code, response.headers["Location"]) == (302, "/")


@pytest.mark.parametrize("page", PAGES)
def test_it_does_not_say_which_of_the_two_is_wrong(client, alice, page):
    known, unknown = post(client, page), post(client, page, username="nobody")

    assert known.status_code == unknown.status_code == 200
    assert b"User name or password is wrong" in known.content
    assert b"User name or password is wrong" in unknown.content


def test_it_never_shows_a_typed_password_again(client, alice):
    assert b"wrong-secret" not in post(client, PAGES[0], password="wrong-secret").content


def test_it_does_not_follow_a_foreign_next(client, alice):
    data = {"username": "alice", "password": "right-password", "next": "https://evil.example/"}

    assert client.post("/accounts/login/", data).headers["Location"] == "/"


def test_it_tells_somebody_without_rights_where_to_go(client, alice):
    client.force_login(alice)

    page = client.get("/admin/", follow=True)

    assert b"signed in as alice, who may not open that page" in page.content


def test_it_blames_nobody_who_only_comes_by(client, alice):
    client.force_login(alice)

    page = client.get("/accounts/login/").content

    assert b"signed in as alice. Sign in with another account" in page


@pytest.mark.parametrize("page", PAGES)
def test_it_stops_guessing_after_ten_tries(client, alice, page):
    for _ in range(10):
        assert post(client, page).status_code == 200

    response = post(client, page, password="right-password")

    assert response.status_code == 429
    assert response.headers["Retry-After"] == "60"
    assert b"Too many attempts" in response.content
    assert "_auth_user_id" not in client.session


def test_it_counts_both_pages_together(client, alice):
    for number in range(10):
        post(client, PAGES[number % 2])

    assert post(client, PAGES[0]).status_code == 429


def test_it_counts_spellings_of_a_name_together(client, alice):
    for number in range(10):
        post(client, PAGES[0], username=["alice", "ALICE", " Alice "][number % 3])

    assert post(client, PAGES[0]).status_code == 429


def test_it_does_not_lock_an_account_for_other_addresses(client, alice):
    for _ in range(11):
        post(client, PAGES[0], REMOTE_ADDR="10.0.0.1")

    assert post(client, PAGES[0], password="right-password", REMOTE_ADDR="10.0.0.2").status_code == 302


def test_it_counts_an_ipv6_network_as_one_client(client, alice):
    for number in range(10):
        post(client, PAGES[0], REMOTE_ADDR=f"2001:db8::{number}")

    assert post(client, PAGES[0], REMOTE_ADDR="2001:db8::ffff").status_code == 429


def test_it_stops_trying_one_password_on_many_accounts(client):
    for number in range(60):
        post(client, PAGES[0], username=f"user-{number}")

    assert post(client, PAGES[0], username="another").status_code == 429


def test_it_does_not_count_looking_at_the_page(client):
    for _ in range(15):
        assert client.get(PAGES[0]).status_code == 200


def test_it_refuses_a_form_of_another_site():
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)

    assert strict.post(PAGES[0], {"username": "a", "password": "b"}).status_code == 403


def test_it_signs_out_by_post_only(admin_client):
    assert admin_client.get(reverse("portal:logout")).status_code == 405
    assert admin_client.post(reverse("portal:logout")).headers["Location"] == "/accounts/login/"
    assert admin_client.get("/").status_code == 302
