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
        own = PROFILES[kind].prefixes
        routes = [(prefix, spellings(path)) for prefix in ("proxy", "openai", "anthropic", *own[:1])]
        routes += [(prefix, spellings(path)[:4]) for prefix in own[1:]]  # they are the first under another name
        for prefix, targets in routes:
            for target in targets:
                if kind == "litellm" and target == f"{path}/x":
                    continue
                slash = "" if target.startswith(("/", "%2f")) else "/"
                answer = await proxy.call(method, f"/olla/{prefix}{slash}{target}", BODY, query=b"to=/v1/models")
                assert answer.status in (400, 403, 404, 405, 501), (prefix, target)
        assert backend.requests == []
        assert (await proxy.chat()).status == 200
