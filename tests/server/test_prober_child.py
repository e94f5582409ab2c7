"""The prober beside the server: never outlives it, comes back when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from olla_site.server.prober_child import ProberChild, build_prober_argv
from tests.live import ROOT
from tests.server.raw import wait_for

# Waits for the end of the pipe, as the real command does.
WAITING = "import os, sys; os.read(int(sys.argv[1]), 1)"
PARENT = """
import sys, time
sys.path.insert(0, {root!r})
import django; django.setup()
from olla_site.server.prober_child import ProberChild
child = ProberChild(lambda pipe: [sys.executable, "-c", {waiting!r}, str(pipe)])
child.start(0)
print(child.pid, flush=True)
time.sleep(600)
"""


def waiting(pipe: int) -> list[str]:
    return [sys.executable, "-c", WAITING, str(pipe)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def open_pipes() -> set[str]:
    """The pipes of this process; other descriptors come and go with what runs in its threads."""
    found: set[str] = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(each.readlink()))
    return {target for target in found if target.startswith("pipe:")}


@pytest.fixture
def child() -> Iterator[ProberChild]:
    made = ProberChild(waiting)
    yield made
    made.stop()


def test_it_starts_and_stops_its_child(child: ProberChild) -> None:
    before = open_pipes()
    child.start(0)
    pid = child.pid
    assert pid is not None
    assert is_alive(pid)
    child.stop()
    assert not is_alive(pid)
    assert open_pipes() <= before


def test_it_starts_a_dead_child_again_later_each_time(child: ProberChild) -> None:
    child.start(0)
    now = 0.0
    for pause in (1, 2, 4):
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        child.check(now)
        child.check(now + pause - 0.1)
        assert child.pid is None
        now += pause
        child.check(now)
        assert child.pid is not None


def test_it_forgives_a_child_that_lived_long(child: ProberChild) -> None:
    child.start(0)
    for begun in (0.0, 1000.0):
        pid = child.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        child.check(begun + 999)
        child.check(begun + 1000)
        assert child.pid is not None


def test_it_kills_a_child_that_ignores_the_request_to_end() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    child = ProberChild(lambda _: [sys.executable, "-c", code], stop_seconds=0.2)
    child.start(0)
    pid = child.pid
    assert pid is not None
    child.stop()
    assert not is_alive(pid)


def test_it_takes_its_child_along_when_it_is_killed() -> None:
    root = str(ROOT)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root, waiting=WAITING)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_alive(pid))


def test_it_runs_the_management_command() -> None:
    argv = build_prober_argv(7)
    assert argv[2:] == ["probe_endpoints", "--parent-pipe", "7"]
