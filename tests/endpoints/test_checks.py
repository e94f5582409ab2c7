"""System checks: what is wrong with an installation is said before it serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.checks import run_checks

from endpoints import checks

ROOT = Path(__file__).resolve().parent.parent.parent


class SyncMiddleware:
    """Has no async_capable, like most third-party middleware."""


def ids(found) -> list[str]:
    return [each.id for each in found]


def test_it_finds_nothing_in_a_fresh_installation():
    assert [each for each in run_checks() if each.id and each.id.startswith("endpoints.")] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OLLA_PORT", "eighty", "OLLA_PORT is 'eighty'"),
        ("OLLA_PORT", "0", "must be at least 1"),
        ("OLLA_ALLOW_SCRIPTS", "maybe", "use 1 or 0"),
        ("OLLA_IDLE_TIMEOUT", "-3", "must be at least 0.1"),
        ("OLLA_STICKY_KEY_SOURCES", "ip,cookie", "choose from session_header, prefix_hash, auth_header, ip"),
    ],
)
def test_it_refuses_values_that_do_not_parse(settings, name, value, said):
    setattr(settings, name, value)

    found = checks.check_values()

    assert ids(found) == ["endpoints.E001"]
    assert said in found[0].msg
    assert "The default is" in str(found[0].hint)


def test_it_reads_values_from_the_environment(monkeypatch):
    monkeypatch.setenv("OLLA_PORT", "eighty")

    assert ids(checks.check_values()) == ["endpoints.E001"]


def test_it_names_the_nearest_setting_for_a_misspelt_variable():
    found = list(checks.find_unknown_names(["OLLA_PROT", "PATH", "OLLAMA_HOST", "OLLA_PORT", "OLLA_BACKEND_KEY"]))

    assert ids(found) == ["endpoints.W001"]
    assert "OLLA_PROT" in found[0].msg
    assert found[0].hint == "Did you mean OLLA_PORT?"


def test_it_knows_every_variable_the_settings_read():
    text = (ROOT / "olla_site" / "settings.py").read_text()
    read = set(re.findall(r'(?:env_\w+\(|environ(?:\.get)?[(\[])\s*"(OLLA_\w+)"', text))

    assert "OLLA_DATA_DIR" in read
    assert read <= checks.known_names()


def test_it_refuses_sync_middleware_on_the_machine_door(settings):
    settings.API_MIDDLEWARE = [f"{__name__}.SyncMiddleware"]

    found = checks.check_api_middleware()

    assert ids(found) == ["endpoints.E002"]
    assert "is not async" in found[0].msg


def test_it_refuses_middleware_that_is_not_there(settings):
    settings.API_MIDDLEWARE = ["nowhere.Middleware"]

    assert ids(checks.check_api_middleware()) == ["endpoints.E002"]


def test_it_takes_the_middleware_of_this_product():
    assert checks.check_api_middleware() == []


def test_it_refuses_a_data_folder_that_cannot_be_written(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "gone"

    found = checks.check_data_folder()

    assert ids(found) == ["endpoints.E003"]
    assert "OLLA_DATA_DIR" in str(found[0].hint)


@pytest.mark.parametrize("keys", [[], ["short-secret-key"]])
def test_it_refuses_unusable_encryption_keys_without_showing_them(settings, keys):
    settings.ENCRYPTION_KEYS = keys

    found = checks.check_encryption_keys()

    assert ids(found) == ["endpoints.E004"]
    assert "short-secret-key" not in f"{found[0].msg} {found[0].hint}"


@pytest.mark.parametrize("name", ["OLLA_SECRETS_DIR", "OLLA_CA_DIR"])
def test_it_names_a_folder_of_files_that_is_not_there(settings, tmp_path, name):
    plain = tmp_path / "plain"
    plain.write_text("")
    for folder, expected in ((tmp_path, []), (tmp_path / "gone", ["endpoints.W002"]), (plain, ["endpoints.W002"])):
        setattr(settings, name, str(folder))
        found = checks.check_file_folders()
        assert ids(found) == expected
        assert all(name in each.msg for each in found)
