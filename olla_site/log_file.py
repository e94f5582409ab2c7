"""A log file that starts anew when it is full, shared by the server and its prober.

Each process has the file open; the one that finds it full renames it under a lock, and the others notice that
another file stands in its place. A disk that is full is told once, on standard error, and costs log lines only.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any


class SharedRotatingFile(logging.handlers.RotatingFileHandler):
    """RotatingFileHandler for several processes, readable by this user alone."""

    def __init__(self, filename: str, maxBytes: int, backupCount: int) -> None:  # noqa: N803 - the parent's names
        self._is_failing = False
        super().__init__(filename, maxBytes=maxBytes, backupCount=backupCount, encoding="utf-8", delay=True)
        self.setFormatter(None)

    def _open(self) -> Any:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_open_private)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that is there now."""
        if self.stream is not None and not self._is_current():
            self.stream.close()
            self.stream = None  # the parent opens it anew
        super().emit(record)

    def _is_current(self) -> bool:
        try:
            there = Path(self.baseFilename).stat()
        except OSError:
            return False
        if self.stream is None:
            return False
        mine = os.fstat(self.stream.fileno())
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def doRollover(self) -> None:  # noqa: N802 - the parent's name
        """Rename the full file, unless another process has done so while this one waited for the lock."""
        with open(f"{self.baseFilename}.lock", "a", opener=_open_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current():
                super().doRollover()
                return
        if self.stream is not None:
            self.stream.close()
        self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the parent's name
        """Say once that lines are lost, and once more after the file could be written again."""
        if not self._is_failing:
            self._is_failing = True
            error = sys.exc_info()[1]
            sys.stderr.write(f"The log file {self.baseFilename} cannot be written: {error}\n")

    def flush(self) -> None:
        """Put what was written into the file; that it worked ends a failure."""
        super().flush()
        if self.stream is not None:
            self._is_failing = False


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
