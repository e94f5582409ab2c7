"""`manage.py demo` as a process: what it prints works, and nothing outlives it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from endpoints.models import Endpoint
from olla_site.demo.registration import PLANS, NameTakenError, register, remove
from olla_site.management.commands.demo import check_port
from tests.live import steady_port

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 90.0


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and nobody waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Demo:
    """A running demo on a data folder and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = steady_port()
        self._output = folder / "output"
        env = {name: value for name, value in os.environ.items() if not name.startswith("OLLA_")}
        self.env = {**env, "OLLA_DATA_DIR": str(folder / "data"), "DJANGO_SETTINGS_MODULE": "olla_site.settings"}

        argv = [
            sys.executable,
            "manage.py",
            "demo",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--delay",
            "0",
        ]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def text(self) -> str:
        return self._output.read_text()

    def wait_until_ready(self) -> None:
        wait_until(lambda: "The demo is ready" in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()

    def ask(self) -> httpx.Response:
        """Send what the printed curl sends."""
        line = next(line for line in self.text().splitlines() if line.startswith("curl "))
        _, _, url, _, header, _, body = shlex.split(line)
        name, _, value = header.partition(": ")
        return httpx.post(url, content=body, headers={name: value}, trust_env=False, timeout=30)

    def backend_pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"demo-\w+ +process (\d+):", self.text())]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def test_it_streams_what_it_printed_and_survives_a_dead_backend(demo):
    answer = demo.ask()
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "demo backend" in "".join(
        json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]
    )
    assert events[-1] == "[DONE]"
    first, second = demo.backend_pids()
    os.kill(first, signal.SIGKILL)
    assert [demo.ask().status_code for _ in range(4)] == [200] * 4
    demo.process.send_signal(signal.SIGINT)
    demo.process.wait(DEADLINE)
    assert not is_running(second)


def test_it_takes_its_children_along_when_it_is_killed(demo):
    children = children_of(demo.process.pid)
    assert set(demo.backend_pids()) < set(children)  # the prober is the third
    demo.process.kill()
    demo.process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in children))


def test_it_says_which_port_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port} is taken.*make demo PORT={port + 1}"):
            check_port("127.0.0.1", port)


@pytest.mark.django_db
def test_it_registers_once_and_renews_the_address():
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        for plan in PLANS:
            register(plan, url)
    assert set(Endpoint.objects.values_list("name", "url", "tags")) == {
        ("demo-ollama", "http://127.0.0.1:2", "demo"),
        ("demo-openai", "http://127.0.0.1:2", "demo"),
    }


@pytest.mark.django_db
def test_it_leaves_an_operators_own_endpoint_alone():
    Endpoint.objects.create(name="demo-ollama", url="http://gpu-1:11434", backend_type="ollama")
    with pytest.raises(NameTakenError, match="demo-ollama"):
        register(PLANS[0], "http://127.0.0.1:1")
    assert remove() == 0


@pytest.mark.django_db
def test_it_cleans_up(capsys):
    register(PLANS[0], "http://127.0.0.1:1")
    Endpoint.objects.create(name="mine", url="http://gpu-1:11434", backend_type="ollama")
    call_command("demo", clean=True)
    assert "Removed 1 demo endpoints." in capsys.readouterr().out
    assert [each.name for each in Endpoint.objects.all()] == ["mine"]
