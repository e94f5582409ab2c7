"""Limits at the API door: what counts, what an answer tells, what is released; and the real server."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from proxy.admission import admission
from tests.fakes import Reply, ScriptedBackend, Silence, json_reply, sse_reply
from tests.live import LiveServer

CHAT = "/olla/openai/v1/chat/completions"
BODY = {"model": "m", "messages": []}


@pytest.fixture
def limits(settings, still_clock):
    """Limits by their names in the settings; all off before. They are counted within one minute and second."""

    def set_limits(**values: int) -> None:
        for name, value in values.items():
            setattr(settings, f"OLLA_{name.upper()}", value)

    return set_limits


def rate_headers(exchange):
    return [exchange.header(f"X-RateLimit-{name}") for name in ("Limit", "Remaining")]


async def test_it_tells_the_state_on_a_forwarded_answer(proxy, limits):
    limits(per_ip_requests_per_minute=100)
    async with ScriptedBackend(json_reply({"ok": 1})) as backend:
        await proxy.add(backend.url)
        first, second = await proxy.chat(), await proxy.chat()

    assert rate_headers(first) == ["100", "99"]
    assert rate_headers(second) == ["100", "98"]
    assert 0 < int(second.header("X-RateLimit-Reset")) - time.time() <= 60


async def test_it_tells_the_state_on_a_stream(proxy, limits):
    limits(per_ip_requests_per_minute=100)
    async with ScriptedBackend(sse_reply([{"a": 1}])) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat(stream=True)

    assert rate_headers(answer) == ["100", "99"]
    assert b"[DONE]" in answer.body


async def test_it_tells_its_own_state_not_a_backends(proxy, limits):
    limits(per_ip_requests_per_minute=100)
    async with ScriptedBackend(json_reply({}, headers=[(b"X-RateLimit-Limit", b"7")])) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat()

    assert [value for name, value in answer.headers if name.lower() == b"x-ratelimit-limit"] == [b"100"]


async def test_it_passes_a_backends_state_when_it_has_none(proxy):
    async with ScriptedBackend(json_reply({}, headers=[(b"X-RateLimit-Limit", b"7")])) as backend:
        await proxy.add(backend.url)
        answer = await proxy.chat()

    assert answer.header("X-RateLimit-Limit") == "7"


async def test_it_tells_the_state_on_an_error(proxy, limits):
    limits(per_ip_requests_per_minute=100)

    answer = await proxy.chat()

    assert (answer.status, rate_headers(answer)) == (404, ["100", "99"])


async def test_it_refuses_with_our_error(proxy, limits):
    limits(per_ip_requests_per_minute=1)
    await proxy.chat()

    answer = await proxy.chat()

    assert answer.status == 429
    assert answer.json()["error"]["code"] == "rate_limited"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(answer.header("Retry-After")) <= 60
    assert rate_headers(answer) == ["1", "0"]
    assert answer.header("X-Olla-Request-ID")


async def test_it_sends_nothing_to_a_backend_when_it_refuses(proxy, limits):
    limits(per_ip_requests_per_minute=1)
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url)
        answers = [await proxy.chat() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 429, 429]
    assert len(backend.requests) == 1


async def test_it_counts_what_turns_out_to_be_invalid(proxy, limits):
    limits(per_ip_requests_per_minute=1)
    await proxy.call("POST", CHAT, b"not JSON")

    assert (await proxy.chat()).status == 429


@pytest.mark.parametrize("path", ["/olla/openai/v1/models", "/olla/models", "/version", "/olla/nobody/x"])
async def test_it_does_not_count_what_is_answered_here(proxy, limits, path):
    limits(per_ip_requests_per_minute=1)
    for _ in range(3):
        answer = await proxy.call("GET", path)
        assert answer.status != 429
        assert answer.header("X-RateLimit-Limit") is None

    assert (await proxy.chat()).status == 404


async def test_it_counts_every_prefix_together(proxy, limits):
    limits(per_ip_requests_per_minute=2)
    answers = [await proxy.chat(prefix) for prefix in ("openai", "ollama", "proxy")]

    assert [answer.status for answer in answers] == [404, 404, 429]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_it_counts_anthropics_routes_with_the_others(proxy, limits, path):
    limits(per_ip_requests_per_minute=1)
    await proxy.chat()

    answer = await proxy.call("POST", f"/olla/anthropic{path}", {**BODY, "max_tokens": 1})

    assert answer.status == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.header("Retry-After")


async def test_it_limits_health_by_itself(proxy, limits):
    limits(per_ip_requests_per_minute=1, health_requests_per_minute=2)
    await proxy.chat()
    await proxy.chat()

    answers = [await proxy.call("GET", "/internal/health") for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert rate_headers(answers[0]) == ["2", "1"]


async def test_it_limits_requests_answered_at_once(proxy, limits):
    limits(per_ip_concurrent_requests=1)
    async with ScriptedBackend(Silence()) as backend:
        await proxy.add(backend.url)
        open_one = proxy.open("POST", CHAT, BODY)
        await backend.wait_requests(1)
        refused = await proxy.chat()
        open_one.leave()
        await open_one.done()

    assert (refused.status, refused.header("Retry-After")) == (429, "1")
    assert len(admission.open_requests) == 0


@pytest.mark.parametrize(
    "script",
    [json_reply({}), sse_reply([{"a": 1}]), Reply(500), Reply(200, body=b"x" * 10, length=20)],
    ids=["json", "stream", "error", "cut"],
)
async def test_it_has_room_again_however_the_answer_ended(proxy, limits, script):
    limits(per_ip_concurrent_requests=1)
    async with ScriptedBackend(script) as backend:
        await proxy.add(backend.url)
        await proxy.chat()
        answer = await proxy.chat()

    assert answer.status != 429
    assert len(admission.open_requests) == 0


async def test_it_has_room_again_after_an_error_of_its_own(proxy, limits):
    limits(per_ip_concurrent_requests=1)
    for body in (b"not JSON", BODY):
        assert (await proxy.call("POST", CHAT, body)).status in (400, 404)

    assert len(admission.open_requests) == 0


async def test_it_tells_backends_the_client_and_every_hop(proxy, settings):
    settings.OLLA_TRUSTED_PROXIES = ("10.1.2.0/24",)
    told = [("X-Forwarded-For", "6.6.6.6, 198.51.100.7"), ("X-Forwarded-Proto", "https")]
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url)
        await proxy.call("POST", CHAT, BODY, headers=[*told, ("X-Forwarded-Host", "olla.example.org")])

    request = backend.requests[0]
    assert request.header("X-Real-IP") == "198.51.100.7"
    assert request.header("X-Forwarded-For") == "6.6.6.6, 198.51.100.7, 10.1.2.3"
    assert request.header("X-Forwarded-Proto") == "https"
    assert request.header("X-Forwarded-Host") == "olla.example.org"


async def test_it_tells_backends_what_a_trusted_proxy_said_in_forwarded(proxy, settings):
    settings.OLLA_TRUSTED_PROXIES = ("10.1.2.3",)
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url)
        await proxy.call("POST", CHAT, BODY, headers=[("Forwarded", "for=198.51.100.7;proto=https")])

    request = backend.requests[0]
    assert request.header("X-Forwarded-For") == "198.51.100.7, 10.1.2.3"
    assert (request.header("X-Forwarded-Proto"), request.header("Forwarded")) == ("https", None)


async def test_it_replaces_what_a_stranger_says_and_keeps_the_hops_it_named(proxy):
    told = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example")]
    async with ScriptedBackend(json_reply({})) as backend:
        await proxy.add(backend.url)
        await proxy.call("POST", CHAT, BODY, headers=[*told, ("X-Real-IP", "6.6.6.6")])

    request = backend.requests[0]
    assert request.header("X-Real-IP") == "10.1.2.3"
    assert request.header("X-Forwarded-For") == "6.6.6.6, 10.1.2.3"
    assert request.header("X-Forwarded-Proto") == "http"
    assert request.header("X-Forwarded-Host") == "olla.test:40114"


# -- the real server with the seed's limits

SEED_LIMITS = {
    "OLLA_GLOBAL_REQUESTS_PER_MINUTE": "1000",
    "OLLA_PER_IP_REQUESTS_PER_MINUTE": "100",
    "OLLA_BURST_SIZE": "50",
}


class Client:
    """One address, told by a proxy in front, on one kept-alive connection."""

    def __init__(self, server: LiveServer, address: str) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        self._headers = {"X-Forwarded-For": address, "Content-Type": "application/json"}

    def ask(self, method: str = "POST", path: str = CHAT) -> http.client.HTTPResponse:
        """One request and its answer, read."""
        body = json.dumps(BODY) if method == "POST" else None
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer

    def ask_many(self, count: int) -> list[int]:
        """The statuses of that many requests; 404 (there is no endpoint) is a request that passed."""
        return [self.ask().status for _ in range(count)]

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def client_of(server: LiveServer, address: str) -> Iterator[Client]:
    client = Client(server, address)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def limited_server():
    with LiveServer(env={**SEED_LIMITS, "OLLA_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        yield server


def wait_for_second(least_left: int = 0) -> int:
    """Wait for the begin of a second with at least so many more in its minute; that second."""
    now = time.time()
    start = int(now) + 1
    if 60 - start % 60 < least_left:
        start += 60 - start % 60
    time.sleep(start - now + 0.002)
    return start


def test_it_lets_fifty_of_sixty_pass_in_one_second_and_a_hundred_in_the_minute(limited_server):
    for attempt in range(20):
        with client_of(limited_server, f"198.51.100.{attempt}") as client:
            client.ask("GET", "/version")  # connected
            second = wait_for_second(least_left=15)
            statuses = client.ask_many(60)
            if int(time.time()) != second:
                continue  # the machine was too slow to say anything
            assert (statuses.count(404), statuses.count(429)) == (50, 10)

            wait_for_second()
            assert client.ask_many(50) == [404] * 50
            refused = client.ask()
            if int(time.time()) // 60 != second // 60:
                continue
            assert (refused.status, refused.headers["X-RateLimit-Remaining"]) == (429, "0")
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert client.ask("GET", "/internal/health").status == 200
            with client_of(limited_server, "203.0.113.77") as another:
                assert another.ask().status == 404
            return
    pytest.fail("sixty requests never fitted into one second")


def left_within_a_minute(server: LiveServer, addresses: Callable[[int], Sequence[str]]) -> list[int]:
    """What each address in turn has left, asked within one minute of the clock; `addresses` for each attempt."""
    for attempt in range(20):
        start = wait_for_second(least_left=5)
        left = []
        for address in addresses(attempt):
            with client_of(server, address) as client:
                left.append(int(client.ask().headers["X-RateLimit-Remaining"]))
        if int(time.time()) // 60 == start // 60:
            return left
    pytest.fail("a few requests never fitted into one minute")


def test_it_tells_two_clients_behind_one_proxy_apart(limited_server):
    left = left_within_a_minute(limited_server, lambda n: [f"203.0.113.{n}"] * 2 + [f"2001:db8::{n + 1:x}"])

    assert left == [99, 98, 99]


def test_it_does_not_believe_a_spoofed_address_of_a_stranger():
    with LiveServer(env={**SEED_LIMITS, "OLLA_TRUSTED_PROXIES": "192.0.2.1"}) as server:
        first, second = left_within_a_minute(server, lambda _: ["198.51.100.1", "198.51.100.2"])

        assert second == first - 1


def test_it_writes_the_client_behind_the_proxy_into_the_access_log(limited_server):
    with client_of(limited_server, "198.51.100.222") as client:
        client.ask()
    deadline = time.monotonic() + 10
    while "client_ip=198.51.100.222" not in limited_server.output():
        assert time.monotonic() < deadline
        time.sleep(0.05)
