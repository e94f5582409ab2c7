"""Who may read `/internal/*`."""

from __future__ import annotations

from importlib import import_module

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model

CLOSED = [
    "/internal/status", "/internal/status/endpoints", "/internal/status/models", "/internal/stats/sticky",
    "/internal/stats/translators", "/internal/stats/models", "/internal/process", "/internal/metrics",
]  # fmt: skip
OPEN = ["/internal/health", "/internal/ready", "/version"]
PUBLIC = "203.0.113.9"
PROXY_HEADERS = [
    ("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Via", "1.1 p"),
    ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "localhost"),
]  # fmt: skip


def make_session(*, is_staff: bool, is_active: bool = True) -> str:
    """The cookie of somebody who signed in."""
    user = get_user_model().objects.create_user("ann", password="pw", is_staff=is_staff, is_active=is_active)
    store = import_module(django_settings.SESSION_ENGINE).SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = django_settings.AUTHENTICATION_BACKENDS[0]
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store.save()
    return f"{django_settings.SESSION_COOKIE_NAME}={store.session_key}"


@pytest.mark.parametrize("path", CLOSED)
async def test_it_closes_every_route_to_strangers(proxy, path):
    refused = await proxy.call("GET", path, client=PUBLIC)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden_path")
    assert "OLLA_INTERNAL_NETWORKS" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", OPEN)
async def test_it_leaves_what_monitors_need_open(proxy, path):
    assert (await proxy.call("GET", path, client=PUBLIC)).status in (200, 503)


@pytest.mark.parametrize(
    "client",
    ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.7.7", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"],
)
async def test_it_is_open_to_this_host_and_private_networks(proxy, client):
    assert (await proxy.call("GET", "/internal/status", client=client)).status == 200


@pytest.mark.parametrize(
    "client", [PUBLIC, "172.32.0.1", "2001:db8::1", "::ffff:203.0.113.9", "", "unix", "100.64.0.1"]
)
async def test_it_is_closed_to_all_others(proxy, client):
    assert (await proxy.call("GET", "/internal/status", client=client)).status == 403


@pytest.mark.parametrize("header", PROXY_HEADERS)
@pytest.mark.parametrize("client", ["127.0.0.1", "10.1.2.3"])
async def test_it_believes_no_address_behind_an_unknown_proxy(proxy, client, header):
    refused = await proxy.call("GET", "/internal/status", headers=[header], client=client)
    assert refused.status == 403
    assert "OLLA_TRUSTED_PROXIES" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X-Forwarded-For", "192.168.1.5")], 200),
        ([("X-Forwarded-For", PUBLIC)], 403),
        ([("X-Forwarded-For", f"192.168.1.5, {PUBLIC}")], 403),
        ([("Forwarded", "for=192.168.1.5")], 200),
        ([("Via", "1.1 proxy")], 403),  # says that somebody stands behind it, not who
        ([("X-Forwarded-For", "unknown")], 403),
        ([], 200),
    ],
)
async def test_it_takes_a_trusted_proxys_word(proxy, settings, headers, status):
    settings.OLLA_TRUSTED_PROXIES = "10.0.0.1/32"
    assert (await proxy.call("GET", "/internal/status", headers=headers, client="10.0.0.1")).status == status


async def test_it_is_open_to_everyone_where_the_setting_says_so(proxy, settings):
    settings.OLLA_INTERNAL_ACCESS = "everyone"
    for headers in ([], [PROXY_HEADERS[0]]):
        assert (await proxy.call("GET", "/internal/status", headers=headers, client=PUBLIC)).status == 200


async def test_it_is_open_to_the_listed_networks_alone(proxy, settings):
    settings.OLLA_INTERNAL_NETWORKS = "203.0.113.0/24"
    assert (await proxy.call("GET", "/internal/status", client=PUBLIC)).status == 200
    assert (await proxy.call("GET", "/internal/status", client="10.1.2.3")).status == 403


async def test_it_is_closed_even_here_where_staff_alone_may(proxy, settings):
    settings.OLLA_INTERNAL_ACCESS = "staff"
    assert (await proxy.call("GET", "/internal/status", client="127.0.0.1")).status == 403


@pytest.mark.parametrize("access", ["networks", "staff"])
@pytest.mark.parametrize(
    ("who", "status"),
    [({"is_staff": True}, 200), ({"is_staff": False}, 403), ({"is_staff": True, "is_active": False}, 403)],
)
async def test_it_is_open_to_staff_who_are_signed_in(proxy, settings, access, who, status):
    settings.OLLA_INTERNAL_ACCESS = access
    cookie = await sync_to_async(make_session)(**who)
    answer = await proxy.call("GET", "/internal/status", headers=[("Cookie", cookie)], client=PUBLIC)
    assert answer.status == status


@pytest.mark.parametrize("cookie", ["sessionid=nonsense", "sessionid=", "other=1", "sessionid=" + "x" * 5000])
async def test_it_is_closed_to_made_up_sessions(proxy, cookie):
    refused = await proxy.call("GET", "/internal/status", headers=[("Cookie", cookie)], client=PUBLIC)
    assert refused.status == 403


@pytest.mark.parametrize("path", CLOSED)
async def test_it_lets_no_page_of_another_site_read(proxy, path):
    answer = await proxy.call("GET", path, headers=[("Origin", "https://evil.test")])
    assert answer.status == 200
    assert [name for name, _ in answer.headers if name.lower().startswith(b"access-control-")] == []


async def test_it_refuses_before_it_tells_whether_a_route_takes_a_query(proxy):
    answer = await proxy.call("GET", "/internal/status/models", query=b"detailed=true", client=PUBLIC)
    assert "model" not in answer.json()["error"]["message"]
