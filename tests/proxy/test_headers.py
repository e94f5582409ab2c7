"""Exactly which headers cross, in which direction, and whose values they carry."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.snapshot import EndpointRecord
from proxy.headers import (
    HOP_BY_HOP,
    backend_type_header,
    build_downstream_headers,
    build_length,
    build_upstream_headers,
    has_looped,
    header_text,
    is_local_host,
    is_public_plain,
    may_forward_credentials,
    named_in_connection,
    plan_headers,
)
from proxy.inbound import RawHeaders
from tests.proxy.builders import make_endpoint, make_inbound

VIA = b"1.1 olla-abc"
PRODUCT = b"Olla/1"
KEY = (b"authorization", b"Bearer client")
FIELD_VALUE = re.compile(rb"[\x20-\x7e\x80-\xff\t]*")


def upstream(
    *sent: tuple[bytes, bytes], endpoint: EndpointRecord | None = None, length: int = 2, **changes: Any
) -> RawHeaders:
    inbound = make_inbound(headers=list(sent), **changes)
    plan = plan_headers(endpoint or make_endpoint(), inbound.prefix)
    return [*build_upstream_headers(inbound, plan, VIA, PRODUCT), *build_length(inbound.method, length)]


def values(headers: RawHeaders, name: str) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name.lower().encode()]


# Towards the backend


def test_it_sends_exactly_this() -> None:
    headers = upstream(
        (b"host", b"olla:40114"), (b"user-agent", b"curl"), (b"accept", b"a"), (b"x-custom", b"1"), (b"accept",
        b"b"),
        (b"content-length", b"2"), (b"content-type", b"application/json"), model="llama3",
        endpoint=make_endpoint(headers=[("X-Team", "ml"), ("Authorization", "Bearer own")]),
    )  # fmt: skip
    assert headers == [
        (b"Host", b"gpu-1.local:11434"),
        (b"user-agent", b"curl"),
        (b"accept", b"a"),
        (b"x-custom", b"1"),
        (b"accept", b"b"),
        (b"content-type", b"application/json"),
        (b"X-Real-IP", b"192.0.2.7"),
        (b"X-Forwarded-For", b"192.0.2.7"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", b"olla.example:40114"),
        (b"X-Model", b"llama3"),
        (b"Via", VIA),
        (b"X-Proxied-By", PRODUCT),
        (b"X-Team", b"ml"),
        (b"Authorization", b"Bearer own"),
        (b"Content-Length", b"2"),
    ]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_it_ends_hop_by_hop_headers_here(name: bytes) -> None:
    assert values(upstream((name, b"x")), name.decode()) == []


@pytest.mark.parametrize(
    "name",
    [
        "cookie", "origin", "referer", "sec-fetch-site", "sec-ch-ua", "access-control-request-method",
        "access-control-request-headers", "x-csrftoken", "x-olla-session-id", "x-olla-operator", "x-olla-anything",
        "x-auth-token", "x-goog-api-key", "expect", "forwarded", "x-forwarded-port", "x_api_key", "content_length",
        "x-forwarded_for", "x-forwarded-server", "x-forwarded-prefix", "x-forwarded-path", "x-forwarded-scheme",
        "x-forwarded-protocol", "x-forwarded-ssl", "x-http-method-override", "x-method-override",
        "x-original-url", "x-original-uri", "x-rewrite-url",
    ],
)  # fmt: skip
def test_it_never_forwards_what_is_the_browsers_or_ours(name: str) -> None:
    assert values(upstream((name.encode(), b"x")), name) == []


def test_it_drops_what_connection_names() -> None:
    headers = upstream(
        (b"connection", b"close, X-Secret"), (b"connection", b" x-other ,"), (b"x-secret", b"1"), (b"x-other",
        b"2"),
        (b"x-kept", b"3"),
    )  # fmt: skip
    assert values(headers, "x-secret") + values(headers, "x-other") == []
    assert values(headers, "x-kept") == [b"3"]


def test_it_lets_connection_name_nothing_of_ours() -> None:
    headers = upstream(
        (b"connection", b"via, x-forwarded-for, host, content-length"),
        (b"via", b"1.0 a"),
        (b"x-forwarded-for", b"9"),
    )
    assert values(headers, "via") == [b"1.0 a, " + VIA]
    assert values(headers, "x-forwarded-for") == [b"9, 192.0.2.7"]
    assert values(headers, "host") == [b"gpu-1.local:11434"]
    assert values(headers, "content-length") == [b"2"]


def test_it_appends_to_chains_of_several_headers() -> None:
    headers = upstream(
        (b"via", b"1.0 a"), (b"x-forwarded-for", b"1.1.1.1"), (b"via", b"1.1 b"), (b"x-forwarded-for",
        b"2.2.2.2, 3.3.3.3")
    )  # fmt: skip
    assert values(headers, "via") == [b"1.0 a, 1.1 b, " + VIA]
    assert values(headers, "x-forwarded-for") == [b"1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7"]


def test_it_says_nothing_of_an_unknown_client_or_host() -> None:
    headers = upstream((b"x-forwarded-for", b"1.1.1.1"), (b"x-real-ip", b"1.1.1.1"), client="", host="")
    for name in ("x-forwarded-for", "x-real-ip", "x-forwarded-host", "x-model"):
        assert values(headers, name) == []


@pytest.mark.parametrize(
    ("method", "length", "expected"),
    [("POST", 5, [b"5"]), ("POST", 0, [b"0"]), ("PUT", 0, [b"0"]), ("GET", 0, []), ("GET", 3, [b"3"]),
     ("DELETE", 0, [])],
)  # fmt: skip
def test_it_declares_the_length_of_the_body_once(method: str, length: int, expected: list[bytes]) -> None:
    headers = upstream(
        (b"content-length", b"99"), (b"transfer-encoding", b"chunked"), method=method, length=length
    )
    assert values(headers, "content-length") == expected
    assert values(headers, "transfer-encoding") == []


def test_it_lets_the_endpoints_own_headers_win_once() -> None:
    own = [("X-Forwarded-For", "operator"), ("X-Proxied-By", "us"), ("User-Agent", "ours"), ("X-Real-IP", "")]
    headers = upstream(
        (b"user-agent", b"curl"),
        (b"x-forwarded-for", b"1"),
        endpoint=make_endpoint(headers=own, uses_own_key=False),
    )
    for name, value in own:
        assert values(headers, name) == [value.encode()]


# Credentials


CREDENTIALS = [KEY, (b"x-api-key", b"client"), (b"api-key", b"client")]


@pytest.mark.parametrize(
    ("kind", "prefix", "setting", "forwarded"),
    [
        ("ollama", "proxy", None, False), ("ollama", "openai", None, False), ("ollama", "ollama", None, True),
        ("ollama", "ollama", False, False), ("ollama", "proxy", True, True), ("vllm", "vllm", None, True),
        ("vllm", "openai", None, False), ("lm-studio", "lm_studio", None, True),
        ("openai", "proxy", None, True), ("openai", "proxy", False, False), ("openai", "openai", None, True),
        ("openai-compatible", "proxy", None, True), ("litellm", "proxy", None, True),
        ("litellm", "openai", None, True), ("auto", "proxy", None, False), ("auto", "openai", None, False),
        ("auto", "openai", True, True),
    ],
)  # fmt: skip
def test_it_forwards_the_clients_key_where_it_may(
    kind: str, prefix: str, setting: bool | None, forwarded: bool
) -> None:
    endpoint = make_endpoint(kind=kind, forward_client_auth=setting)
    assert may_forward_credentials(endpoint, prefix) is forwarded
    headers = upstream(*CREDENTIALS, endpoint=endpoint, prefix=prefix)
    for name, value in CREDENTIALS:
        assert values(headers, name.decode()) == ([value] if forwarded else [])


@pytest.mark.parametrize("setting", [None, True, False])
@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_it_never_sends_a_clients_key_in_clear_to_a_public_address(kind: str, setting: bool | None) -> None:
    endpoint = make_endpoint(kind=kind, url="http://api.example.com", forward_client_auth=setting)
    headers = upstream(*CREDENTIALS, endpoint=endpoint, prefix=kind)
    assert not any(values(headers, name.decode()) for name, _ in CREDENTIALS)
    assert may_forward_credentials(make_endpoint(kind="openai", url="https://api.example.com"), "openai")


@pytest.mark.parametrize("own", ["Authorization", "X-Api-Key", "X-Custom-Key"])
def test_it_never_sends_a_clients_key_beside_the_endpoints_own(own: str) -> None:
    endpoint = make_endpoint(kind="openai", headers=[(own, "mine")], forward_client_auth=True)
    headers = upstream(*CREDENTIALS, (b"openai-organization", b"org"), endpoint=endpoint, prefix="openai")
    assert values(headers, own) == [b"mine"]
    assert b"client" not in b"".join(value for _, value in headers)
    assert values(headers, "openai-organization") == []


def test_it_forwards_the_account_with_the_clients_key() -> None:
    headers = upstream(KEY, (b"openai-project", b"p"), endpoint=make_endpoint(kind="openai"), prefix="openai")
    assert values(headers, "openai-project") == [b"p"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "100.64.0.1", "::1", "fd00::1", "fe80::1",
     "gpu-1", "ollama", "gpu.lan", "gpu.local", "host.docker.internal", "nas.home.arpa", "x.svc", "GPU.LOCAL."],
)  # fmt: skip
def test_it_knows_private_hosts(host: str) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    ["api.openai.com", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "local.example.com", "evil.com.",
     "134744072",
     "0x08080808", "0x8.0x8.0x8.0x8", "8.8.2056", "010.010.010.010", "a.notlocal"],
)  # fmt: skip
def test_it_takes_any_other_host_for_public(host: str) -> None:
    assert not is_local_host(host)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://8.8.8.8", True),
        ("https://8.8.8.8", False),
        ("http://10.0.0.1", False),
        ("http://[::1]:8000", False),
    ],
)
def test_it_knows_where_requests_travel_in_clear(url: str, expected: bool) -> None:
    assert is_public_plain(make_endpoint(url=url)) is expected


# Towards the client


def downstream(*received: tuple[bytes, bytes], **changes: Any) -> RawHeaders:
    return build_downstream_headers(received, make_endpoint(**changes))


def test_it_keeps_the_backends_headers_as_they_are() -> None:
    received = [
        (b"Content-Type", b"text/plain"), (b"X-Many", b"1"), (b"x-many", b"2"), (b"ETag", b'"x"'), (b"Server",
        b"uvicorn"),
        (b"X-Accel-Buffering", b"no"), (b"Retry-After", b"3"), (b"Location", b"/elsewhere"), (b"X-Request-Id",
        b"r"),
        (b"Content-Length", b"4"), (b"Via", b"1.1 nginx"), (b"X-RateLimit-Limit", b"9"),
    ]  # fmt: skip
    assert downstream(*received) == received


@pytest.mark.parametrize(
    "name",
    [
        *sorted(name.decode() for name in HOP_BY_HOP), "Set-Cookie", "SET-COOKIE", "Clear-Site-Data", "Refresh",
        "NEL",
        "Strict-Transport-Security", "Service-Worker-Allowed", "Alt-Svc", "Report-To", "Reporting-Endpoints",
        "Access-Control-Allow-Origin", "access-control-expose-headers", "X-Olla-Endpoint", "x-olla-request-id",
        "Authorization", "X-Api-Key", "X-Auth-Token", "Content-Security-Policy", "X-Content-Type-Options",
        "X-Served-By", "WWW-Authenticate", "X-Accel-Redirect", "X-Sendfile", "Set-Login", "Use-As-Dictionary",
    ],
)  # fmt: skip
def test_it_strips_what_would_act_as_this_site(name: str) -> None:
    assert downstream((name.encode(), b"x"), (b"X-Kept", b"y")) == [(b"X-Kept", b"y")]


def test_it_strips_what_the_backends_connection_names() -> None:
    received = [(b"Connection", b"X-Hop, close"), (b"X-Hop", b"1"), (b"X-Kept", b"2")]
    assert downstream(*received) == [(b"X-Kept", b"2")]


def test_it_strips_the_names_of_the_endpoints_own_headers() -> None:
    received = [(b"x-team", b"echo"), (b"x-key", b"s3cret"), (b"Content-Type", b"text/plain"), (b"X-Kept", b"2")]
    own = [("X-Team", "ml"), ("X-Key", "s3cret"), ("Content-Type", "x")]
    assert downstream(*received, headers=own) == [(b"Content-Type", b"text/plain"), (b"X-Kept", b"2")]


def test_it_finds_the_names_in_connection() -> None:
    assert named_in_connection([(b"Connection", b"A, b"), (b"connection", b"c"), (b"x", b"d")]) == {
        b"a",
        b"b",
        b"c",
    }
    assert named_in_connection([]) == frozenset()


# Values of ours


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("llama3:8b", b"llama3:8b"), ("a\r\nX-Evil: 1", b"aX-Evil: 1"), ("a\x00b\x7f\t", b"ab"), ("caf\xe9",
        b"caf\xe9"),
        ("模型", b"??"), ("a\x85b\u2028c", b"abc"), ("\udc80", b""), ("x" * 600, b"x" * 500), ("", b""),
    ],
)  # fmt: skip
def test_it_makes_text_fit_for_a_header(text: str, value: bytes) -> None:
    assert header_text(text) == value


@given(st.text(max_size=50))
def test_it_never_lets_a_name_end_a_header_line(model: str) -> None:
    for _, value in upstream(model=model):
        assert FIELD_VALUE.fullmatch(value)


@pytest.mark.parametrize(
    ("kind", "prefix", "expected"),
    [
        ("ollama", "ollama", b"ollama"), ("ollama", "proxy", b"ollama"), ("ollama", "openai", b"openai"),
        ("vllm", "openai-compatible", b"openai"), ("lm-studio", "lmstudio", b"lmstudio"), ("openai", "proxy",
        b"openai"),
        ("openai-compatible", "proxy", b"openai"), ("litellm", "litellm", b"litellm"),
        ("docker-model-runner", "dmr", b"docker-model-runner"),
    ],
)  # fmt: skip
def test_it_names_the_backend_type(kind: str, prefix: str, expected: bytes) -> None:
    assert backend_type_header(make_endpoint(kind=kind), prefix) == expected


@pytest.mark.parametrize(
    ("headers", "looped"),
    [
        ([(b"via", b"1.1 olla-abc")], True), ([(b"via", b"1.0 x"), (b"via", b"1.1 y, 1.1 olla-abc")], True),
        ([(b"via", b"1.1 olla-other")], False), ([(b"x-via", b"1.1 olla-abc")], False), ([], False),
    ],
)  # fmt: skip
def test_it_notices_a_request_that_comes_round(headers: RawHeaders, looped: bool) -> None:
    assert has_looped(headers, b"olla-abc") is looped


def test_it_keeps_the_endpoints_own_headers_out_of_its_text():
    plan = plan_headers(make_endpoint(headers=[("Authorization", "Bearer hidden")]), "proxy")
    assert (b"Authorization", b"Bearer hidden") in plan.own
    assert "hidden" not in repr(plan)
