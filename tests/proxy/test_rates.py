"""Fixed windows: counts by client, in total, by endpoint, with the time passed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.records import endpoint_rate
from proxy.rates import (
    SHARED_COUNTS,
    EndpointRates,
    OpenRequests,
    RateLimits,
    Refusal,
    RequestRates,
)

MINUTE_STARTS = 1_750_000_020.0
NOW = MINUTE_STARTS + 10.5
SEED = RateLimits(total_per_minute=1000, client_per_minute=100, client_per_second=50)
EASY = RateLimits(client_per_minute=100)


def take_many(rates, count, client="a", limits=SEED, now=NOW):
    return [rates.take(client, limits, now) for _ in range(count)]


def passed(verdicts):
    return sum(verdict.refusal is None for verdict in verdicts)


def test_it_lets_exactly_fifty_of_sixty_pass_within_one_second():
    verdicts = take_many(RequestRates(), 60)

    assert passed(verdicts) == 50
    assert {verdict.refusal for verdict in verdicts[50:]} == {Refusal.BURST}
    assert {verdict.retry_after for verdict in verdicts[50:]} == {1}


def test_it_lets_the_rest_of_the_minute_pass_in_the_next_second():
    rates = RequestRates()
    take_many(rates, 60)

    verdicts = take_many(rates, 60, now=NOW + 1)

    assert passed(verdicts) == 50
    assert verdicts[-1].refusal is Refusal.CLIENT
    assert verdicts[-1].retry_after == 49  # to the end of the minute: 48.5 seconds


def test_it_starts_anew_with_the_next_minute():
    rates = RequestRates()
    take_many(rates, 100, limits=EASY)

    assert rates.take("a", EASY, MINUTE_STARTS + 59.99).refusal is Refusal.CLIENT
    assert rates.take("a", EASY, MINUTE_STARTS + 60).refusal is None


def test_it_tells_what_is_left_and_until_when():
    rates = RequestRates()
    take_many(rates, 2)

    verdict = rates.take("a", SEED, NOW)

    assert (verdict.limit, verdict.remaining, verdict.reset) == (100, 97, int(MINUTE_STARTS) + 60)


def test_it_counts_clients_apart():
    rates = RequestRates()
    take_many(rates, 60)

    assert passed(take_many(rates, 50, client="b")) == 50


def test_it_limits_all_clients_together():
    rates = RequestRates()
    limits = RateLimits(total_per_minute=10, client_per_minute=100)
    for number in range(10):
        rates.take(f"client-{number}", limits, NOW)

    verdict = rates.take("another", limits, NOW)

    assert (verdict.refusal, verdict.limit, verdict.remaining) == (Refusal.TOTAL, 10, 0)


def test_it_does_not_count_what_it_refuses():
    rates = RequestRates()
    limits = RateLimits(total_per_minute=100, client_per_minute=10)
    take_many(rates, 1000, limits=limits)

    assert passed(take_many(rates, 10, client="b", limits=limits)) == 10


def test_it_does_not_count_a_burst_that_was_refused_for_the_minute():
    rates = RequestRates()
    take_many(rates, 50)
    take_many(rates, 30)

    assert rates.take("a", SEED, NOW + 1).remaining == 49


@pytest.mark.parametrize(
    ("limits", "of_200"),
    [
        (RateLimits(), 200),
        (RateLimits(client_per_minute=100), 100),
        (RateLimits(client_per_second=50), 50),
        (RateLimits(total_per_minute=70), 70),
    ],
)
def test_it_switches_each_limit_by_itself(limits, of_200):
    assert passed(take_many(RequestRates(), 200, limits=limits)) == of_200


def test_it_shows_the_common_limit_where_clients_have_none():
    verdict = RequestRates().take("a", RateLimits(total_per_minute=70), NOW)

    assert (verdict.limit, verdict.remaining) == (70, 69)


@pytest.mark.parametrize("others", [1_000, 1_000_000])
def test_it_keeps_a_count_whatever_number_of_others_come(others, long_form):
    rates = RequestRates(most_clients=100_000 if long_form else 10_000)
    take_many(rates, 100, client="victim", limits=EASY)

    for number in range(others if long_form else min(others, 100_000)):
        rates.take(f"other-{number}", EASY, NOW)

    assert rates.take("victim", EASY, NOW).refusal is Refusal.CLIENT


def test_it_holds_a_bounded_number_of_counts():
    rates = RequestRates(most_clients=100)
    for number in range(20_000):
        rates.take(f"client-{number}", EASY, NOW)

    assert len(rates._minute.counts) <= 100 + SHARED_COUNTS


def test_it_limits_clients_beyond_the_most_together():
    rates = RequestRates(most_clients=1)
    limits = RateLimits(client_per_minute=10)
    rates.take("first", limits, NOW)

    verdicts = [rates.take(f"client-{number}", limits, NOW) for number in range(60_000)]

    assert passed(verdicts) <= 10 * SHARED_COUNTS


def test_it_goes_on_counting_when_the_clock_is_set_back_a_little():
    rates = RequestRates()
    take_many(rates, 100, limits=EASY, now=MINUTE_STARTS)

    assert rates.take("a", EASY, MINUTE_STARTS - 1).refusal is Refusal.CLIENT


def test_it_locks_nobody_out_when_the_clock_is_set_back_far():
    rates = RequestRates()
    take_many(rates, 100, limits=EASY, now=NOW + 86_400)

    assert rates.take("a", EASY, NOW).refusal is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=400))
def test_it_never_lets_more_pass_than_each_limit(steps):
    rates = RequestRates()
    limits = RateLimits(total_per_minute=60, client_per_minute=30, client_per_second=10)
    now, seen = NOW, dict[tuple[object, ...], int]()
    for client, wait in steps:
        now += wait / 50
        if rates.take(client, limits, now).refusal is None:
            for key in (("all", now // 60), (client, now // 60), (client, "second", int(now))):
                seen[key] = seen.get(key, 0) + 1

    assert all(count <= (10 if len(key) == 3 else 60 if key[0] == "all" else 30) for key, count in seen.items())


def test_it_limits_requests_that_are_open_at_once():
    requests = OpenRequests()

    assert [requests.open("a", 2) for _ in range(3)] == [True, True, False]
    assert requests.open("b", 2)


def test_it_has_room_again_when_one_has_ended():
    requests = OpenRequests()
    requests.open("a", 1)
    requests.close("a")

    assert requests.open("a", 1)


def test_it_forgets_clients_without_open_requests():
    requests = OpenRequests()
    requests.open("a", 1)
    requests.close("a")

    assert len(requests) == 0


def test_it_has_room_at_an_endpoint_until_its_limit():
    rates = EndpointRates()
    for _ in range(200):
        assert rates.has_room(7, 200, NOW)
        assert not rates.find_spent(NOW)
        rates.count(7, 200, NOW)

    assert set(rates.find_spent(NOW)) == {7}
    assert not rates.has_room(7, 200, NOW)
    assert rates.has_room(8, 200, NOW)
    assert rates.seconds_left(NOW) == 50
    assert rates.has_room(7, 200, NOW + 50)
    assert not rates.find_spent(NOW + 50)


def test_it_goes_by_an_endpoints_new_limit_at_once():
    rates = EndpointRates()
    for _ in range(5):
        rates.count(7, 5, NOW)
        rates.count(8, 9, NOW)

    rates.follow({7: 6, 8: 5}, NOW)
    assert set(rates.find_spent(NOW)) == {8}
    rates.count(7, 6, NOW)
    assert set(rates.find_spent(NOW)) == {7, 8}
    rates.follow({7: 6}, NOW)
    assert set(rates.find_spent(NOW)) == {7}


@pytest.mark.parametrize("limit", [None, 0])
def test_it_always_has_room_at_an_endpoint_without_limit(limit):
    rates = EndpointRates()
    for _ in range(1000):
        rates.count(7, 5, NOW)

    assert rates.has_room(7, limit, NOW)
    rates.follow({}, NOW)
    assert not rates.find_spent(NOW)


@pytest.mark.parametrize(
    ("kind", "own", "limit"),
    [("openai", None, 200), ("openai", 0, 0), ("openai", 7, 7), ("openai-compatible", None, 0), ("ollama", 9, 9)],
)
def test_it_limits_endpoints_of_openai_only_by_default(kind, own, limit):
    assert endpoint_rate(own, kind) == limit
