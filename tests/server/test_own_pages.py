"""Which page stands behind a browser's request: this site's, or anybody's."""

from __future__ import annotations

import pytest

from olla_site.host_policy import is_own_origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, b"olla:40114"),
        (b"http://olla:40114", b"olla:40114"),
        (b"HTTP://OLLA:40114", b"olla:40114"),
        (b"https://olla.example", b"olla.example"),
        (b"http://[::1]:40114", b"[::1]:40114"),
    ],
)
def test_it_knows_its_own_pages(origin, host):
    assert is_own_origin(origin, host)


@pytest.mark.parametrize(
    "origin",
    [b"", b"null", b"http://olla", b"http://olla:1", b"http://olla:40114.evil.example", b"http://evil@olla:40114"],
)
def test_it_knows_other_pages(origin):
    assert not is_own_origin(origin, b"olla:40114")


def test_it_trusts_the_origins_the_operator_named(settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://portal.example"]
    assert is_own_origin(b"https://portal.example", b"olla:40114")
    assert not is_own_origin(b"http://portal.example", b"olla:40114")
