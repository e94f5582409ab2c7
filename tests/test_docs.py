"""The docs name everything there is: settings, error codes, prefixes, headers, commands, files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from endpoints.conf import Conf
from endpoints.profiles import PREFIXES
from proxy.errors import STATUSES, ErrorCode
from proxy.headers import EXPOSED

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def show_default(value: object) -> str:
    """A default as the table shows it: what one would set the variable to."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def chosen_packages() -> list[tuple[str, str]]:
    """Name and version of the first block of requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text().split("\n\n")[0].splitlines()
    return [(name, version) for name, _, version in (line.partition("==") for line in lines) if version]


@pytest.mark.parametrize("field", dataclasses.fields(Conf), ids=lambda field: field.name)
def test_it_documents_every_setting_with_its_default(field):
    default = show_default(field.default)
    row = f"| `OLLA_{field.name.upper()}` | " + (f"`{default}` |" if default else "|")
    assert row in CONFIGURATION, f"docs/configuration.md needs the row: {row} {field.metadata['help']} |"


def test_it_documents_every_variable_the_settings_read():
    names = set(re.findall(r"""["'](OLLA_[A-Z_]+)["']""", (ROOT / "olla_site" / "settings.py").read_text()))
    assert {name for name in names if f"| `{name}` |" not in CONFIGURATION} == set()


def test_it_documents_no_setting_that_is_gone():
    known = {f"OLLA_{field.name.upper()}" for field in dataclasses.fields(Conf)}
    known |= set(re.findall(r"OLLA_[A-Z_]+", (ROOT / "olla_site" / "settings.py").read_text()))
    shown = set(re.findall(r"^\| `(OLLA_[A-Z_]+)` \|", CONFIGURATION, re.MULTILINE))
    assert shown - known == set()


@pytest.mark.parametrize("code", ErrorCode)
def test_it_documents_every_error_code_with_its_status(code):
    assert f"| {STATUSES[code]} | `{code}` |" in API


def test_it_documents_every_prefix():
    assert {prefix for prefix in PREFIXES if f"`/olla/{prefix}/`" not in API} == set()


def test_it_documents_every_header():
    assert {name for name in EXPOSED if f"`{name}`" not in API} == set()


@pytest.mark.parametrize(("name", "version"), chosen_packages())
def test_it_documents_every_chosen_package(name, version):
    assert f"| {name} | {version} |" in DEPENDENCIES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_names_commands_that_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?=[`\s]*(?:#|`|$| [A-Z]+=))", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_links_to_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in heading_anchors(target.read_text()), link


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
