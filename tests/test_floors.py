"""The floors hold, and a violation of each kind would be caught."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
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


def test_it_lists_every_module_that_calls_itself_pure() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = {name for each in contracts if each["name"].startswith("Pure") for name in each["source_modules"]}
    files = [file for package in ("endpoints", "proxy", "olla_site") for file in (ROOT / package).rglob("*.py")]
    # At the end of a line of the docstring: a package's says it of single modules in its list.
    pure = {file for file in files if re.search(r"[.)] \(pure\)$", docstring_of(file), re.MULTILINE)}
    assert {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in pure} == listed


def docstring_of(file: Path) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""
