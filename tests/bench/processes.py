"""The processes a measurement runs: started on free ports, their CPU and memory read from /proc."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.seed import seed_database
from tests.live import NO_LIMITS, ROOT, LiveServer

# The kernel's number for "what the scheduler counted", which with a process's number makes the id of its clock.
_CPU_CLOCK = 2
PAGE = os.sysconf("SC_PAGE_SIZE")
MODEL = "bench"
# Counted as by default, with limits that no measurement reaches.
COUNTED = dict.fromkeys(NO_LIMITS, "1000000000")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, to the nanosecond (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime(~process << 3 | _CPU_CLOCK) for process in (pid, *children(pid)))


def processor_ticks() -> tuple[int, int]:
    """Clock ticks of all processors since the start: stolen by the machine's host, and in all (proc_stat(5))."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def children(pid: int) -> list[int]:
    """Processes started by `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in use now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def constant_upstream() -> Iterator[tuple[int, int]]:
    """(port, pid) of the constant upstream."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.upstream"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found
        yield int(found[1]), process.pid
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def product(upstream: int, folder: Path, env: dict[str, str] | None = None) -> Iterator[LiveServer]:
    """The product before one endpoint, without its prober."""
    rows = [{"name": "up", "url": f"http://127.0.0.1:{upstream}", "kind": "openai-compatible", "models": [MODEL]}]
    seed_database(folder, rows)
    with LiveServer(data_dir=folder, env={**COUNTED, **(env or {})}) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is measured: where it listens and its process id."""

    port: int
    pid: int


@contextmanager
def ollaserver_alone() -> Iterator[LiveServer]:
    """OllaServer before an application that answers at once."""
    with LiveServer(app="tests.bench.constant_app:application", env={"OLLA_LOG_LEVEL": "WARNING"}) as server:
        yield server


@contextmanager
def uvicorn_alone() -> Iterator[Served]:
    """uvicorn with its C parser before the same application, without an access log."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "uvicorn", "tests.bench.constant_app:application", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "error", "--fd", str(listener.fileno()), "--loop", "asyncio"]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
        try:
            yield Served(port, process.pid)
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def bare_relay(upstream: int) -> Iterator[LiveServer]:
    """The yardstick under the same server."""
    env = {"BENCH_UPSTREAM": f"http://127.0.0.1:{upstream}"}
    with LiveServer(app="tests.bench.bare_relay:application", env=env) as server:
        yield server
