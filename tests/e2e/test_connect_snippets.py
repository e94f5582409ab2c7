"""What the Connect page gives to paste, run as it stands against a running server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from olla_site.portal.snippets import Snippet, build_embedding, build_snippets
from tests.e2e.conftest import OLLAMA_MODEL, OPENAI_MODEL, SLASH_MODEL, Site

NODE_MODULES = Path(__file__).resolve().parent.parent / "npm" / "node_modules"
SECONDS = 60.0
# Stand-ins for command-line clients too large to install for this: they read what the snippet sets as the real
# ones do, through their makers' own Python packages. `make test-real` drives real ones.
OLLAMA = """
import sys
from ollama import Client  # reads OLLAMA_HOST
client = Client()
if sys.argv[1] == "list":
    print(*sorted(each.model for each in client.list().models), sep="\\n")
else:
    for part in client.generate(sys.argv[2], "Say hello.", stream=True):
        print(part.response, end="")
"""
CLAUDE = """
import os
from anthropic import Anthropic  # reads ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN
for name in ("ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"):
    said = [{"role": "user", "content": "Say hello."}]
    message = Anthropic().messages.create(model=os.environ[name], max_tokens=99, messages=said)
    print(message.content[0].text)
"""
DUMP = "import json, os; print(json.dumps(dict(os.environ)))"
EMBEDDED = """
let shown = "";
globalThis.document = { querySelector: () => ({ append: (text) => { shown += text; } }) };
process.on("exit", () => console.log(shown));
"""


def snippet(site: Site, key: str, model: str) -> Snippet:
    """One client's text for the running server."""
    (found,) = [each for each in build_snippets(site.url, model) if each.key == key]
    return found


def run(folder: Path, *argv: str) -> str:
    """What a command prints, with nothing in its environment that would help it; it must succeed."""
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONUTF8": "1"}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def put_command(folder: Path, name: str, code: str) -> None:
    """A command of that name, written in Python."""
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{code}")
    file.chmod(0o755)


def says_hello(text: str) -> bool:
    """Whether there is an answer of the demo's models in what was printed."""
    return len(text.split()) >= 3 and "Error" not in text


@pytest.mark.parametrize(
    ("key", "model"),
    [("openai-python", SLASH_MODEL), ("anthropic-python", OPENAI_MODEL), ("ollama-python", OLLAMA_MODEL)],
)
def test_it_gives_python_that_prints_an_answer(site: Site, tmp_path: Path, key: str, model: str) -> None:
    file = tmp_path / "pasted.py"
    file.write_text(snippet(site, key, model).code)
    assert says_hello(run(tmp_path, sys.executable, str(file)))


def test_it_gives_a_curl_line_that_streams(site: Site, tmp_path: Path) -> None:
    assert shutil.which("curl") is not None, "curl is missing"
    printed = run(tmp_path, "bash", "-c", snippet(site, "curl", SLASH_MODEL).code)
    events = [line for line in printed.splitlines() if line]
    assert len(events) > 3
    assert events[-1] == "data: [DONE]"


def test_it_gives_javascript_that_prints_an_answer(site: Site, tmp_path: Path) -> None:
    assert (NODE_MODULES / "openai").is_dir(), "The npm package openai is missing. Run: make npm"
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    file = tmp_path / "pasted.mjs"
    file.write_text(snippet(site, "openai-js", OLLAMA_MODEL).code)
    assert says_hello(run(tmp_path, "node", str(file)))


def test_it_gives_a_page_of_another_site_code_that_shows_an_answer(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pasted.mjs"
    file.write_text(EMBEDDED + build_embedding(site.url, SLASH_MODEL))
    printed = run(tmp_path, "node", str(file))
    assert printed.startswith("answered by gpu-openai\n")
    assert says_hello(printed.partition("\n")[2])


def test_it_gives_ollamas_command_line_the_right_address(site: Site, tmp_path: Path) -> None:
    put_command(tmp_path, "ollama", OLLAMA)
    printed = run(tmp_path, "bash", "-ec", snippet(site, "ollama", OLLAMA_MODEL).code)
    assert OLLAMA_MODEL in printed.splitlines()
    assert says_hello(printed.rpartition("\n")[2])


def test_it_gives_claude_code_the_right_address_and_models(site: Site, tmp_path: Path) -> None:
    put_command(tmp_path, "claude", CLAUDE)
    printed = run(tmp_path, "bash", "-ec", snippet(site, "claude-code", SLASH_MODEL).code)
    assert says_hello(printed)
    assert len(printed.splitlines()) == 2


def test_it_gives_open_webui_addresses_that_list_models(site: Site, tmp_path: Path) -> None:
    script = f"set -ea\n{snippet(site, 'open-webui', OLLAMA_MODEL).code}\n{sys.executable} -c '{DUMP}'"
    read: dict[str, str] = json.loads(run(tmp_path, "bash", "-c", script))
    tags = httpx.get(f"{read['OLLAMA_BASE_URL']}/api/tags", trust_env=False, timeout=60).json()["models"]
    assert OLLAMA_MODEL in {each["name"] for each in tags}
    key = {"Authorization": f"Bearer {read['OPENAI_API_KEY']}"}
    listed = httpx.get(f"{read['OPENAI_API_BASE_URL']}/models", headers=key, trust_env=False, timeout=60)
    assert {OLLAMA_MODEL, OPENAI_MODEL} <= {each["id"] for each in listed.json()["data"]}


def ask_as_configured(base: str, key: str, model: str) -> httpx.Response:
    """What a client does with an address, a key and a model of its configuration."""
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{base}/chat/completions", json=body, headers=headers, trust_env=False, timeout=30)


def test_it_gives_opencode_a_configuration_that_reaches_the_model(site: Site) -> None:
    config: dict[str, Any] = json.loads(snippet(site, "opencode", SLASH_MODEL).code)
    provider, _, model = config["model"].partition("/")
    settings = config["provider"][provider]
    assert model in settings["models"]
    assert ask_as_configured(settings["options"]["baseURL"], "none", model).status_code == 200


def test_it_gives_crush_a_configuration_that_reaches_the_model(site: Site) -> None:
    (settings,) = json.loads(snippet(site, "crush", SLASH_MODEL).code)["providers"].values()
    (model,) = settings["models"]
    assert ask_as_configured(settings["base_url"], settings["api_key"], model["id"]).status_code == 200
