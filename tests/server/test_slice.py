"""The server as `manage.py serve` starts it."""

from __future__ import annotations

import http.client

from tests.live import LiveServer


def test_it_serves_the_installation_and_ends_on_sigterm() -> None:
    with LiveServer(app="tests.server.apps:application") as server:
        client = http.client.HTTPConnection(server.host, server.port)
        client.request("POST", "/a%20b?x=1", body=b"hello", headers={"X-Request-ID": "mine"})
        answer = client.getresponse()
        assert answer.status == 200
        assert b'"path": "/a b"' in answer.read()
        client.close()
        server.signal()
        assert server.wait() == 0
        assert "lifespan shutdown" in server.output()
