"""The floors hold, and a violation of each kind would be caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """lint-imports in a folder that holds the packages."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("endpoints/health.py", "import proxy.errors", "Floors"),
        ("endpoints/health.py", "import asyncio", "Pure modules"),
        ("proxy/routing.py", "import django.conf", "Pure modules"),
        ("translation/sse.py", "import httpx", "Translation imports"),
        ("proxy/forwarding.py", "import endpoints.models", "Nothing on the request path"),
    ],
)
def test_it_catches_a_planted_violation(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in ("olla_site", "endpoints", "proxy", "translation"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("static", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / module
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout
    broken = [text for text in result.stdout.splitlines() if "BROKEN" in text]
    assert [contract in text for text in broken] == [True], result.stdout
