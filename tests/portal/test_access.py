"""Who may do what: pages and actions against groups, people without an account, networks."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission
from django.http import HttpResponse
from django.test import Client, RequestFactory

from olla_site.portal.access import Right, action, page, rights_of
from olla_site.portal.groups import GROUPS, make_groups

pytestmark = pytest.mark.django_db

# Page -> the groups that may open it. A new page adds its line.
PAGES = {
    "/": {"Viewers", "Users", "Operators", "Administrators"},
    "/models/": {"Viewers", "Users", "Operators", "Administrators"},
    "/requests/": {"Viewers", "Users", "Operators", "Administrators"},
    "/requests/rows/": {"Viewers", "Users", "Operators", "Administrators"},
    "/explain/": {"Viewers", "Users", "Operators", "Administrators"},
    "/rules/": {"Viewers", "Users", "Operators", "Administrators"},
    "/playground/": {"Users", "Operators", "Administrators"},
    "/fleet/rows/": {"Viewers", "Users", "Operators", "Administrators"},
    "/portal/live.json": {"Viewers", "Users", "Operators", "Administrators"},
    "/connect/": {"Viewers", "Users", "Operators", "Administrators"},
    "/fleet/add/": {"Administrators"},
}
READ = [address for address, groups in PAGES.items() if "Viewers" in groups]


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize("group", [*GROUPS, ""])
def test_it_opens_each_page_to_the_groups_that_may(sign_in, address, group):
    status = sign_in(group).get(address).status_code

    assert status == (200 if group in PAGES[address] else 403)


@pytest.mark.parametrize("address", PAGES)
def test_it_asks_strangers_to_sign_in_and_brings_them_back(client, address):
    response = client.get(address)

    assert (response.status_code, response.headers["Location"]) == (302, f"/accounts/login/?next={address}")


def test_it_answers_a_fragment_without_an_account_by_401(client):
    response = client.get("/", headers={"HX-Request": "true"})

    assert response.status_code == 401
    assert response.headers["HX-Refresh"] == "true"


@pytest.mark.parametrize("address", READ)
def test_it_opens_pages_inside_listed_networks_without_an_account(client, settings, address):
    settings.OLLA_PORTAL_ANONYMOUS_NETWORKS = ("10.1.0.0/16", "2001:db8::/32")

    assert client.get(address, REMOTE_ADDR="10.1.2.3").status_code == 200
    assert client.get(address, REMOTE_ADDR="2001:db8::7").status_code == 200
    assert client.get(address, REMOTE_ADDR="::ffff:10.1.2.3").status_code == 200
    assert client.get(address, REMOTE_ADDR="10.2.0.1").status_code == 302
    assert client.get(address, REMOTE_ADDR="").status_code == 302


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP"])
def test_it_takes_no_untrusted_proxy_for_a_reader_inside(client, settings, header):
    settings.OLLA_PORTAL_ANONYMOUS_NETWORKS = ("127.0.0.0/8",)

    assert client.get("/", REMOTE_ADDR="127.0.0.1").status_code == 200
    assert client.get("/", REMOTE_ADDR="127.0.0.1", headers={header: "127.0.0.1"}).status_code == 302


def test_it_lets_people_without_an_account_look_and_nothing_else(settings):
    settings.OLLA_PORTAL_ANONYMOUS_NETWORKS = ("0.0.0.0/0",)

    assert rights_of(AnonymousUser(), "192.0.2.1").held == {Right.VIEW}


def test_it_gives_a_superuser_every_right(admin_user):
    assert rights_of(admin_user).held == set(Right)


def test_it_gives_nothing_to_somebody_deactivated(django_user_model, viewer):
    django_user_model.objects.update(is_active=False)

    assert viewer.get("/").status_code == 302


def test_it_keeps_what_somebody_changed_about_a_group():
    make_groups(Group, Permission)
    viewers = Group.objects.get(name="Viewers")
    viewers.permissions.clear()

    make_groups(Group, Permission)

    assert not viewers.permissions.exists()


def test_it_gives_administrators_the_tables_they_edit(administrator):
    assert administrator.get("/admin/endpoints/endpoint/add/").status_code == 200
    assert administrator.get("/admin/endpoints/routingrule/add/").status_code == 200
    assert administrator.get("/admin/auth/user/").status_code == 403


def signed_request(user, method="post"):
    request = getattr(RequestFactory(), method)("/x/")
    request.user = user
    return request


def test_it_takes_actions_by_post_only(admin_user):
    view = action(Right.OPERATE)(lambda request: HttpResponse("done"))

    assert view(signed_request(admin_user)).content == b"done"
    assert view(signed_request(admin_user, "get")).status_code == 405


async def test_it_guards_async_views_the_same():
    @page(Right.TRY)
    async def view(request):
        return HttpResponse("done")

    assert (await view(signed_request(AnonymousUser(), "get"))).status_code == 302


def test_it_refuses_an_action_of_another_site(admin_user):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)

    assert strict.post("/accounts/logout/").status_code == 403


def test_it_shows_only_links_that_lead_somewhere(viewer, administrator):
    for_viewer, for_administrator = viewer.get("/").content, administrator.get("/").content

    assert b'href="/admin/"' not in for_viewer
    assert b'href="/admin/"' in for_administrator
    assert b'href="/connect/"' in for_viewer


def test_it_puts_the_same_header_on_the_admin(administrator):
    text = administrator.get("/admin/").content.decode()

    assert '<a href="/connect/">Connect</a>' in text
    assert '<a href="/admin/" aria-current="page">Admin</a>' in text
    assert "Sign out" in text
