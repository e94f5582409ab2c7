"""Real inference servers as processes of their own: started on a free port, waited for, ended by process id."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.live import ROOT

REAL = ROOT / ".venv-real" / "bin"
LLAMA_SERVER = REAL / "llama-server"
LITELLM_KEY = "sk-real-5d0c8e6f2b7a49d1a3c4e5f60718293a"
ANSWER = "Mock says hello to you."
_START_SECONDS = 300.0  # LiteLLM alone takes half a minute of processor time


@dataclass
class RealServer:
    """A server under the product: its models, and how it is registered."""

    name: str
    model: str
    kind: str  # as it should be detected
    port: int
    process: subprocess.Popen[bytes]
    columns: dict[str, str]
    key: str = ""

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request straight to it needs."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def start_litellm(folder: Path) -> RealServer:
    """LiteLLM's proxy with one mocked model and a master key."""
    model = {
        "model_name": "mock-gpt",
        "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "none", "mock_response": ANSWER},
        "model_info": {"mode": "chat", "max_input_tokens": 4096},
    }
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": [model], "litellm_settings": {"telemetry": False}}))
    port = _free_port()
    argv = [str(REAL / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {"LITELLM_MASTER_KEY": LITELLM_KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = _start(argv, folder, env)
    columns = {"auth_type": "bearer", "auth_secret": "${REAL_LITELLM_API_KEY}"}
    server = RealServer("real-litellm", "mock-gpt", "litellm", port, process, columns, LITELLM_KEY)
    _wait(server, "/health/liveliness", folder)
    return server


def start_llamacpp(folder: Path, port: int = 0) -> RealServer:
    """llama.cpp's server with a tiny random model."""
    model = folder / "tiny.gguf"
    script = Path(__file__).with_name("tiny_model.py")
    subprocess.run([str(REAL / "python"), str(script), str(model)], check=True, cwd=folder)
    port = port or _free_port()
    argv = [str(LLAMA_SERVER), "--model", str(model), "--alias", "tiny", "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--ctx-size", "8192", "--parallel", "2", "--threads", "1", "--slots", "--jinja"]
    process = _start(argv, folder, {})
    server = RealServer("real-llamacpp", "tiny", "llamacpp", port, process, {})
    _wait(server, "/health", folder)
    return server


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _start(argv: list[str], folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    env = {"PATH": f"{REAL}:/usr/bin:/bin", "HOME": str(folder), **env}
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(argv, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)


def _wait(server: RealServer, path: str, folder: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if httpx.get(server.url + path, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    server.stop()
    raise AssertionError(f"{server.name} did not start:\n" + (folder / "output").read_text()[-4000:])
