"""Lines written once must be those that would be written anew, and must not fill the memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.outgoing import write_lines
from proxy.header_lines import LONGEST, MOST, MOST_HEADERS, HeaderLines
from proxy.headers import HeaderPlan, build_upstream_headers, plan_headers
from tests.proxy.builders import make_endpoint, make_inbound

VIA, PRODUCT = b"1.1 olla-abc", b"Olla/1"
PLANS = [
    plan_headers(make_endpoint(), "openai"),
    plan_headers(make_endpoint(headers=[("Authorization", "Bearer own"), ("X-Real-IP", "")]), "openai"),
]
VALUES = [b"", b"a", b"close, x-b", b"10.0.0.1"]
PAIRS = st.tuples(
    st.sampled_from([b"host", b"x-a", b"x-b", b"connection", b"via", b"x-forwarded-for", b"authorization"]),
    st.sampled_from(VALUES),
)


@st.composite
def asked(draw: Any) -> tuple[Any, HeaderPlan, int]:
    inbound = make_inbound(
        headers=draw(st.lists(PAIRS, max_size=4)),
        model=draw(st.sampled_from([None, "m", "n"])),
        client=draw(st.sampled_from(["", "10.0.0.1", "10.0.0.2"])),
        peer=draw(st.sampled_from(["", "10.0.0.1"])),
        scheme=draw(st.sampled_from(["http", "https"])),
        host=draw(st.sampled_from(["", "olla", "other"])),
        method=draw(st.sampled_from(["GET", "POST"])),
    )
    return inbound, draw(st.sampled_from(PLANS)), draw(st.integers(0, 999))


@given(st.lists(asked(), min_size=1, max_size=30))
def test_it_writes_what_would_be_written_anew(requests: list[tuple[Any, HeaderPlan, int]]) -> None:
    lines = HeaderLines(VIA, PRODUCT)
    for inbound, plan, length in requests:
        inbound.headers.append((b"content-length", b"%d" % length))
        assert lines.write(inbound, plan) == write_lines(build_upstream_headers(inbound, plan, VIA, PRODUCT))


def test_it_writes_once_what_differs_in_the_length_of_the_body_alone() -> None:
    lines = HeaderLines(VIA, PRODUCT)
    first, second = (
        lines.write(make_inbound(headers=[(b"x-a", b"1"), (b"content-length", length)]), PLANS[0])
        for length in (b"1", b"22")
    )
    assert first is second
    assert b"ontent" not in first
    assert len(lines) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [(b"x-a", b"x" * LONGEST)]},
        {"headers": [(b"cookie", b"x" * LONGEST)]},  # which does not cross
        {"headers": [], "model": "x" * LONGEST},
        {"headers": [(b"x-a", b"") for _ in range(MOST_HEADERS + 1)]},
    ],
)
def test_it_remembers_nothing_large(changes: dict[str, Any]) -> None:
    lines = HeaderLines(VIA, PRODUCT)
    lines.write(make_inbound(**changes), PLANS[0])
    assert len(lines) == 0


def test_it_keeps_a_bounded_number() -> None:
    lines = HeaderLines(VIA, PRODUCT)
    for number in range(3 * MOST):
        lines.write(make_inbound(headers=[(b"x-request-id", b"%d" % number)]), PLANS[0])
        assert len(lines) <= MOST


def test_it_forgets_what_was_written_by_a_plan() -> None:
    lines = HeaderLines(VIA, PRODUCT)
    for plan in PLANS:
        lines.write(make_inbound(), plan)
    lines.forget([PLANS[1]])
    assert len(lines) == 1
    lines.forget(PLANS)
    assert len(lines) == 0


def test_it_refuses_a_line_break_each_time() -> None:
    lines = HeaderLines(VIA, PRODUCT)
    for _ in range(2):
        with pytest.raises(ValueError, match="line break"):
            lines.write(make_inbound(headers=[(b"x-a", b"1\r\nx-b: 2")]), PLANS[0])
