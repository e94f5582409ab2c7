"""Sticky sessions: which key, which endpoint, what the client is told, and bounds."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.health import OperatorState, Status
from proxy.stickiness import (
    KeySource,
    Sight,
    StickyKey,
    StickyOutcome,
    StickyRules,
    StickyTable,
    Visit,
    find_key,
    find_unroutable,
    start_visit,
)
from tests.proxy.builders import NOW, make_endpoint, make_inbound, make_snapshot

A = make_endpoint("a", id=1)
B = make_endpoint("b", id=2)
C = make_endpoint("c", id=3)
EVERY_SOURCE = tuple(KeySource)
SESSION = (b"x-olla-session-id", b"my-session-id")
AUTHORIZATION = (b"authorization", b"my-session-id")
HI = b'[{"role":"user","content":"hi"}]'


def make_rules(**changes: Any) -> StickyRules:
    return StickyRules(**{"enabled": True, **changes})


def make_key(text: str = "k") -> StickyKey:
    return StickyKey(KeySource.SESSION_HEADER, text)


def key_of(*sources: KeySource, length: int = 512, **request: Any) -> str | None:
    key = find_key(
        make_inbound(**request), make_rules(key_sources=sources or EVERY_SOURCE, prefix_hash_bytes=length)
    )
    return key.text if key else None


def told(visit: Visit) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in visit.headers()}


# Keys


@pytest.mark.parametrize(
    ("source", "request_", "key"),
    [
        (KeySource.SESSION_HEADER, {"headers": [SESSION], "model": "Qwen3:8b"}, "bd95cc3ab55faccc:qwen3:8b"),
        (KeySource.SESSION_HEADER, {"headers": [SESSION]}, "bd95cc3ab55faccc:"),
        (KeySource.SESSION_HEADER, {"headers": [(SESSION[0], b"conv-1")]}, "03675a7615d27b9d:"),
        (
            KeySource.PREFIX_HASH,
            {"body": b'{"model":"qwen3:8b","messages":' + HI + b"}"},
            "qwen3_8b:8b81ed84fdfdbea6",
        ),
        (KeySource.PREFIX_HASH, {"body": b'{"messages": ' + HI + b" }"}, ":8b81ed84fdfdbea6"),
        (KeySource.AUTH_HEADER, {"headers": [AUTHORIZATION], "model": "m"}, "auth:bd95cc3ab55faccc:m"),
        (KeySource.IP, {"client": "192.0.2.7", "model": "m"}, "ip:192.0.2.7:m"),
        (KeySource.IP, {"client": "[2001:db8::7]", "model": "m"}, "ip:2001:db8::7:m"),
        (KeySource.IP, {"client": "2001:db8::7"}, "ip:2001:db8::7:"),
    ],
)
def test_it_writes_keys_in_the_form_of_their_source(source, request_, key):
    assert key_of(source, **request_) == key


@pytest.mark.parametrize("source", EVERY_SOURCE)
def test_it_finds_no_key_where_the_request_has_nothing_for_it(source):
    request: dict[str, Any] = {
        "headers": [(b"x-olla-session-id", b""), (b"authorization", b"")],
        "client": "",
        "model": "m",
    }
    assert key_of(source, **request) is None


def test_it_takes_the_first_source_that_knows():
    request: dict[str, Any] = {"headers": [AUTHORIZATION], "model": "m"}
    assert key_of(KeySource.SESSION_HEADER, KeySource.AUTH_HEADER, KeySource.IP, **request) == (
        "auth:bd95cc3ab55faccc:m"
    )
    assert key_of(KeySource.IP, KeySource.AUTH_HEADER, **request) == "ip:192.0.2.7:m"


def test_it_looks_at_header_prompt_and_credential_unless_told_otherwise():
    assert StickyRules().key_sources == ("session_header", "prefix_hash", "auth_header")
    assert find_key(make_inbound(model="m"), make_rules()) is None


@pytest.mark.parametrize("nothing", [b"[]", b"null", b'""', b"[  ]", None])
def test_it_hashes_the_prompt_where_there_are_no_messages(nothing):
    messages = b"" if nothing is None else b'"messages":' + nothing + b","
    body = b'{"model":"m",' + messages + b'"prompt":' + HI + b"}"
    assert key_of(KeySource.PREFIX_HASH, body=body) == "m:8b81ed84fdfdbea6"


@pytest.mark.parametrize("nothing", [b"[]", b"null", b'""', None])
def test_it_finds_no_prefix_without_messages_and_prompt(nothing):
    prompt = b"" if nothing is None else b',"prompt":' + nothing
    assert key_of(KeySource.PREFIX_HASH, body=b'{"model":"m"' + prompt + b"}") is None


def test_it_hashes_only_the_first_bytes_of_the_messages():
    def body(text: bytes) -> bytes:
        return b'{"tools":[1,2,3],"messages":["' + b"x" * 600 + text + b'"]}'

    assert key_of(KeySource.PREFIX_HASH, body=body(b"1")) == key_of(KeySource.PREFIX_HASH, body=body(b"2"))
    assert key_of(KeySource.PREFIX_HASH, length=603, body=body(b"1")) != (
        key_of(KeySource.PREFIX_HASH, length=603, body=body(b"2"))
    )


def test_it_hashes_whole_messages_when_the_length_is_zero():
    keys = {
        key_of(KeySource.PREFIX_HASH, length=0, body=b'{"messages":["' + b"x" * 9000 + tail + b'"]}')
        for tail in (b"1", b"2")
    }
    assert len(keys) == 2


def test_it_cuts_the_prefix_exactly():
    body = b'{"messages":' + HI + b"}"
    assert key_of(KeySource.PREFIX_HASH, length=1, body=body) == ":af64164c86024f1a"  # of `[`


def test_it_keeps_sessions_of_different_models_apart():
    assert key_of(headers=[SESSION], model="a") != key_of(headers=[SESSION], model="b")


def test_it_keeps_keys_short_whatever_the_model_is_called():
    key = key_of(headers=[SESSION], model="m" * 100_000)
    assert key is not None
    assert len(key) == 33


def test_it_shows_neither_key_nor_header_nor_address():
    for source in EVERY_SOURCE:
        request = make_inbound(headers=[SESSION, AUTHORIZATION], body=b'{"messages":["hello"]}')
        key = find_key(request, make_rules(key_sources=(source,)))
        assert repr(key) == f"StickyKey(source={source!r})"


# The table


def test_it_remembers_where_a_session_went():
    table = StickyTable(make_rules())
    assert table.find("k", 0.0) is None
    table.pin("k", 7, 0.0)
    assert table.find("k", 1.0) == 7


def test_it_forgets_a_session_that_was_idle_too_long():
    table = StickyTable(make_rules(idle_ttl=600))
    table.pin("k", 7, 0.0)
    assert table.find("k", 599.9) == 7
    assert table.find("k", 1199.8) == 7
    assert table.find("k", 1799.8) is None
    assert table.stats(1799.8)["evictions"] == 1


def test_it_never_forgets_idle_sessions_when_the_time_is_zero():
    table = StickyTable(make_rules(idle_ttl=0))
    table.pin("k", 7, 0.0)
    assert table.find("k", 1e9) == 7


def test_it_pushes_out_the_session_used_longest_ago():
    table = StickyTable(make_rules(max_sessions=2))
    table.pin("first", 1, 0.0)
    table.pin("second", 1, 1.0)
    table.find("first", 2.0)
    table.pin("third", 1, 3.0)
    assert table.find("second", 4.0) is None
    assert table.find("first", 4.0) == 1
    assert table.find("third", 4.0) == 1
    assert table.stats(4.0)["evictions"] == 1


def test_it_shrinks_to_a_smaller_limit_as_sessions_come():
    table = StickyTable(make_rules(max_sessions=20))
    for number in range(20):
        table.pin(f"k{number}", 1, 0.0)
    table.rules = make_rules(max_sessions=5)
    for number in range(5):
        table.pin(f"new{number}", 1, 1.0)
    assert table.stats(1.0)["active_sessions"] == 5


def test_it_drops_expired_sessions_as_others_come():
    table = StickyTable(make_rules(idle_ttl=10))
    for number in range(100):
        table.pin(f"old{number}", 1, 0.0)
    for number in range(26):
        table.pin(f"new{number}", 2, 20.0)
    assert table.sessions_of(1) == 0
    assert table.sessions_of(2) == 26


def test_it_counts_no_session_that_expired_unnoticed():
    table = StickyTable(make_rules(idle_ttl=10))
    for number in range(50):
        table.pin(f"k{number}", 1, 0.0)
    assert table.stats(9.0)["active_sessions"] == 50
    assert table.stats(10.0)["active_sessions"] == 0


def test_it_purges_the_sessions_of_one_endpoint():
    table = StickyTable(make_rules())
    table.pin("a1", 1, 0.0)
    table.pin("a2", 1, 0.0)
    table.pin("b", 2, 0.0)
    assert table.purge(1) == 2
    assert table.purge(1) == 0
    assert table.find("a1", 1.0) is None
    assert table.find("b", 1.0) == 2
    table.pin("a2", 1, 1.0)
    assert table.find("a2", 2.0) == 1
    assert table.stats(2.0) == {
        "enabled": True,
        "active_sessions": 2,
        "insertions": 4,
        "hits": 0,
        "misses": 0,
        "evictions": 2,
        "max_sessions": 10_000,
        "idle_ttl_seconds": 600,
    }


def test_it_says_nothing_but_that_it_is_off():
    assert StickyTable(StickyRules()).stats(0.0) == {"enabled": False}


KEYS = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("pin"), KEYS, st.integers(1, 3)),
    st.tuples(st.just("find"), KEYS, st.none()),
    st.tuples(st.just("purge"), st.none(), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.none(), st.integers(1, 12)),
)


@given(st.lists(STEPS, max_size=60))
def test_it_behaves_as_a_plain_list_would(steps):
    table = StickyTable(make_rules(idle_ttl=20, max_sessions=4))
    pins: dict[str, tuple[int, float]] = {}  # in order of last use
    now = 0.0
    for verb, key, number in steps:
        # The table sweeps lazily, and pins of a purged endpoint hold their place until they come up.
        pins = {each: pin for each, pin in pins.items() if now - pin[1] < 20}
        if verb == "pin":
            pins.pop(key, None)
            pins[key] = (number, now)
            table.pin(key, number, now)
            if len(pins) > 4:
                pins.pop(next(iter(pins)))
            assert table.find(key, now) == number
        elif verb == "find":
            endpoint, _ = pins.get(key, (0, 0.0))
            assert table.find(key, now) == (endpoint or None)
            if key in pins:
                del pins[key]
                if endpoint:
                    pins[key] = (endpoint, now)
        elif verb == "purge":
            assert table.purge(number) >= sum(1 for each in pins.values() if each[0] == number)
            pins = {each: (0 if pin[0] == number else pin[0], pin[1]) for each, pin in pins.items()}
        else:
            now += number
        for endpoint in (1, 2, 3):
            assert table.sessions_of(endpoint) >= sum(1 for each in pins.values() if each[0] == endpoint)
    stats = table.stats(now)
    living = sum(1 for endpoint, used_at in pins.values() if endpoint and now - used_at < 20)
    assert stats["active_sessions"] == living
    assert stats["insertions"] == stats["evictions"] + living


# One request


def test_it_misses_then_hits():
    table = StickyTable(make_rules())
    first = Visit(table, make_key())
    assert first.recall([A, B], 0.0) is None
    first.settle(B.id, 0.0)
    assert told(first) == {"X-Olla-Sticky-Session": "miss", "X-Olla-Sticky-Key-Source": "session_header"}

    second = Visit(table, make_key())
    assert second.recall([A, B], 1.0) is B
    second.settle(B.id, 1.0)
    assert second.outcome is StickyOutcome.HIT
    assert (table.hits, table.misses, table.insertions) == (1, 1, 1)


def test_it_moves_a_session_whose_endpoint_may_not_answer():
    table = StickyTable(make_rules())
    table.pin("k", C.id, 0.0)
    visit = Visit(table, make_key())
    assert visit.recall([A, B], 1.0) is None
    visit.settle(A.id, 1.0)
    assert visit.outcome is StickyOutcome.REPIN
    assert table.find("k", 2.0) == A.id
    assert table.stats(2.0)["insertions"] == 1
    assert table.sessions_of(C.id) == 0


def test_it_moves_a_session_with_the_request_when_an_attempt_fails():
    table = StickyTable(make_rules())
    visit = Visit(table, make_key())
    assert visit.recall([A, B, C], 0.0) is None
    visit.settle(A.id, 0.0)
    assert visit.recall([B, C], 0.1) is None
    visit.settle(B.id, 0.1)
    assert visit.outcome is StickyOutcome.REPIN
    assert table.find("k", 1.0) == B.id
    assert (table.hits, table.misses) == (0, 1)


def test_it_moves_a_pinned_session_when_its_endpoint_fails():
    table = StickyTable(make_rules())
    table.pin("k", A.id, 0.0)
    visit = Visit(table, make_key())
    assert visit.recall([A, B], 0.0) is A
    visit.settle(A.id, 0.0)
    assert visit.recall([B], 0.1) is None
    visit.settle(B.id, 0.1)
    assert visit.outcome is StickyOutcome.REPIN
    assert table.find("k", 1.0) == B.id
    assert (table.hits, table.misses) == (1, 0)


def test_it_is_disabled_for_a_request_without_a_key():
    visit = start_visit(StickyTable(make_rules()), make_inbound(model="m"))
    assert visit.recall([A], 0.0) is None
    visit.settle(A.id, 0.0)
    assert told(visit) == {"X-Olla-Sticky-Session": "disabled"}


def test_it_says_and_does_nothing_while_it_is_off():
    table = StickyTable(StickyRules())
    visit = start_visit(table, make_inbound(headers=[SESSION]))
    assert visit.recall([A], 0.0) is None
    visit.settle(A.id, 0.0)
    assert visit.headers() == []
    assert (table.insertions, table.misses) == (0, 0)


def test_it_says_nothing_when_no_endpoint_was_looked_for():
    visit = start_visit(StickyTable(make_rules()), make_inbound(headers=[SESSION]))
    assert visit.headers() == []


@pytest.mark.parametrize(
    ("pinned", "outcome"), [(None, StickyOutcome.MISS), (A, StickyOutcome.HIT), (B, StickyOutcome.REPIN)]
)
def test_it_knows_what_became_of_a_session_that_was_sent_without_asking(pinned, outcome):
    table = StickyTable(make_rules())
    if pinned is not None:
        table.pin("k", pinned.id, 0.0)
    visit = Visit(table, make_key())
    visit.settle(A.id, 1.0)
    assert visit.outcome is outcome
    assert table.find("k", 2.0) == A.id
    assert table.hits + table.misses == 1


def test_it_stays_with_an_endpoint_that_had_no_room_at_first():
    table = StickyTable(make_rules())
    table.pin("k", A.id, 0.0)
    visit = Visit(table, make_key())
    assert visit.recall([B], 1.0) is None
    visit.settle(A.id, 5.0)
    assert visit.outcome is StickyOutcome.HIT


def test_it_echoes_the_session_id_only_when_it_was_the_key():
    table = StickyTable(make_rules())
    visit = start_visit(table, make_inbound(headers=[SESSION, AUTHORIZATION]))
    visit.recall([A], 0.0)
    assert told(visit)["X-Olla-Session-ID"] == "my-session-id"

    table.rules = make_rules(key_sources=(KeySource.AUTH_HEADER,))
    visit = start_visit(table, make_inbound(headers=[SESSION, AUTHORIZATION]))
    visit.recall([A], 0.0)
    assert told(visit) == {"X-Olla-Sticky-Session": "miss", "X-Olla-Sticky-Key-Source": "auth_header"}


# Purging


def test_it_names_endpoints_that_stopped_taking_traffic():
    before = make_snapshot(
        make_endpoint("stays", id=1),
        make_endpoint("busy", id=2),
        make_endpoint("down", id=3),
        make_endpoint("drained", id=4),
        make_endpoint("deleted", id=5),
        make_endpoint("was-down", id=6, status=Status.OFFLINE),
    )
    after = make_snapshot(
        make_endpoint("stays", id=1),
        make_endpoint("busy", id=2, status=Status.BUSY),
        make_endpoint("down", id=3, status=Status.OFFLINE),
        make_endpoint("drained", id=4, state=OperatorState.DRAINING),
        make_endpoint("was-down", id=6, status=Status.OFFLINE),
    )
    assert sorted(find_unroutable(Sight(before, NOW), Sight(after, NOW + 1))) == [3, 4, 5]


def test_it_names_endpoints_whose_window_has_begun():
    snapshot = make_snapshot(
        make_endpoint("always", id=1), make_endpoint("kept", id=2, maintenance=(NOW, NOW + 9))
    )
    for since, now, lost in [(-9, -1, []), (-1, 0, [2]), (0, 5, []), (5, 9, []), (-1, 9, [])]:
        assert find_unroutable(Sight(snapshot, NOW + since), Sight(snapshot, NOW + now)) == lost
    open_ended = make_snapshot(make_endpoint("kept", id=2, maintenance=(NOW, inf)))
    assert find_unroutable(Sight(snapshot, NOW - 1), Sight(open_ended, NOW)) == [1, 2]
