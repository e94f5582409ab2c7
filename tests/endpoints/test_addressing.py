"""Which URLs and addresses may be used, however they are written."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.addressing import (
    REFUSED_NETWORKS,
    TLS,
    AddressError,
    Origin,
    Target,
    build_auth_headers,
    check_address,
    embedded_ipv4,
    join_url,
    merge_headers,
    parse_base_path,
    parse_origin,
    same_origin,
)
from endpoints.secrets import Secret, SecretError

# URLs


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://gpu-1:11434", Origin("http", "gpu-1", 11434), "gpu-1:11434"),
        ("HTTPS://API.Example.COM/v1", Origin("https", "api.example.com", 443), "api.example.com"),
        ("http://gpu_1.ollama:80/", Origin("http", "gpu_1.ollama", 80), "gpu_1.ollama"),
        ("https://host:80", Origin("https", "host", 80), "host:80"),
        ("http://host:", Origin("http", "host", 80), "host"),
        ("http://[::1]:8000/x", Origin("http", "::1", 8000), "[::1]:8000"),
        ("http://[FD00::1]", Origin("http", "fd00::1", 80), "[fd00::1]"),
        ("http://host.:65535", Origin("http", "host.", 65535), "host.:65535"),
        ("http://bücher.example/x", Origin("http", "xn--bcher-kva.example", 80), "xn--bcher-kva.example"),
        ("http://例え.jp", Origin("http", "xn--r8jz45g.jp", 80), "xn--r8jz45g.jp"),
        ("http://host#@evil.com", Origin("http", "host", 80), "host"),
        ("http://host/@evil.com", Origin("http", "host", 80), "host"),
    ],
)
def test_it_reads_an_origin(url: str, origin: Origin, authority: str) -> None:
    assert parse_origin(url) == origin
    assert parse_origin(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "", "host", "host:80", "//host", "ftp://host", "file:///etc/passwd", "javascript:alert(1)", "unix:/x",
        "http:",
        "http://", "http:///x", "http://:80", "http://?x", "http:/host", "http:host",
        "http://user:pw@host", "http://user@host", "http://@host", "http://:@host", "http://host\\@evil.com",
        "http://a@b@c", "http://%40@host", "http://user:pw@[::1]",
        "http://host:0", "http://host:65536", "http://host:-1", "http://host:+80", "http://host: 80",
        "http://host:8a",
        "http://host:80:80", "http://host:\u0661", "http://host:8_0",
        "http://ho st", " http://host", "http://host ", "http://host\n", "http://ho\tst", "http://host\x00",
        "\x01http://h",
        "http://host/a b", "http://host\u2028", "http://ho\u00a0st", "http://host\x7f",
        "http://evil\\.com", "http://evil%2ecom", "http://127.0.0.1%2f", "http://*.example.com", "http://a..b",
        "http://.host", "http://-host", "http://host-", "http://a,b", "http://a'b", "http://a$b",
        "http://" + "a" * 254,
        "http://[::1", "http://::1", "http://[::1]x", "http://[host]", "http://[::g]", "http://[1::2::3]", "http://[:]",
        "http://[127.0.0.1]",
        "http://[fd00::1%25eth0]", "http://[fd00::1%eth0]", "http://[v1.x]", "http://xn--\udc80",
        "http://\ufe0e.com", "http://" + "\u00fc" * 70 + ".example",
    ],
)  # fmt: skip
def test_it_refuses_any_other_url(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_origin(url)
    assert "pw" not in str(caught.value)


@given(st.text(max_size=40), st.sampled_from(["http://", "https://", "http:", ""]))
def test_it_reads_or_refuses_any_text(text: str, scheme: str) -> None:
    try:
        origin = parse_origin(scheme + text)
    except AddressError:
        return
    authority = origin.authority
    assert authority.isascii()
    assert not set(authority) & set(" \t\r\n\0@/\\?#%,;")
    assert 0 < origin.port < 65536


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h", ""), ("http://h/", ""), ("http://h///", ""), ("http://h/api/v1", "/api/v1"),
        ("http://h/api//v1/", "/api/v1"), ("http://h/a b", "/a%20b"), ("http://h/mö", "/m%C3%B6"),
        ("http://h/a%20b", "/a%20b"), ("http://h/v1?x=1#y", "/v1"), ("http://h/engines/llama.cpp",
        "/engines/llama.cpp"),
    ],
)  # fmt: skip
def test_it_encodes_the_base_path_once(url: str, path: str) -> None:
    assert parse_base_path(url) == path


@pytest.mark.parametrize(
    ("base", "value", "joined"),
    [
        ("http://h:1/api/v1", "/models", "http://h:1/api/v1/models"), ("http://h/api/", "models",
        "http://h/api/models"),
        ("http://h", "/health", "http://h/health"), ("http://h/api", "", "http://h/api/"),
        ("http://h/api", "https://other/x", "https://other/x"), ("http://h/api", "HTTP://other/x",
        "HTTP://other/x"),
        ("http://h/api", "//evil/x", "http://h/api/evil/x"), ("http://h/api?k=v", "/x", "http://h/api/x"),
    ],
)  # fmt: skip
def test_it_joins_probe_urls_to_the_base_path(base: str, value: str, joined: str) -> None:
    assert join_url(base, value) == joined


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("http://h/a", "http://H:80/b", True), ("https://h", "https://h:443", True), ("http://h", "https://h",
        False),
        ("http://h:1", "http://h:2", False), ("http://h", "http://h2", False), ("http://[::1]", "http://[::1]:80",
        True),
    ],
)  # fmt: skip
def test_it_compares_origins(first: str, second: str, expected: bool) -> None:
    assert same_origin(first, second) is expected


def test_it_pools_connections_by_origin_and_tls() -> None:
    origin = Origin("https", "Host", 443)
    assert Target(origin).key == Target(Origin("https", "host", 443)).key
    assert Target(origin).key != Target(origin, TLS(verify=False)).key
    assert Target(origin).key != Target(origin, TLS(ca_file="/x")).key
    plain = Origin("http", "host", 443)
    assert Target(plain).key == Target(plain, TLS(verify=False)).key
    assert Target(origin).key != Target(plain).key


# Addresses

METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0",
            "224.0.0.1", "239.255.255.250", "255.255.255.255", "0.1.2.3"]  # fmt: skip


def embeddings(text: str) -> list[str]:
    """Every way an IPv4 address hides in an IPv6 address."""
    number = int(ipaddress.IPv4Address(text))
    high, low = number >> 16, number & 0xFFFF
    third, last = number.to_bytes(4, "big")[2:]
    return [
        f"::ffff:{text}", f"::ffff:{high:x}:{low:x}", f"2002:{high:x}:{low:x}::", f"2002:{high:x}:{low:x}::1",
        f"64:ff9b::{text}", f"64:ff9b:1::{text}", f"64:ff9b:1:{high:x}:{third:x}:{last:02x}00::",
        f"::ffff:0:{text}", f"2001:0:{high:x}:{low:x}::", f"2001:0:808:808:0:0:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",
        *([f"::{text}"] if number > 1 else []),
    ]  # fmt: skip


@pytest.mark.parametrize("text", METADATA)
def test_it_refuses_an_address_in_every_form(text: str) -> None:
    for form in [text, *embeddings(text)]:
        with pytest.raises(AddressError):
            check_address(form)


@pytest.mark.parametrize(
    "text",
    ["fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
     "ff02::1",
     "::", "fe80::a9fe:a9fe"],
)  # fmt: skip
def test_it_refuses_link_local_and_metadata_addresses_of_ipv6(text: str) -> None:
    with pytest.raises(AddressError):
        check_address(text)


@pytest.mark.parametrize(
    "text",
    ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.16689662", "0xA9.0xFE.0xA9.0xFE"],
)
def test_it_refuses_what_the_resolver_makes_of_odd_spellings(text: str) -> None:
    host = parse_origin(f"http://{text}/").host
    for *_, address in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST):
        with pytest.raises(AddressError):
            check_address(str(address[0]))


@given(st.integers(0, 2**32 - 1))
def test_it_refuses_an_embedded_address_whenever_it_refuses_the_address(number: int) -> None:
    text = str(ipaddress.IPv4Address(number))
    refused = any(ipaddress.IPv4Address(number) in each for each in REFUSED_NETWORKS if each.version == 4)
    for form in [text, *embeddings(text)[:6]]:
        try:
            check_address(form)
        except AddressError:
            assert refused
        else:
            assert not refused


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "100.100.100.201", "8.8.8.8", "::1",
     "fd00::1",
     "2606:4700::1111", "::ffff:10.0.0.1", "64:ff9b::8.8.8.8", "2002:808:808::", "fc00::1"],
)  # fmt: skip
def test_it_allows_private_and_public_addresses(text: str) -> None:
    assert check_address(text) == ipaddress.ip_address(text)


@pytest.mark.parametrize("text", ["", "host", "1.2.3", "1.2.3.4.5", "%eth0", "::g"])
def test_it_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(AddressError):
        check_address(text)


@pytest.mark.parametrize(
    ("text", "inside"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2002:a00:1::", "10.0.0.1"),
     ("64:ff9b::10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("::", "::"), ("fd00::1", "fd00::1")],
)  # fmt: skip
def test_it_finds_the_ipv4_address_inside(text: str, inside: str) -> None:
    assert str(embedded_ipv4(ipaddress.ip_address(text))) == inside


# Credentials as headers


@pytest.mark.parametrize(
    ("kind", "header", "username", "secret", "expected"),
    [
        ("none", "", "", "", []), ("none", "X-Key", "u", "s", []), ("other", "", "u", "s", []),
        ("bearer", "X-Ignored", "", "tok", [(b"Authorization", "Bearer tok")]),
        ("api_key", "", "", "k", [(b"X-Api-Key", "k")]), ("api_key", "X-My-Key", "", "k", [(b"X-My-Key", "k")]),
        ("basic", "", "user", "pa:ss", [(b"Authorization", "Basic dXNlcjpwYTpzcw==")]),
        ("basic", "", "müller", "", [(b"Authorization", "Basic bcO8bGxlcjo=")]),
    ],
)  # fmt: skip
def test_it_makes_the_header_of_an_endpoints_credentials(
    kind: str, header: str, username: str, secret: str, expected: list[tuple[bytes, str]]
) -> None:
    made = build_auth_headers(kind, header, Secret(username), Secret(secret))
    assert [(name, value.reveal()) for name, value in made] == expected


@pytest.mark.parametrize(
    ("kind", "header", "secret"),
    [("bearer", "", ""), ("bearer", "", "  "), ("api_key", "", ""), ("api_key", "X Key", "k"), ("api_key", "X:",
     "k"),
     ("api_key", "X\r\nY", "k"), ("api_key", "Schlüssel", "k")],
)  # fmt: skip
def test_it_refuses_credentials_that_make_no_header(kind: str, header: str, secret: str) -> None:
    with pytest.raises(SecretError):
        build_auth_headers(kind, header, Secret(""), Secret(secret))


def test_it_lets_credentials_win_over_extra_headers() -> None:
    extra = [(b"authorization", Secret("old")), (b"X-A", Secret("a"))]
    auth = [(b"Authorization", Secret("new"))]
    assert merge_headers(extra, auth) == ((b"X-A", Secret("a")), (b"Authorization", Secret("new")))
    assert merge_headers(iter(extra), iter([])) == tuple(extra)
