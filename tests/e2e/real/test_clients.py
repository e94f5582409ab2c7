"""Command-line clients people use, without a screen, with an empty HOME and a key that is none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.real.clients import CLAUDE, OPENCODE
from tests.e2e.scripted_models import ScriptedThread, serve, serve_models
from tests.fakes import ScriptedBackend
from tests.live import LiveServer

# Nothing but the product is asked: the clients' own news, updates and reports stay off.
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
}  # fmt: skip
SECONDS = 180


@dataclass
class Desk:
    """The product before one native and one chat backend, and where a client works."""

    url: str
    native: ScriptedBackend
    chat: ScriptedBackend
    output: LiveServer

    def backend(self, model: str) -> ScriptedBackend:
        """Who has the model."""
        return self.native if model == "native-model" else self.chat


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A server that passes Messages through to one endpoint and translates for the other."""
    with ScriptedThread(ScriptedBackend(serve)) as native, ScriptedThread(ScriptedBackend(serve)) as chat:
        rows = [
            {"name": "gpu-native", "url": native.backend.url, "kind": "vllm", "models": ["native-model"]},
            {"name": "gpu-chat", "url": chat.backend.url, "kind": "openai-compatible", "models": ["chat-model"]},
        ]
        with serve_models(tmp_path_factory.mktemp("clients-data"), rows) as server:
            yield Desk(server.url, native.backend, chat.backend, server)


@pytest.fixture(params=["native-model", "chat-model"])
def model(request: pytest.FixtureRequest) -> str:
    """Passed through and translated."""
    name: str = request.param
    return name


def run(argv: list[str], folder: Path, env: dict[str, str]) -> str:
    """What a client prints; its folder is its HOME too."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    whole = {"PATH": os.defpath, "HOME": str(home), **QUIET, **env}
    done = subprocess.run(
        argv,
        cwd=work,
        env=whole,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def claude(desk: Desk, folder: Path, model: str, prompt: str, *more: str) -> dict[str, object]:
    """Claude Code's own account of one headless run."""
    env = {"ANTHROPIC_BASE_URL": f"{desk.url}/olla/anthropic", "ANTHROPIC_API_KEY": "sk-none"}
    argv = [str(CLAUDE), "-p", prompt, "--model", model, "--output-format", "json", *more]
    result: dict[str, object] = json.loads(run(argv, folder, env))
    return result


def opencode(desk: Desk, folder: Path, model: str, prompt: str) -> str:
    """What OpenCode prints, asking for chat completions or, of the native model, for Messages."""
    native = model == "native-model"
    options = {"baseURL": f"{desk.url}/olla/{'anthropic' if native else 'openai'}/v1", "apiKey": "none"}
    package = "@ai-sdk/anthropic" if native else "@ai-sdk/openai-compatible"
    provider = {"npm": package, "name": "Olla", "options": options, "models": {model: {"name": model}}}
    config = {"autoupdate": False, "small_model": f"olla/{model}", "provider": {"olla": provider}}
    env = {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}
    return run([str(OPENCODE), "run", "--model", f"olla/{model}", prompt], folder, env)


def test_it_answers_claude_code(desk, tmp_path, model):
    result = claude(desk, tmp_path, model, "hello there")
    assert (result["is_error"], result["num_turns"]) == (False, 1)
    assert str(result["result"]).startswith("You said: ")
    sent = desk.backend(model).requests[-1].json()
    assert sent["model"] == model
    assert len(sent["tools"]) > 5


def test_it_carries_claude_codes_tool_calls(desk, tmp_path, model):
    path = tmp_path / "work" / "note.txt"
    asked = json.dumps({"file_path": str(path), "content": "written by a tool"})
    result = claude(desk, tmp_path, model, f"use Write with {asked}", "--permission-mode", "acceptEdits")
    assert (result["is_error"], result["num_turns"], result["permission_denials"]) == (False, 2, [])
    assert path.read_text() == "written by a tool"
    assert "1 rounds" in str(result["result"])


def test_it_tells_claude_code_that_a_model_is_unknown(desk, tmp_path):
    env = {"ANTHROPIC_BASE_URL": f"{desk.url}/olla/anthropic", "ANTHROPIC_API_KEY": "sk-none"}
    argv = [str(CLAUDE), "-p", "hello", "--model", "nobody-has-this", "--output-format", "json"]
    with pytest.raises(AssertionError) as failed:
        run(argv, tmp_path, env)
    assert "nobody-has-this" in str(failed.value)


def test_it_answers_opencode(desk, tmp_path, model):
    assert "You said: " in opencode(desk, tmp_path, model, "hello there")


def test_it_carries_opencodes_tool_calls(desk, tmp_path, model):
    asked = json.dumps({"command": "echo done > made.txt", "description": "Makes a file"})
    text = opencode(desk, tmp_path, model, f"use bash with {asked}")
    assert "1 rounds" in text
    assert (tmp_path / "work" / "made.txt").read_text() == "done\n"
