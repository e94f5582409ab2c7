"""The page that tells how to use this server."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess

import pytest

from olla_site.portal.snippets import build_curl, build_embedding, build_snippets
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


AWKWARD = 'org/it\'s "q" $(rm -rf) `x` \\ <b>\u202e'


def test_it_writes_python_and_json_that_parse_whatever_the_model_is_called():
    for snippet in build_snippets("http://x:1", AWKWARD):
        if snippet.key.endswith("python"):
            strings = [n.value for n in ast.walk(ast.parse(snippet.code)) if isinstance(n, ast.Constant)]
            assert AWKWARD in strings, snippet.key
        elif snippet.code.startswith("{"):
            assert AWKWARD in snippet.code or json.dumps(AWKWARD, ensure_ascii=False) in snippet.code
            json.loads(snippet.code)


def test_it_writes_shell_lines_that_set_what_they_say():
    for key in ("claude-code", "ollama"):
        (code,) = [snippet.code for snippet in build_snippets("http://x:1", AWKWARD) if snippet.key == key]
        assert AWKWARD in [part.split("=", 1)[-1] for part in shlex.split(code)]


def test_it_writes_javascript_that_parses(tmp_path):
    node = shutil.which("node")
    assert node is not None, "node is missing; the browser tests need it too"
    (ours,) = [each.code for each in build_snippets("http://x:1", AWKWARD) if each.key == "openai-js"]
    for number, code in enumerate([ours, build_embedding("http://x:1", AWKWARD)]):
        file = tmp_path / f"{number}.mjs"
        file.write_text(code)
        subprocess.run([node, "--check", str(file)], check=True, capture_output=True)


def test_it_takes_the_model_that_is_chosen(viewer):
    load_now()

    text = viewer.get("/connect/", {"model": "<b>mine"}).content.decode()

    assert "&lt;b&gt;mine" in text
    assert "<b>mine" not in text


def test_it_says_who_may_call_from_other_pages(viewer, settings):
    load_now()
    settings.CORS_ALLOW_ALL_ORIGINS, settings.CORS_ALLOWED_ORIGINS = False, ["https://portal.example"]

    assert "https://portal.example" in viewer.get("/connect/").content.decode()
