"""The pure parts: heads of answers, the budget, the log's redaction, request ids."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from olla_site.server.access_log import Finished, build_line, redact_target
from olla_site.server.limits import SMALL_BODY, BodyBudget, may_chunk
from olla_site.server.response_head import Asked, build_response_head
from olla_site.server.running import build_banner, is_loopback
from proxy.request_id import choose_request_id

DATE = b"date: now\r\n"
ASKED = Asked("GET", "1.1", keep_alive=True)


def test_it_frames_a_whole_body_by_its_length() -> None:
    head = build_response_head(200, [(b"A", b"b")], ASKED, whole=3, date=DATE)
    assert head.data == b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 3\r\ndate: now\r\n\r\n"
    assert (head.length, head.chunked, head.keep_alive) == (3, False, True)


def test_it_chunks_a_body_of_unknown_length() -> None:
    head = build_response_head(200, [], ASKED, whole=None, date=DATE)
    assert b"transfer-encoding: chunked" in head.data
    assert head.chunked


def test_it_keeps_a_declared_length_and_date() -> None:
    headers = [(b"Content-Length", b"9"), (b"Date", b"then"), (b"Transfer-Encoding", b"chunked")]
    head = build_response_head(200, headers, ASKED, whole=None, date=DATE)
    assert head.data == b"HTTP/1.1 200 OK\r\nDate: then\r\ncontent-length: 9\r\n\r\n"


def test_it_closes_when_the_application_says_so() -> None:
    head = build_response_head(200, [(b"Connection", b"Close")], ASKED, whole=0, date=DATE)
    assert not head.keep_alive
    assert b"connection: close\r\n" in head.data


def test_it_knows_statuses_without_a_name() -> None:
    assert build_response_head(599, [], ASKED, whole=0, date=DATE).data.startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (100, []),
        (101, []),
        (1000, []),
        (200, [(b"a", b"b\r\nc: d")]),
        (200, [(b"a", b"b\nc")]),
        (200, [(b"a", b"\0")]),
        (200, [(b"content-length", b"x")]),
        (200, [(b"content-length", b"-1")]),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")]),
    ],
)
def test_it_refuses_answers_that_are_not_http(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        build_response_head(status, headers, ASKED, whole=0, date=DATE)


def test_it_keeps_a_part_of_the_budget_for_small_bodies() -> None:
    budget = BodyBudget(1_600_000)
    assert budget.may_hold(1_500_000, 1_500_000)
    assert not budget.may_hold(1_500_001, 1_500_001)
    budget.used = 1_500_000
    assert not budget.may_hold(SMALL_BODY + 1, 1)
    assert budget.may_hold(SMALL_BODY, SMALL_BODY)
    budget.used = 1_600_000
    assert not budget.may_hold(1, 1)


def test_it_allows_one_byte_chunks_and_no_endless_framing() -> None:
    assert may_chunk(6 * 1_000_000, 1_000_000)
    assert not may_chunk(70_000, 0)


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "API_KEY",
        "api-key",
        "%61pi_key",
        "key",
        "token",
        "access_token",
        "password",
        "client_secret",
        "AUTH",
    ],
)
def test_it_redacts_parameters_named_like_secrets(name: str) -> None:
    assert redact_target(b"/p", b"a=1&" + name.encode() + b"=hush&b=2") == f"/p?a=1&{name}=***&b=2"


def test_it_leaves_other_parameters_alone() -> None:
    assert redact_target(b"/p", b"max_tokens=5&keyboard=x&flag") == "/p?max_tokens=5&keyboard=x&flag"


def test_it_writes_one_line_per_request() -> None:
    line = build_line(Finished(0.0015, "id", ("1.2.3.4", 5), None, 408, 7, 0.25, aborted=False))
    assert msgspec.json.encode(line) == (
        b'{"time":"1970-01-01T00:00:00.001Z","request_id":"id","client":"1.2.3.4","method":"-","path":"-",'
        b'"status":408,"bytes":7,"ms":250.0,"aborted":false}'
    )


def test_it_makes_random_uuids() -> None:
    made = {choose_request_id(None) for _ in range(1000)}
    assert len(made) == 1000
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in made} == {(7, uuid.RFC_4122)}


@pytest.mark.parametrize("header", [b"", b"a b", b"a\tb", b"a\r\n", b"\x7f", b"x" * 129, b"\xc3\xa9"])
def test_it_replaces_unfit_request_ids(header: bytes) -> None:
    assert len(choose_request_id(header)) == 32


def test_it_tells_how_to_open_a_loopback_server() -> None:
    lines = build_banner([("127.0.0.1", 40114)], "box", https=False).splitlines()
    assert lines[0] == "Olla listens on http://127.0.0.1:40114/"
    assert "OLLA_HOST=0.0.0.0" in lines[1]


def test_it_tells_how_others_reach_an_open_server() -> None:
    assert build_banner([("0.0.0.0", 1)], "box", https=True).splitlines() == [
        "Olla listens on http://0.0.0.0:1/",
        "Others reach it at http://box:1/",
        "Quit with Ctrl-C.",
    ]


def test_it_says_that_passwords_travel_in_clear() -> None:
    lines = build_banner([("fd00::1", 1)], "box", https=False).splitlines()
    assert lines[0] == "Olla listens on http://[fd00::1]:1/"
    assert "OLLA_HTTPS=1" in lines[1]


def test_it_knows_loopback_addresses() -> None:
    assert [is_loopback(host) for host in ("localhost", "[::1]", "127.1.2.3")] == [True] * 3
    assert [is_loopback(host) for host in ("10.0.0.1", "0.0.0.0", "name")] == [False] * 3
