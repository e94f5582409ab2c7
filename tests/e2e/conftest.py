"""One server process and two demo backends, shared by the client tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from olla_site.demo import DemoBackend
from tests.e2e.seed import seed_database
from tests.live import LiveServer

OLLAMA_MODEL = "demo-llama:8b"
OPENAI_MODEL = "demo-gpt"
SHARED_MODEL = "demo-mini:1b"
EMBED_MODEL = "demo-embed:latest"
SLASH_MODEL = "demo-org/demo-gpt"


class BackendThread:
    """A demo backend on an event loop of its own thread, so that blocking clients can be driven against it."""

    def __init__(self, backend: DemoBackend) -> None:
        self.backend = backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Start it (again)."""
        if not self._thread.is_alive():
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self.backend.start(), self._loop).result(30)

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self.backend.stop(), self._loop).result(30)

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@dataclass
class Site:
    """What the tests drive."""

    url: str
    ollama: BackendThread
    openai: BackendThread
    server: LiveServer


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def list_models(url: str) -> set[str]:
    """The models the server lists."""
    answer = httpx.get(f"{url}/olla/proxy/v1/models", trust_env=False, timeout=60)
    return {each["id"] for each in answer.json()["data"]}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with an Ollama and an OpenAI endpoint that share one model."""
    one = BackendThread(DemoBackend(kind="ollama", name="o", models=(OLLAMA_MODEL, SHARED_MODEL, EMBED_MODEL)))
    other = BackendThread(DemoBackend(kind="openai", name="p", models=(OPENAI_MODEL, SHARED_MODEL, SLASH_MODEL)))
    backends = (one, other)
    for each in backends:
        each.start()
    data_dir = tmp_path_factory.mktemp("e2e-data")
    rows = [
        {"name": name, "url": each.backend.url, "kind": kind, "models": each.backend.state.models}
        for name, kind, each in zip(("gpu-ollama", "gpu-openai"), ("ollama", "openai"), backends, strict=True)
    ]
    seed_database(data_dir, rows)
    try:
        with LiveServer(data_dir=data_dir) as server:
            wait_until(lambda: {OLLAMA_MODEL, OPENAI_MODEL} <= list_models(server.url))
            yield Site(server.url, one, other, server)
    finally:
        for each in backends:
            each.close()
