"""Who the client is: trusted proxies are believed, nobody else, in both doors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.client_identity import (
    client_network,
    identify_client,
    parse_networks,
    plain_address,
    rewrite_scope,
)

NETWORKS = parse_networks(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])
PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
XFF, PROTO, HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"


def identify(*headers, peer=PROXY, scheme="http"):
    return identify_client(peer, scheme, [(b"host", b"olla:40114"), *headers], NETWORKS)


def test_it_takes_the_peer_where_no_proxy_is():
    client = identify(peer=STRANGER)

    assert (client.address, client.scheme, client.host, client.via_proxy) == (
        STRANGER,
        "http",
        "olla:40114",
        False,
    )


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (b"198.51.100.7", "198.51.100.7"),
        (b"6.6.6.6, 198.51.100.7", "198.51.100.7"),
        (b"6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (b"198.51.100.7,10.0.0.2 ,\t10.0.0.3", "198.51.100.7"),
        (b"10.1.1.1, 10.0.0.2", "10.1.1.1"),  # all trusted: the one farthest away
        (b"198.51.100.7:5555", "198.51.100.7"),
        (b"2001:db8::7", "2001:db8::7"),
        (b"[2001:db8::7]:443", "2001:db8::7"),
        (b"2001:DB8:0::7", "2001:db8::7"),
        (b"6.6.6.6, 2001:db8::7, fd00::5", "2001:db8::7"),
        (b"::ffff:198.51.100.7", "198.51.100.7"),
        (b"6.6.6.6, ::ffff:10.0.0.2", "6.6.6.6"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"6.6.6.6, unknown", PROXY),  # the last proxy does not know: what stands left of it may be made up
        (b"6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
        (b"garbage", PROXY),
        (b"6.6.6.6, ", PROXY),
        (b"", PROXY),
        (b"999.1.1.1", PROXY),
    ],
)
def test_it_walks_forwarded_for_from_the_right(value, address):
    assert identify((XFF, value)).address == address


def test_it_reads_several_lines_as_one_list():
    assert identify((XFF, b"6.6.6.6, 198.51.100.7"), (XFF, b"10.0.0.2")).address == "198.51.100.7"


@pytest.mark.parametrize(
    "header",
    [
        (XFF, b"127.0.0.1"),
        (b"forwarded", b"for=127.0.0.1;proto=https;host=evil"),
        (b"x-real-ip", b"127.0.0.1"),
        (PROTO, b"https"),
        (HOST, b"evil"),
        (b"via", b"1.1 proxy"),
    ],
)
def test_it_believes_nothing_of_a_stranger_who_is_not_local_either(header):
    for peer in (STRANGER, "127.0.0.9"):
        client = identify(header, peer=peer)
        assert client == (peer, "http", "olla:40114", False, False, peer, False)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
def test_it_counts_this_machine_as_local(peer):
    assert identify(peer=peer).is_local


@pytest.mark.parametrize("peer", ["192.168.1.5", STRANGER, "", "socket"])
def test_it_counts_nobody_else_as_local(peer):
    assert not identify(peer=peer).is_local


@pytest.mark.parametrize(
    ("header", "local"),
    [
        ((XFF, b"127.0.0.1"), True),
        ((XFF, b"127.0.0.1, 198.51.100.7"), False),
        ((b"via", b"1.1 proxy"), False),  # a proxy that does not say for whom
        ((XFF, b"unknown"), False),
        ((PROTO, b"https"), False),
    ],
)
def test_it_counts_a_client_behind_a_local_proxy_as_what_it_is(header, local):
    assert identify(header, peer="127.0.0.1").is_local is local


@pytest.mark.parametrize("peer", [PROXY, STRANGER, "127.0.0.1"])
def test_it_knows_nobody_behind_a_header_only_proxies_write(peer):
    found = identify((b"x-forwarded-user", b"ann"), peer=peer)
    assert (found.is_local, found.is_known) == (False, False)


def test_it_takes_scheme_and_host_from_a_trusted_proxy():
    client = identify((XFF, b"198.51.100.7"), (PROTO, b"HTTPS"), (HOST, b"olla.example.org:8443"))

    assert (client.scheme, client.host, client.via_proxy) == ("https", "olla.example.org:8443", True)


@pytest.mark.parametrize(
    ("value", "scheme"),
    [(b"https", "https"), (b"wss", "https"), (b"ftp", "http"), (b"", "http"), (b"javascript:", "http")],
)
def test_it_takes_no_scheme_it_does_not_know(value, scheme):
    assert identify((PROTO, value)).scheme == scheme


def test_it_takes_what_was_told_of_the_clients_own_hop():
    client = identify((XFF, b"198.51.100.7, 10.0.0.2"), (PROTO, b"https, http"), (HOST, b"outer, inner"))

    assert (client.scheme, client.host) == ("https", "outer")


def test_it_takes_the_last_word_where_hops_cannot_be_told_apart():
    client = identify((XFF, b"198.51.100.7"), (PROTO, b"https, http"), (HOST, b"made-up, real"))

    assert (client.scheme, client.host) == ("http", "real")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"for=198.51.100.7;proto=https;host=a.example", ("198.51.100.7", "https", "a.example")),
        (b'FOR="[2001:db8::7]:4711" ; Proto=https', ("2001:db8::7", "https", "olla:40114")),
        (b"for=6.6.6.6, for=198.51.100.7;proto=https, for=10.0.0.2", ("198.51.100.7", "https", "olla:40114")),
        (b'for=198.51.100.7;host="a,b;c"', ("198.51.100.7", "http", "a,b;c")),
        (b"for=_hidden;proto=https", (PROXY, "https", "olla:40114")),
        (b"for=unknown", (PROXY, "http", "olla:40114")),
        (b"proto=https", (PROXY, "https", "olla:40114")),
        (b'for="198.51.100.7', (PROXY, "http", "olla:40114")),  # does not parse: nothing of it is believed
        (b"for=6.6.6.6 for=7.7.7.7", (PROXY, "http", "olla:40114")),
        (b"", (PROXY, "http", "olla:40114")),
    ],
)
def test_it_reads_forwarded(value, told):
    client = identify((b"forwarded", value))

    assert (client.address, client.scheme, client.host) == told


def test_it_never_mixes_two_families_of_headers():
    client = identify((XFF, b"198.51.100.7"), (b"forwarded", b"for=6.6.6.6;proto=https;host=evil"))

    assert (client.address, client.scheme, client.host) == ("198.51.100.7", "http", "olla:40114")


@pytest.mark.parametrize("others", [(), ((PROTO, b"https"),)])
def test_it_reads_real_ip_where_nothing_else_names_the_client(others):
    assert identify((b"x-real-ip", b"198.51.100.7"), *others).address == "198.51.100.7"


@given(
    st.lists(st.binary(max_size=40), max_size=5), st.sampled_from([XFF, PROTO, HOST, b"forwarded", b"x-real-ip"])
)
def test_it_survives_whatever_a_header_holds(values, name):
    client = identify(*((name, value) for value in values))

    assert plain_address(client.address) == client.address
    assert client.scheme in ("http", "https")


@given(st.lists(st.sampled_from(["6.6.6.6", "10.9.9.9", "::1", "127.0.0.1", "unknown", "", "x"]), max_size=6))
def test_it_gives_a_client_no_say_in_its_address(claimed):
    value = ", ".join([*claimed, "198.51.100.7"]).encode()

    assert identify((XFF, value)).address == "198.51.100.7"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("socket", "unknown"),
    ],
)
def test_it_counts_an_ipv6_subscriber_as_one_client(address, network):
    assert client_network(address) == network


@pytest.mark.parametrize("text", ["*", "10.0.0.0/33", "10.0.0.1/8", "proxy.example"])
def test_it_refuses_what_is_no_network(text):
    with pytest.raises(ValueError, match=r"network|host bits"):
        parse_networks([text])


def scope_of(*headers, kind="http"):
    return {"type": kind, "scheme": "http", "client": (PROXY, 5), "headers": [(b"host", b"olla"), *headers]}


def test_it_rewrites_the_scope_of_pages_behind_a_proxy():
    scope = scope_of((b"cookie", b"a=b"), (XFF, b"198.51.100.7"), (PROTO, b"https"), (HOST, b"a.example"))

    rewritten = rewrite_scope(scope, identify_client(PROXY, "http", scope["headers"], NETWORKS))

    assert (rewritten["client"], rewritten["scheme"]) == (("198.51.100.7", 0), "https")
    assert rewritten["headers"] == [(b"host", b"a.example"), (b"cookie", b"a=b")]


@pytest.mark.parametrize("told", [(PROTO, b"https"), (XFF, b"198.51.100.7, unknown"), (b"via", b"1.1 edge")])
def test_it_says_in_the_scope_that_nobody_named_the_client(told):
    scope = scope_of(told)

    rewritten = rewrite_scope(scope, identify_client(PROXY, "http", scope["headers"], NETWORKS))

    assert rewritten["headers"] == [(b"host", b"olla"), (b"forwarded", b"for=unknown")]


def test_it_keeps_a_sockets_scheme_a_sockets():
    scope = scope_of((PROTO, b"https"), kind="websocket")

    assert rewrite_scope(scope, identify_client(PROXY, "ws", scope["headers"], NETWORKS))["scheme"] == "wss"


def test_it_leaves_a_strangers_scope_alone():
    scope = scope_of((XFF, b"198.51.100.7"))

    assert rewrite_scope(scope, identify_client(STRANGER, "http", scope["headers"], NETWORKS)) is scope
