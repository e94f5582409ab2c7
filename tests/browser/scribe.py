"""Writes into the database of a running server as its prober or an administrator would, from a process of its own.

The process stays for the next job on the same data folder: setting Django up costs more than a second.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_DONE = "done"


class _Scribe:
    """The process on one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.scribe"],
            cwd=ROOT,
            env={**os.environ, "OLLA_DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "olla_site.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: dict[str, Any]) -> None:
        """Have a job done. Raises AssertionError with what went wrong."""
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert answers is not None
        pipe.write(f"{json.dumps(job)}\n")
        pipe.flush()
        answer = answers.readline()
        assert answer, f"the scribe ended ({self._process.wait(60)})"
        said = json.loads(answer)
        assert said == _DONE, said

    def close(self) -> None:
        """End it; it leaves when nobody can give it a job any more."""
        self._process.communicate(timeout=60)


_current: list[_Scribe] = []


def run_in_django(data_dir: Path, code: str, **values: Any) -> None:
    """Run lines of Python, which find `values` as variables, on the database in `data_dir`."""
    if not _current or _current[0].data_dir != data_dir:
        close()
        _current.append(_Scribe(data_dir))
    _current[0].run({"code": code, "values": values})


@atexit.register
def close() -> None:
    """End the process if there is one."""
    while _current:
        _current.pop().close()


def main() -> None:
    """Do a job a line."""
    import django

    django.setup()
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        job = json.loads(line)
        try:
            exec(job["code"], dict(job["values"]))  # noqa: S102 - lines of the tests themselves
            said = _DONE
        except Exception:  # noqa: BLE001 - whatever it is, the test shows it
            said = traceback.format_exc()
        answers.write(f"{json.dumps(said)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
