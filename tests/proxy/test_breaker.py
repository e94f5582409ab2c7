"""The breaker: when it opens, who may try, and whose word counts."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from proxy.breaker import FAILURE_STATUSES, Breaker, BreakerView, GateState, Ticket

ONE, TWO = 1, 2


def enter(breaker: Breaker, now: float = 0.0, endpoint_id: int = ONE) -> Ticket:
    ticket = breaker.try_enter(endpoint_id, now)
    assert ticket is not None
    return ticket


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.fail(enter(breaker, now), now)


def state(breaker: Breaker, now: float) -> GateState:
    return breaker.view(ONE, now).state


@pytest.fixture
def breaker() -> Breaker:
    """Opened at 0 by five failures; the first probe may pass at 30."""
    breaker = Breaker(threshold=5, open_time=30)
    fail(breaker, 5)
    return breaker


# Opening


def test_it_lets_requests_pass_while_nothing_fails():
    breaker = Breaker()
    for _ in range(100):
        breaker.succeed(enter(breaker), 0.0)
    assert breaker.view(ONE, 0.0) == BreakerView(GateState.CLOSED, 0, None, None)


def test_it_opens_at_the_threshold():
    breaker = Breaker(threshold=5, open_time=30)
    fail(breaker, 4, now=1.0)
    assert breaker.is_candidate(ONE, 1.0)
    fail(breaker, 1, now=2.0)
    assert not breaker.is_candidate(ONE, 2.0)
    assert breaker.try_enter(ONE, 2.0) is None
    assert breaker.view(ONE, 2.0) == BreakerView(GateState.OPEN, 5, 2.0, 32.0)


def test_it_counts_failures_in_a_row_only():
    breaker = Breaker(threshold=5)
    for _ in range(10):
        fail(breaker, 4)
        breaker.succeed(enter(breaker), 0.0)
    assert breaker.view(ONE, 0.0) == BreakerView(GateState.CLOSED, 0, None, None)


def test_it_does_not_count_requests_that_taught_nothing():
    breaker = Breaker(threshold=5)
    fail(breaker, 4)
    for _ in range(10):
        breaker.release(enter(breaker), 0.0)
    assert breaker.view(ONE, 0.0) == BreakerView(GateState.CLOSED, 4, None, None)


def test_it_keeps_endpoints_apart(breaker):
    assert breaker.is_candidate(TWO, 1.0)
    assert enter(breaker, 1.0, TWO) == Ticket(TWO, 0)


def test_it_never_opens_with_a_threshold_of_zero():
    breaker = Breaker(threshold=0)
    fail(breaker, 100)
    assert breaker.is_candidate(ONE, 0.0)
    assert breaker.view(ONE, 0.0) == BreakerView(GateState.CLOSED, 100, None, None)


def test_it_lets_everything_pass_once_it_is_turned_off(breaker):
    breaker.threshold = 0
    assert breaker.is_candidate(ONE, 1.0)
    assert enter(breaker, 1.0) != enter(breaker, 1.0)
    assert state(breaker, 1.0) is GateState.CLOSED


def test_it_counts_the_statuses_of_a_server_in_trouble():
    assert {502, 503, 504} == FAILURE_STATUSES


# Half open


def test_it_lets_one_request_try_after_the_open_time(breaker):
    assert not breaker.is_candidate(ONE, 29.9)
    assert breaker.is_candidate(ONE, 30.0)
    assert state(breaker, 29.9) is GateState.OPEN
    assert state(breaker, 30.0) is GateState.HALF_OPEN
    assert enter(breaker, 31.0).is_probe
    assert not breaker.is_candidate(ONE, 31.0)
    assert breaker.try_enter(ONE, 31.0) is None
    assert breaker.view(ONE, 31.0) == BreakerView(GateState.HALF_OPEN, 5, 0.0, 61.0)


def test_it_closes_when_the_probe_succeeds(breaker):
    breaker.succeed(enter(breaker, 31.0), 32.0)
    assert breaker.view(ONE, 32.0) == BreakerView(GateState.CLOSED, 0, None, None)
    fail(breaker, 4, now=33.0)
    assert breaker.is_candidate(ONE, 33.0)


def test_it_opens_anew_when_the_probe_fails(breaker):
    breaker.fail(enter(breaker, 31.0), 33.0)
    assert breaker.view(ONE, 33.0) == BreakerView(GateState.OPEN, 6, 33.0, 63.0)


def test_it_lets_the_next_request_try_when_the_probe_taught_nothing(breaker):
    breaker.release(enter(breaker, 31.0), 31.5)
    assert state(breaker, 31.5) is GateState.HALF_OPEN
    assert enter(breaker, 31.5).is_probe


def test_it_hands_the_place_of_a_hung_probe_on(breaker):
    hung = enter(breaker, 31.0)
    assert not breaker.is_candidate(ONE, 60.9)
    second = enter(breaker, 61.0)
    assert second.is_probe
    breaker.succeed(hung, 62.0)
    assert state(breaker, 62.0) is GateState.HALF_OPEN
    breaker.release(hung, 62.0)
    breaker.fail(hung, 62.0)
    assert breaker.try_enter(ONE, 62.0) is None
    breaker.succeed(second, 63.0)
    assert state(breaker, 63.0) is GateState.CLOSED
    breaker.fail(hung, 64.0)
    assert breaker.view(ONE, 64.0).failures == 0


def test_it_does_not_believe_requests_from_before_it_opened():
    breaker = Breaker(threshold=2)
    early, later = enter(breaker), enter(breaker)
    fail(breaker, 2)
    breaker.succeed(early, 1.0)
    assert state(breaker, 1.0) is GateState.OPEN
    breaker.succeed(enter(breaker, 31.0), 31.0)
    breaker.fail(later, 32.0)
    assert breaker.view(ONE, 32.0).failures == 0


def test_it_closes_as_soon_as_the_answer_of_the_probe_begins_well(breaker):
    ticket = breaker.confirm(enter(breaker, 31.0), 31.2)
    assert state(breaker, 31.2) is GateState.CLOSED
    breaker.fail(ticket, 90.0)
    assert breaker.view(ONE, 90.0).failures == 1


def test_it_does_not_take_a_good_beginning_for_success():
    breaker = Breaker(threshold=3)
    for _ in range(3):
        ticket = enter(breaker)
        assert breaker.confirm(ticket, 0.0) is ticket
        breaker.fail(ticket, 0.0)
    assert state(breaker, 0.0) is GateState.OPEN


def test_it_does_not_believe_the_good_beginning_of_a_superseded_probe(breaker):
    hung, second = enter(breaker, 31.0), enter(breaker, 61.0)
    assert breaker.confirm(hung, 62.0) is hung
    assert state(breaker, 62.0) is GateState.HALF_OPEN
    breaker.succeed(second, 62.0)
    assert breaker.confirm(hung, 63.0) is hung


def test_it_names_the_endpoints_that_nothing_may_enter(breaker):
    assert Breaker().closed_ways(0.0) == []
    breaker.fail(enter(breaker, 29.0, TWO), 29.0)
    assert breaker.closed_ways(29.0) == [ONE]
    assert breaker.closed_ways(30.0) == []
    enter(breaker, 30.0)
    assert breaker.closed_ways(30.0) == [ONE]


def test_it_forgets_endpoints_that_are_gone(breaker):
    probe = enter(breaker, 31.0)
    breaker.retain({TWO})
    assert breaker.is_candidate(ONE, 31.0)
    breaker.fail(probe, 32.0)
    breaker.release(probe, 32.0)
    assert breaker.view(ONE, 32.0).failures == 0
    breaker.retain([ONE])


# Against a model: a gate that is shut until a moment, and a list of the requests whose word counts


class Held:
    """A ticket in a request's hands."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.id = ticket.endpoint_id


