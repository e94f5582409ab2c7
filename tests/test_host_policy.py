"""Only hosts this installation goes by are answered: the guard against DNS rebinding."""

from __future__ import annotations

import socket

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from olla_site.host_policy import host_name, is_allowed_host, machine_names


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("localhost", "localhost"), ("LOCALHOST:40114", "localhost"), ("Example.ORG.", "example.org"),
        ("example.org.:80", "example.org"), (" example.org ", "example.org"), ("example.org:", "example.org"),
        ("127.0.0.1:80", "127.0.0.1"), ("[::1]", "::1"), ("[::1]:40114", "::1"), ("[::1]:", "::1"),
        ("[FD00::1]:80", "fd00::1"), ("a_b", "a_b"),
    ],
)  # fmt: skip
def test_it_reads_the_name_in_a_host_header(value: str, name: str) -> None:
    assert host_name(value) == name


@pytest.mark.parametrize(
    "value",
    [
        "", " ", ":80", "localhost:80:90", "localhost:x", "localhost:-1", "localhost:+80", "localhost:800000",
        "localhost:\u0661", "localhost:8 0", "[::1", "[::1]x", "[::1]:x", "[::1]]", "[localhost]", "[127.0.0.1]",
        "[]",
        "::1", "[::g]", "[evil.com:]",
    ],
)  # fmt: skip
def test_it_takes_a_malformed_host_for_none(value: str) -> None:
    assert host_name(value) == ""
    with override_settings(OLLA_ALLOWED_HOSTS=("*",)):
        assert not is_allowed_host(value)


@pytest.mark.parametrize(
    "value",
    [
        "localhost", "LocalHost:40114", "localhost.", "app.localhost", "a.b.localhost:1", "127.0.0.1",
        "127.0.0.1:40114",
        "192.168.1.5:40114", "8.8.8.8", "[::1]:40114", "[fd00::1]", "[fe80::1%eth0]:80",
    ],
)  # fmt: skip
def test_it_answers_localhost_and_addresses(value: str) -> None:
    assert is_allowed_host(value)


@pytest.mark.parametrize(
    "value",
    [
        "evil.com", "localhost.evil.com", "evil-localhost", "evillocalhost", "localhost..", "localhost@evil.com",
        "evil.com@localhost", "localhost, evil.com", "localhost/evil", "localhost\\evil", "localhost evil.com",
        "127.0.0.1.evil.com", "127.0.0.1.nip.io", "0x7f000001", "2130706433", "127.1", "017700000001",
        "127.0.0.1%evil",
        "127.0.0.1,evil.com", "xn--localhost", "localhost\x00", "loc\xe4lhost", ".localhost.evil", "*",
    ],
)  # fmt: skip
def test_it_refuses_names_that_could_be_anybodys(value: str) -> None:
    assert not is_allowed_host(value)


@pytest.mark.parametrize(
    ("patterns", "value", "allowed"),
    [
        (("example.org",), "example.org", True), (("example.org",), "EXAMPLE.ORG:80", True),
        (("example.org",), "a.example.org", False), (("Example.Org",), "example.org", True),
        ((".example.org",), "a.example.org", True), ((".example.org",), "a.b.example.org", True),
        ((".example.org",), "example.org", True), ((".example.org",), "evilexample.org", False),
        ((".example.org",), "example.org.evil.com", False), (("example.org",), "example.org.", True),
        (("*",), "anything.example", True), ((), "example.org", False), (("a", "b"), "b", True),
    ],
)  # fmt: skip
def test_it_answers_the_hosts_an_operator_allowed(patterns: tuple[str, ...], value: str, allowed: bool) -> None:
    with override_settings(OLLA_ALLOWED_HOSTS=patterns):
        assert is_allowed_host(value) is allowed


def test_it_answers_this_machines_names() -> None:
    name = socket.gethostname().lower()
    assert {name, name.split(".")[0]} <= machine_names()
    assert is_allowed_host(f"{name.upper()}:40114")
    assert is_allowed_host(f"{name.split('.')[0]}.local")
    assert not is_allowed_host(f"{name}.evil.com")


@given(st.text(max_size=30))
def test_it_reads_any_text(value: str) -> None:
    name = host_name(value)
    assert name == name.lower() or not name.isascii()
    assert isinstance(is_allowed_host(value), bool)
