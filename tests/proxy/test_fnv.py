"""FNV-1a hashing: the published values, and what is remembered of earlier hashes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.fnv import Hasher, fnv1a_64


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", "cbf29ce484222325"),
        (b"a", "af63dc4c8601ec8c"),
        (b"foobar", "85944171f73967e8"),
        (b"my-session-id", "bd95cc3ab55faccc"),
        (b"conv-1", "03675a7615d27b9d"),
        (b'[{"role":"user","content":"hi"}]', "8b81ed84fdfdbea6"),
    ],
)
def test_it_hashes_as_published(text, digest):
    assert Hasher().hex(text) == digest


@example([bytes(number) for number in range(24, 40)])
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_it_gives_the_same_digest_however_often_it_is_asked(texts):
    hasher = Hasher(capacity=3)
    for text in texts + texts:
        assert hasher.hex(text) == f"{fnv1a_64(text):016x}"
        assert len(hasher) <= 3


def test_it_remembers_no_text():
    hasher = Hasher()
    hasher.hex(b"Bearer a-secret-that-must-not-stay-in-memory")
    assert len(hasher) == 1
    assert "secret" not in repr([getattr(hasher, name) for name in Hasher.__slots__])


def test_it_digests_what_is_too_long_for_the_loop():
    hasher = Hasher()
    longest = bytes(4096)
    assert hasher.hex(longest) == f"{fnv1a_64(longest):016x}"
    digest = hasher.hex(longest + b"x")
    assert len(digest) == 16
    assert digest != hasher.hex(longest + b"y")
    assert digest == hasher.hex(longest + b"x")
