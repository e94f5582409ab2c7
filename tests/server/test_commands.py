"""`manage.py serve` and `manage.py runserver` as an operator starts them."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.live import ROOT, LiveServer, steady_port
from tests.server.raw import RawClient, wait_for
from tests.server.test_prober_child import is_alive


def find_probers(data_dir: Path) -> list[int]:
    """The prober processes that work on this data folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except (OSError, ValueError):
            continue
        if b"\0probe_endpoints\0" in command and str(data_dir).encode() in environment:
            found.append(int(entry.name))
    return found


def test_serve_answers_and_logs_each_request() -> None:
    with LiveServer() as server, RawClient(server) as client:
        answer = client.get("/version?api_key=hush")
        assert answer.status == 200
        assert answer.headers["x-olla-request-id"]
        wait_for(lambda: "GET /version?api_key=*** 200" in server.output())
        assert "hush" not in server.output()


def holds_lease(data_dir: Path) -> bool:
    """Whether a prober has begun its work."""
    with closing(sqlite3.connect(data_dir / "olla.sqlite3", timeout=60)) as database:
        return bool(database.execute("SELECT 1 FROM endpoints_proberlease").fetchall())


def test_serve_takes_its_prober_along_even_when_killed() -> None:
    with LiveServer(args=()) as server:
        # A process is there before it works: only once it holds the lease does it watch whose child it is.
        wait_for(lambda: holds_lease(server.data_dir))
        assert find_probers(server.data_dir)
        server.process.kill()  # type: ignore[union-attr]
        server.wait()
        wait_for(lambda: not find_probers(server.data_dir))


def test_serve_ends_its_prober_on_sigterm() -> None:
    with LiveServer(args=()) as server:
        wait_for(lambda: bool(find_probers(server.data_dir)))
        server.signal()
        assert server.wait() == 0
        assert not find_probers(server.data_dir)


def test_serve_says_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=r"did not start \(1\):\n(.|\n)*Cannot listen"):
            LiveServer(args=("--no-prober", "--port", str(port))).start()


def test_runserver_answers_and_starts_again_when_code_changes(tmp_path: Path) -> None:
    port = steady_port()
    touched = tmp_path / "touched_module.py"
    touched.write_text("")
    # A settings module outside the project: the reloader watches every module that was imported.
    (tmp_path / "runserver_settings.py").write_text("from olla_site.settings import *\nimport touched_module\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "runserver_settings",
        "OLLA_DATA_DIR": str(tmp_path / "data"),
    }
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--no-prober", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = SimpleNamespace(host="127.0.0.1", port=port)
    try:
        wait_for(lambda: output.read_text().count("Olla listens on") == 1)
        with RawClient(server) as client:
            assert client.get("/version").status == 200

        def has_started_again() -> bool:
            # Once more each time: the reloader may not have looked at the file for the first time yet.
            os.utime(touched, (time.time() + 5, time.time() + 5))
            return "changed, reloading" in output.read_text()

        wait_for(has_started_again)
        wait_for(lambda: output.read_text().count("Olla listens on") >= 2)
        with RawClient(server) as client:
            assert client.get("/version").status == 200
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # SIGINT is ignored where the tests run in the background
        process.wait(60)
    assert not is_alive(process.pid)
