"""Settings are typed, bounded, and named when they are wrong."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from endpoints.conf import Conf, conf, installation_id, parse_option, read_option, version

FIELDS = {field.name: field for field in dataclasses.fields(Conf)}


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    conf.cache_clear()
    yield
    conf.cache_clear()


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("port", "8080", 8080), ("port", " 8080 ", 8080), ("port", 8080, 8080), ("max_body_size", "0", 0),
        ("connect_timeout", "2.5", 2.5), ("connect_timeout", 3, 3.0), ("error_context", "off", False),
        ("error_context", "1", True), ("error_context", "Yes", True), ("error_context", False, False),
        ("allowed_hosts", "a, b ,,c", ("a", "b", "c")), ("allowed_hosts", ["a", "b"], ("a", "b")),
        ("allowed_hosts", "", ()), ("host", " 0.0.0.0 ", "0.0.0.0"),
    ],
)  # fmt: skip
def test_it_reads_a_value_as_its_fields_type(name: str, raw: object, value: object) -> None:
    assert parse_option(FIELDS[name], raw) == value


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("port", "0"), ("port", "x"), ("port", "80.5"), ("connect_timeout", "nan"), ("connect_timeout", "inf"),
        ("total_timeout", math.inf), ("connect_timeout", "-1"), ("error_context", "maybe"), ("max_body_size",
        "-1"),
        ("max_header_size", "4095"), ("load_balancer", "fastest"), ("port", []), ("allowed_hosts", 5),
    ],
)  # fmt: skip
def test_it_names_a_setting_that_does_not_parse(name: str, raw: object) -> None:
    with override_settings(**{f"OLLA_{name.upper()}": raw}), pytest.raises(ImproperlyConfigured) as caught:
        conf()
    assert f"OLLA_{name.upper()}" in str(caught.value)


def test_it_prefers_djangos_settings_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLA_IDLE_TIMEOUT", "7")
    assert conf().idle_timeout == 7
    with override_settings(OLLA_IDLE_TIMEOUT=9):
        assert conf().idle_timeout == 9
    assert conf().idle_timeout == 7


def test_it_takes_an_empty_variable_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLA_IDLE_TIMEOUT", "  ")
    assert read_option(FIELDS["idle_timeout"]) is None
    assert conf().idle_timeout == Conf().idle_timeout
    with override_settings(OLLA_IDLE_TIMEOUT=None):
        assert conf().idle_timeout == Conf().idle_timeout


def test_it_forgets_only_for_settings_of_ours() -> None:
    before = conf()
    with override_settings(USE_TZ=True):
        assert conf() is before
    with override_settings(OLLA_PORT=1234):
        assert conf().port == 1234


@pytest.mark.parametrize("name", FIELDS)
def test_it_documents_every_setting_and_allows_its_default(name: str) -> None:
    field = FIELDS[name]
    assert field.metadata["help"].strip().endswith(".")
    assert parse_option(field, field.default) == field.default


def test_it_names_the_installation_without_telling_its_key() -> None:
    installation_id.cache_clear()
    first = installation_id()
    installation_id.cache_clear()
    with override_settings(SECRET_KEY="other"):
        second = installation_id()
    installation_id.cache_clear()
    assert len(first) == len(second) == 12
    assert first != second
    assert set(first) <= set("0123456789abcdef")


def test_it_knows_the_version() -> None:
    assert version()
