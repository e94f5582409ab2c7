"""Guarded paths at the door: whatever the route and the spelling, no backend hears of them."""

from __future__ import annotations

import pytest

from endpoints.profiles import PROFILES
from endpoints.secrets import Secret
from tests.fakes import ScriptedBackend, json_reply
from tests.proxy.conftest import Proxy
from tests.proxy.test_guards import GUARDED, spellings

BODY = {"model": "m", "messages": []}


@pytest.mark.parametrize("kind", sorted(PROFILES))
async def test_no_backend_hears_of_a_guarded_path(proxy: Proxy, kind: str) -> None:
    method, path = GUARDED[kind][0]
    async with ScriptedBackend(json_reply({"ok": True})) as backend:
        key = Secret("sk-own")
        await proxy.add(backend.url, backend_type=kind, auth_type="bearer", auth_secret=key)
        for prefix in ("proxy", "openai", *PROFILES[kind].prefixes[:1]):
            for target in spellings(path):
                if kind == "litellm" and target == f"{path}/x":
                    continue
                slash = "" if target.startswith(("/", "%2f")) else "/"
                answer = await proxy.call(method, f"/olla/{prefix}{slash}{target}", BODY)
                assert answer.status in (400, 403, 404, 501), target
        assert backend.requests == []
        assert (await proxy.chat()).status == 200
