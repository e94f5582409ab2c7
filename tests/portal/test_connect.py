"""The page that tells how to use this server."""

from __future__ import annotations

import shlex

import pytest

from olla_site.portal.connect import build_curl
from tests.portal.fleet_rows import endpoint, lease, load_now

pytestmark = pytest.mark.django_db


def test_it_offers_a_request_with_the_real_address_and_a_model_that_chats(viewer):
    lease()
    endpoint("a", "nomic-embed-text", "llama3:8b")
    endpoint("down", "aaa", status="offline", priority=900)
    load_now()

    text = viewer.get("/connect/", HTTP_HOST="gpu.example:40114").content.decode()

    assert "curl -N http://gpu.example:40114/olla/openai/v1/chat/completions" in text
    assert "llama3:8b&quot;, &quot;stream" in text
    assert 'id="base-ollama">http://gpu.example:40114/olla/ollama<' in text


def test_it_quotes_model_names_for_the_shell():
    words = shlex.split(build_curl("http://x", 'it\'s $(rm -rf) `x` "q"'))

    assert words[-1].startswith('{"model": "it\'s $(rm -rf) `x` \\"q\\""')
