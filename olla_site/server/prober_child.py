"""The prober beside the server: a child process that never outlives it.

The child inherits the reading end of a pipe nobody writes to. When this process ends, also by SIGKILL, the kernel
closes the only writing end and the child reads end of file: that is its signal to end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from django.conf import settings
from django.core.management import get_commands

logger = logging.getLogger(__name__)

_COMMAND = "probe_endpoints"
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# A child that lived this long has earned a fresh start.
_GOOD_LIFE = 60.0

BuildArgv = Callable[[int], Sequence[str]]


def build_prober_argv(pipe: int) -> list[str]:
    """The command line of the prober; `pipe` is the descriptor whose end of file ends it."""
    manage = settings.BASE_DIR / "manage.py"
    return [sys.executable, str(manage), _COMMAND, "--parent-pipe", str(pipe)]


def has_prober() -> bool:
    """Whether this installation has the prober's command."""
    return _COMMAND in get_commands()


class ProberChild:
    """Keeps one child running: `start`, then `check` about once a second, then `stop`.

    Times are seconds of any monotonic clock, passed in.
    """

    def __init__(self, build_argv: BuildArgv = build_prober_argv, *, stop_seconds: float = 5.0) -> None:
        self._build_argv = build_argv
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[int, int] | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE
        self._next_start: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the running child."""
        return self._process.pid if self._process is not None else None

    def start(self, now: float) -> None:
        """Start the child."""
        if self._pipe is None:
            self._pipe = os.pipe()  # not inheritable, but for the end passed below
        reading = self._pipe[0]
        # Its own process group: Ctrl-C in the terminal reaches the server, which ends the child when it is done.
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            self._build_argv(reading), pass_fds=(reading,), stdin=subprocess.DEVNULL, process_group=0
        )
        self._started = now
        self._next_start = None

    def check(self, now: float) -> None:
        """Start a child that has ended again, later each time it does not last."""
        process = self._process
        if process is not None and process.poll() is not None:
            self._process = None
            if now - self._started >= _GOOD_LIFE:
                self._pause = _FIRST_PAUSE
            logger.warning("the prober ended with %s; next start in %.0f s", process.returncode, self._pause)
            self._next_start = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        elif process is None and self._next_start is not None and now >= self._next_start:
            self.start(now)

    def stop(self) -> None:
        """End the child: asked first, killed after `stop_seconds`."""
        process, self._process = self._process, None
        self._next_start = None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._pipe is not None:
            for end in self._pipe:
                os.close(end)
            self._pipe = None
