"""The button that asks an address what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from endpoints.models import Endpoint, EndpointHealth
from endpoints.secrets import Secret
from tests.endpoints.desk import FILLED, form_data
from tests.fakes import Reply, ScriptedBackend, json_reply

pytestmark = pytest.mark.django_db(transaction=True)
NEW = "admin:endpoints_endpoint_detect"
STORED = "admin:endpoints_endpoint_detect_stored"
OLLAMA = {"/api/version": json_reply({"version": "0.12.3"}), "/api/tags": json_reply({"models": []})}


@sync_to_async
def press(data: dict[str, Any], stored: Endpoint | None = None, codename: str = "") -> tuple[int, dict[str, Any]]:
    user = get_user_model().objects.create_user("desk", is_staff=True, is_superuser=not codename)
    if codename:
        user.user_permissions.add(Permission.objects.get(codename=codename))
    client = Client()
    client.force_login(user)
    address = reverse(STORED, args=[stored.pk]) if stored else reverse(NEW)
    answer = client.post(address, data)
    found: dict[str, Any] = json.loads(answer.content) if answer["Content-Type"] == "application/json" else {}
    return answer.status_code, found


async def test_it_tells_the_type_of_what_is_typed_in_and_stores_nothing() -> None:
    async with ScriptedBackend({**OLLAMA, "*": Reply(404)}) as backend:
        data = {**FILLED, "name": "", "backend_type": "vllm", "url": backend.url}  # a name may come later
        assert await press(data) == (200, {"kind": "ollama", "title": "Ollama"})
    assert await sync_to_async(Endpoint.objects.count)() == 0


async def test_it_asks_with_the_stored_credentials_but_nowhere_else() -> None:
    async with ScriptedBackend({**OLLAMA, "*": Reply(404)}) as backend, ScriptedBackend(Reply(404)) as other:
        endpoint = await sync_to_async(Endpoint.objects.create)(
            name="a", url=backend.url, auth_type="bearer", auth_secret=Secret("the-stored-key-1")
        )
        assert (await press(form_data(endpoint), endpoint))[0] == 200
        assert backend.requests[0].header("authorization") == "Bearer the-stored-key-1"
        await sync_to_async(get_user_model().objects.all().delete)()
        status, found = await press(form_data(endpoint, url=other.url), endpoint)
    assert (status, other.requests) == (400, [])
    assert "again" in found["error"]
    assert not await sync_to_async(EndpointHealth.objects.filter(detected_type="ollama").exists)()


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "nonsense", "http://u:p@127.0.0.1:1"])
async def test_it_refuses_what_the_form_refuses(url: str) -> None:
    status, found = await press({**FILLED, "url": url})
    assert status == 400
    assert found["error"]


async def test_it_says_when_nobody_answers() -> None:
    status, found = await press({**FILLED, "url": "http://127.0.0.1:1", "check_timeout": "1"})
    assert (status, "No server of a known type" in found["error"]) == (404, True)


@pytest.mark.parametrize("codename", ["view_endpoint", "change_endpoint"])
async def test_it_asks_nothing_for_those_who_may_not_add_endpoints(codename: str) -> None:
    async with ScriptedBackend(Reply(404)) as backend:
        assert (await press({**FILLED, "url": backend.url}, codename=codename))[0] == 403
    assert backend.requests == []


def test_its_button_is_on_both_forms(admin_client: Client) -> None:
    endpoint = Endpoint.objects.create(name="a", url="http://127.0.0.1:1")
    page = admin_client.get(reverse("admin:endpoints_endpoint_change", args=[endpoint.pk])).content.decode()
    assert f'data-address="{reverse(STORED, args=[endpoint.pk])}"' in page
    assert "endpoints/detect.js" in page
    assert (
        f'data-address="{reverse(NEW)}"'
        in admin_client.get(reverse("admin:endpoints_endpoint_add")).content.decode()
    )
