"""Demo backends as child processes that never outlive their parent.

Each child's standard input is a pipe whose only writing end is here: when this process ends, also by SIGKILL,
the kernel closes it, the child reads end of file, and ends.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass

from django.conf import settings

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0


class ChildError(Exception):
    """A demo backend that did not start."""


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What one child is to be. `kind` is also the type it is registered as."""

    name: str
    kind: str
    models: tuple[str, ...]


class DemoChild:
    """One demo backend on a free port: `start`, then `wait_for_url`, then `stop`."""

    def __init__(self, plan: ChildPlan, delay: float) -> None:
        self.plan = plan
        manage = settings.BASE_DIR / "manage.py"
        self._argv = [
            *(sys.executable, str(manage), "demo_backend", "--until-stdin-closes"),
            *("--name", plan.name, "--type", plan.kind, "--models", ",".join(plan.models), "--delay", str(delay)),
        ]
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process. In a group of its own: Ctrl-C reaches the server, which ends in order."""
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )

    def wait_for_url(self) -> str:
        """The address from the child's first line, printed once it listens. Raises ChildError."""
        process = self._process
        if process is None or process.stdout is None:
            raise ChildError(f"{self.plan.name} was not started.")
        watchdog = threading.Timer(_START_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line.startswith("http://"):
            raise ChildError(f"{self.plan.name} did not start; its error is above.")
        return line.split()[0]

    def stop(self) -> None:
        """End the process: asked first, killed after five seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
