"""Refusals for rate and size are counted, within bounds."""

from __future__ import annotations

from proxy.errors import ErrorCode
from proxy.violations import MOST_CLIENTS, REMEMBERED_SECONDS, Violations, violations

NOW = 1_750_000_000.0


def test_it_counts_refusals_by_limit_and_clients_once():
    counts = Violations()
    for limit, client in (("client", "a"), ("burst", "a"), ("client", "b")):
        counts.note_rate(limit, client, NOW)
    assert (counts.rates, counts.rate_total) == ({"client": 2, "burst": 1}, 3)
    assert counts.limited_clients(NOW) == 2


def test_it_forgets_clients_after_an_hour_and_counts_nothing_less():
    counts = Violations()
    counts.note_rate("client", "a", NOW)
    counts.note_rate("client", "b", NOW + 1000)
    counts.note_rate("client", "a", NOW + 2000)
    assert counts.limited_clients(NOW + 1000 + REMEMBERED_SECONDS) == 1
    assert counts.limited_clients(NOW + 2000 + REMEMBERED_SECONDS) == 0
    assert counts.rate_total == 3


def test_it_remembers_no_more_clients_than_it_may():
    counts = Violations()
    for number in range(MOST_CLIENTS + 100):
        counts.note_rate("client", str(number), NOW)
    assert counts.limited_clients(NOW) == MOST_CLIENTS
    assert counts.rate_total == MOST_CLIENTS + 100


def test_it_counts_only_errors_that_tell_of_a_size():
    counts = Violations()
    for code in ErrorCode:
        counts.note_error(code)
    assert counts.sizes == {ErrorCode.REQUEST_TOO_LARGE: 1, ErrorCode.HEADERS_TOO_LARGE: 1}


async def test_it_shows_refusals_in_the_status(proxy, settings):
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = 1
    for _ in range(4):
        await proxy.chat()
    settings.OLLA_PER_IP_REQUESTS_PER_MINUTE = 0
    settings.OLLA_MAX_BODY_SIZE = 10
    refused = await proxy.chat(text="x" * 100)
    assert refused.status == 413
    status = (await proxy.call("GET", "/internal/status")).json()
    seen = status["security"]["violations"]
    assert seen["rate_limits"] == violations.rate_total >= 2  # a minute may have begun in between
    assert seen["size_limits"] == 1
    assert status["security"]["blocked_ips"] == 1
    assert status["system"]["security_violations"] == seen["rate_limits"] + 1
    assert status["system"]["total_requests"] == 5
