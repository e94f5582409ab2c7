"""Ollama's own questions, answered for several Ollama servers as if they were one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from endpoints.models import DiscoveredModel, EndpointHealth
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.conftest import Proxy


async def set_model(name: str, **values: Any) -> None:
    await sync_to_async(DiscoveredModel.objects.filter(name=name).update)(**values)


async def test_it_tells_what_any_of_them_has_in_memory(proxy: Proxy) -> None:
    for number, models in enumerate((["a:8b", "b:8b"], ["c:8b"], ["d:8b"])):
        await proxy.add(f"http://127.0.0.1:{number + 1}", f"o{number}", models, backend_type="ollama")
    later = timezone.now() + timedelta(minutes=4)
    await set_model("a:8b", state="loaded", memory_bytes=7, memory_until=later, memory_context=4096, digest="d1")
    await set_model("c:8b", state="loaded", size_bytes=9, memory_until=timezone.now() - timedelta(minutes=1))
    await set_model("d:8b", state="loaded")
    await sync_to_async(EndpointHealth.objects.filter(endpoint__name="o2").update)(status="offline")
    await proxy.refresh()
    before = datetime.now(UTC).replace(microsecond=0)
    done = await proxy.call("GET", "/olla/ollama/api/ps")
    first, second = done.json()["models"]
    assert {key: first[key] for key in ("name", "model", "size", "size_vram", "digest", "context_length")} == {
        "name": "a:8b", "model": "a:8b", "size": 7, "size_vram": 7, "digest": "d1", "context_length": 4096,
    }  # fmt: skip
    assert first["expires_at"] == later.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (second["name"], second["size"]) == ("c:8b", 9)
    assert datetime.fromisoformat(second["expires_at"]) >= before


@pytest.mark.parametrize(
    ("versions", "told"), [(["0.12.10", "0.12.9"], "0.12.9"), (["0.13.0-rc1", ""], "0.13.0-rc1")]
)
async def test_it_tells_the_oldest_version(versions: list[str], told: str, proxy: Proxy) -> None:
    for number, version in enumerate(versions):
        endpoint = await proxy.add(f"http://127.0.0.1:{number + 1}", f"o{number}", backend_type="ollama")
        await sync_to_async(EndpointHealth.objects.filter(pk=endpoint.pk).update)(server_version=version)
    await proxy.refresh()
    assert (await proxy.call("GET", "/olla/ollama/api/version")).json() == {"version": told}


async def test_it_asks_an_endpoint_while_no_version_is_known(proxy: Proxy) -> None:
    async with ScriptedBackend({"/api/version": json_reply({"version": "0.9.0"})}) as backend:
        await proxy.add(backend.url, backend_type="ollama")
        assert (await proxy.call("GET", "/olla/ollama/api/version")).json() == {"version": "0.9.0"}


@pytest.mark.parametrize("field", ["model", "name"])
async def test_it_has_a_model_shown_by_an_endpoint_that_has_it(field: str, proxy: Proxy) -> None:
    shown = {"/api/show": json_reply({"capabilities": ["completion"], "template": "x"})}
    async with ScriptedBackend(shown) as one, ScriptedBackend(shown) as two:
        await proxy.add(one.url, "one", ["a:8b"], backend_type="ollama")
        await proxy.add(two.url, "two", ["b:latest"], backend_type="ollama")
        done = await proxy.call("POST", "/olla/ollama/api/show", {field: "B", "verbose": True})
    assert (done.status, done.header("X-Olla-Endpoint"), done.json()["template"]) == (200, "two", "x")
    assert one.requests == []
    assert two.requests[-1].json() == {"model": "b:latest", "verbose": True}


async def test_its_answers_need_no_backend(proxy: Proxy) -> None:
    began = time.monotonic()
    await proxy.add("http://127.0.0.1:1", backend_type="ollama", models=["m"])
    await set_model("m", state="loaded")
    await proxy.refresh()
    for path in ("api/tags", "api/ps", "v1/models"):
        assert (await proxy.call("GET", f"/olla/ollama/{path}")).status == 200
    assert time.monotonic() - began < 30
