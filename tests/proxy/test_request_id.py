"""A request id is the client's own only when it can do no harm in a header or a log line."""

from __future__ import annotations

import time
import uuid

import pytest

from proxy.request_id import choose_request_id


@pytest.mark.parametrize("sent", [b"a", b"!~", b"req-1", b"x" * 128])
def test_it_keeps_the_clients_own(sent: bytes) -> None:
    assert choose_request_id(sent) == sent.decode()


@pytest.mark.parametrize(
    "sent", [None, b"", b"x" * 129, b"a b", b"a\tb", b"a\r\nb", b"a\n", b"\n", b"a\x00", b"a\x7f", b"caf\xc3\xa9",
    b"\x80"]
)  # fmt: skip
def test_it_makes_a_uuid_otherwise(sent: bytes | None) -> None:
    made = choose_request_id(sent)
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert made == uuid.UUID(made).hex


def test_it_makes_ids_that_grow_with_time() -> None:
    before = time.time_ns() // 1_000_000
    made = int(choose_request_id(None)[:12], 16)
    assert before <= made <= time.time_ns() // 1_000_000


def test_it_never_makes_the_same_twice() -> None:
    assert len({choose_request_id(None) for _ in range(10_000)}) == 10_000
