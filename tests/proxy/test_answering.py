"""A backend's odd error bodies reach the client as they are, and hold nothing open here."""

from __future__ import annotations

import pytest

from proxy.live import live
from tests.fakes import Reply, ScriptedBackend
from tests.proxy.conftest import Proxy

JSON = (b"Content-Type", b"application/json")


@pytest.mark.parametrize(
    "body",
    [b'{"a\xff": 1, "error": 2}', b'{"error": ' + b"[" * 60_000, b'{"error"', b"[]", b"", b'{"error": NaN}'],
)
async def test_it_passes_on_an_error_body_it_cannot_read(proxy: Proxy, body: bytes) -> None:
    reply = Reply(status=400, headers=[JSON], body=body)
    async with ScriptedBackend(reply) as backend:
        endpoint = await proxy.add(backend.url)
        answer = await proxy.call("POST", "/olla/openai/v1/chat/completions", {"model": "m"})
    assert (answer.status, answer.body) == (400, body)
    assert not live.in_flight.get(endpoint.pk)
