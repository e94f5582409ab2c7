"""Servers under test as processes of their own, on ephemeral ports, ended by process id."""

from __future__ import annotations

import atexit
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

from tests.canaries import watch

ROOT = Path(__file__).resolve().parent.parent
_BANNER = re.compile(r"listens on http://(\S+?):(\d+)/")
_DEADLINE = 60.0
# All test clients share one address.
NO_LIMITS = {
    f"OLLA_{name}": "0" for name in ("GLOBAL_REQUESTS_PER_MINUTE", "PER_IP_REQUESTS_PER_MINUTE", "BURST_SIZE")
}


# What a first start does but listen; its last line tells the password.
_FIRST_START = """
import sys, django
django.setup()
from olla_site.first_start import create_first_account, migrate
migrate()
sys.stdout.write(create_first_account())
"""


@cache
def _first_start() -> tuple[Path, str]:
    """A database as a first start leaves it, and its account's password.

    Made once a run: migrations cost a second of each start, the password's hash half a second.
    """
    folder = Path(tempfile.mkdtemp(prefix="olla-tables-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    env = {**os.environ, "OLLA_DATA_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "olla_site.settings"}
    argv = [sys.executable, "-c", _FIRST_START]
    made = subprocess.run(argv, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return folder / "olla.sqlite3", made.stdout


def lay_tables(data_dir: Path) -> None:
    """Put a database with the first account into a data folder that has none. A first start has its own tests."""
    file = data_dir / "olla.sqlite3"
    if not file.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(_first_start()[0], file)


def first_password() -> str:
    """The password of `admin` in the databases that `lay_tables` lays."""
    return _first_start()[1]


def steady_port() -> int:
    """A port of the loopback address that stays free until a test listens there, also for a second time.

    Not one of those that the system hands out by itself: another process might be given it in between, be it only
    for the near end of a connection.
    """
    lowest, highest = _system_ports()
    steady = [port for port in range(10_000, 65_536) if not lowest <= port <= highest]
    while True:
        port = random.SystemRandom().choice(steady or range(10_000, 65_536))
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _system_ports() -> tuple[int, int]:
    """The ports that the system hands out by itself: RFC 6335's where it does not say."""
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except FileNotFoundError:
        return 49_152, 65_535
    return int(lowest), int(highest)


class LiveServer:
    """A running server: `with LiveServer() as server: ... server.url`.

    By default it is `manage.py serve --port 0 --no-prober` on a data folder of its own, in which it finds empty
    tables and the first account, and nothing at all with `first_start`; `env` adds to its environment, `args` to
    its command line. With `app="module:name"` it is
    OllaServer around that ASGI application alone, without Django's applications (`tests/server/serve_app.py`).
    """

    def __init__(
        self,
        *,
        env: dict[str, str] | None = None,
        args: Sequence[str] = ("--no-prober",),
        app: str | None = None,
        data_dir: Path | None = None,
        first_start: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="olla-live-")
        folder = Path(self._folder.name)
        self.data_dir = data_dir or folder / "data"
        self._output = folder / "output"
        if app is None:
            command = ["manage.py", "serve", "--host", "127.0.0.1", "--port", "0", *args]
        else:
            command = ["-m", "tests.server.serve_app", app]
        self._argv = [sys.executable, "-X", "faulthandler", *command]
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OLLA_")},
            "DJANGO_SETTINGS_MODULE": "olla_site.settings",
            "OLLA_DATA_DIR": str(self.data_dir),
            **NO_LIMITS,
            **(env or {}),
        }
        self._needs_tables = app is None and not first_start
        self.host = "127.0.0.1"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to work on the server's data."""
        return dict(self._env)

    def output(self) -> str:
        """Everything the server wrote so far, standard error included."""
        return self._output.read_text(errors="replace")

    def start(self) -> LiveServer:
        """Start it and wait for its banner, which it prints once it listens."""
        if self._needs_tables:
            lay_tables(self.data_dir)
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                self._argv,
                cwd=ROOT,
                env=self._env,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            found = _BANNER.search(self.output())
            if found:
                self.host, self.port = found[1], int(found[2])
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        code, output = self.stop(), self.output()
        self._folder.cleanup()
        raise AssertionError(f"The server did not start ({code}):\n{output}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = _DEADLINE) -> int:
        """Wait until it has ended; its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self) -> int:
        """End it at once (a second signal cuts what is open); its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
        code = self.process.wait()
        watch.look(self.output(), "output of the server under test")
        return code

    def __enter__(self) -> LiveServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            sys.stderr.write(self.output()[-8000:])
        self._folder.cleanup()