class BreakerMachine(RuleBasedStateMachine):
    """Random requests to two endpoints, their ends in any order, and time."""

    held = Bundle("held")
    THRESHOLD, OPEN_TIME = 3, 10

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.THRESHOLD, self.OPEN_TIME)
        self.now = 0
        self.believed: dict[int, list[Held]] = {ONE: [], TWO: []}
        self.failures = {ONE: 0, TWO: 0}
        self.shut_until: dict[int, int] = {}  # absent: closed

    def may_enter(self, endpoint_id: int) -> bool:
        return self.now >= self.shut_until.get(endpoint_id, 0)

    def shut(self, endpoint_id: int) -> None:
        self.believed[endpoint_id] = []
        self.shut_until[endpoint_id] = self.now + self.OPEN_TIME

    def unshut(self, endpoint_id: int) -> None:
        self.failures[endpoint_id] = 0
        if self.shut_until.pop(endpoint_id, None) is not None:
            self.believed[endpoint_id] = []

    def hand_out(self, ticket: Ticket) -> Held:
        held = Held(ticket)
        self.believed[held.id].append(held)
        return held

    def take_back(self, held: Held) -> bool:
        """Whether its word counts."""
        counts = held in self.believed[held.id]
        if counts:
            self.believed[held.id].remove(held)
        return counts

    @rule(target=held, endpoint_id=st.sampled_from([ONE, TWO]))
    def enter(self, endpoint_id):
        expected = self.may_enter(endpoint_id)
        ticket = self.breaker.try_enter(endpoint_id, self.now)
        assert (ticket is not None) is expected
        if ticket is None:
            return multiple()
        assert ticket.is_probe is (endpoint_id in self.shut_until)
        if ticket.is_probe:
            self.shut(endpoint_id)  # for the others
        return self.hand_out(ticket)

    @rule(held=consumes(held))
    def succeed(self, held):
        self.breaker.succeed(held.ticket, self.now)
        if self.take_back(held):
            self.unshut(held.id)

    @rule(held=consumes(held))
    def fail(self, held):
        self.breaker.fail(held.ticket, self.now)
        if self.take_back(held):
            self.failures[held.id] += 1
            if held.id in self.shut_until or self.failures[held.id] >= self.THRESHOLD:
                self.shut(held.id)

    @rule(held=consumes(held))
    def release(self, held):
        self.breaker.release(held.ticket, self.now)
        if self.take_back(held) and held.id in self.shut_until:
            self.shut_until[held.id] = min(self.now, self.shut_until[held.id])

    @rule(target=held, held=consumes(held))
    def confirm(self, held):
        ticket = self.breaker.confirm(held.ticket, self.now)
        if held in self.believed[held.id] and held.id in self.shut_until:
            self.unshut(held.id)
            return self.hand_out(ticket)
        assert ticket is held.ticket
        return held

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def agrees_with_the_model(self):
        for endpoint_id in (ONE, TWO):
            view = self.breaker.view(endpoint_id, self.now)
            assert (view.state is GateState.CLOSED) is (endpoint_id not in self.shut_until)
            assert view.failures == self.failures[endpoint_id]
            assert self.breaker.is_candidate(endpoint_id, self.now) is self.may_enter(endpoint_id)
            if not self.may_enter(endpoint_id):
                assert view.next_try == self.shut_until[endpoint_id]


TestBreakerMachine = BreakerMachine.TestCase
# Fifty steps each: the long form needs no more than five times as many.
TestBreakerMachine.settings = settings(max_examples=min(settings().max_examples, 500))
