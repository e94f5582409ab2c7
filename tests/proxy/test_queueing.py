"""Slots and their line: order, fairness, bounds, and that no slot is lost or granted twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from proxy.queueing import QueueFull, QueueMoved, QueueTimeout, Slot, SlotQueue

A, B, C = 1, 2, 3


def make_queue(limit: int | Callable[[int], int | None] | None = 1, **changes: Any) -> SlotQueue:
    return SlotQueue(limit if callable(limit) else lambda _: limit, **changes)


def take(queue: SlotQueue, endpoint_id: int = A) -> Slot:
    slot = queue.try_take(endpoint_id)
    assert slot is not None
    return slot


async def settle() -> None:
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def line_up(queue: SlotQueue, client: str = "ann", accepted: Collection[int] = (A,)) -> asyncio.Task[Slot]:
    task = asyncio.get_running_loop().create_task(queue.wait(accepted, client))
    await settle()
    return task


def is_empty(queue: SlotQueue) -> bool:
    return not queue.waiting and not any(queue.taken(each) for each in (A, B, C)) and queue.has_room(A)


# Slots


def test_it_gives_slots_up_to_the_limit():
    queue = make_queue(2)
    first, _ = take(queue), take(queue)
    assert queue.try_take(A) is None
    assert not queue.has_room(A)
    assert queue.has_room(B)
    first.release()
    assert queue.taken(A) == 1
    assert queue.has_room(A)


def test_it_frees_a_slot_once():
    queue = make_queue(2)
    first, _ = take(queue), take(queue)
    first.release()
    first.release()
    assert queue.taken(A) == 1


@pytest.mark.parametrize("limit", [None, 0])
def test_it_never_runs_out_without_a_limit(limit):
    queue = make_queue(limit)
    for _ in range(500):
        take(queue)
    assert queue.has_room(A)
    assert queue.taken(A) == 500


# Waiting


async def test_it_does_not_wait_where_there_is_room():
    queue = make_queue()
    take(queue, A)
    slot = await queue.wait([A, B], "ann")
    assert (slot.endpoint_id, slot.waited, queue.served) == (B, 0.0, 0)


async def test_it_serves_those_who_wait_in_their_order():
    queue = make_queue()
    slot = take(queue)
    tasks = [await line_up(queue) for _ in range(3)]
    for task in tasks:
        assert not task.done()
        slot.release()
        slot = await task
        assert slot.endpoint_id == A
        assert slot.waited > 0
    slot.release()
    assert queue.served == 3
    assert is_empty(queue)


async def test_it_gives_a_slot_to_the_longest_waiting_that_accepts_it():
    queue = make_queue()
    slots = {each: take(queue, each) for each in (A, B)}
    only_a = await line_up(queue, accepted=[A])
    either = await line_up(queue, accepted=[A, B])
    slots[B].release()
    assert (await either).endpoint_id == B
    assert not only_a.done()
    slots[A].release()
    assert (await only_a).endpoint_id == A


async def test_it_keeps_a_granted_slot_from_those_who_come_later():
    queue = make_queue()
    slot = take(queue)
    task = await line_up(queue)
    slot.release()
    # The task has not run yet.
    assert not queue.has_room(A)
    assert queue.try_take(A) is None
    assert (await task).endpoint_id == A


async def test_it_lets_clients_take_turns():
    queue = make_queue()
    slot = take(queue)
    served: list[str] = []

    async def be_served(client: str) -> None:
        got = await queue.wait([A], client)
        served.append(client)
        got.release()

    async with asyncio.TaskGroup() as tasks:
        for client in ("greedy", "greedy", "greedy", "greedy", "bob", "carol", "bob"):
            tasks.create_task(be_served(client))
        await settle()
        slot.release()
    assert served == ["greedy", "bob", "carol", "greedy", "bob", "greedy", "greedy"]
    assert is_empty(queue)


async def test_it_serves_the_line_when_a_limit_is_raised():
    limits = {A: 1, B: 1}
    queue = make_queue(limits.get)
    take(queue, A), take(queue, B)
    first, second, third = [await line_up(queue, accepted=[A]) for _ in range(3)]
    limits[A] = 3
    # A newcomer does not overtake, even before anybody has said that the limit is another.
    assert not queue.has_room(A)
    assert queue.try_take(A) is None
    await settle()
    assert first.done()
    assert second.done()
    limits[A] = 0
    queue.reconsider()
    assert (await third).endpoint_id == A


async def test_it_does_not_serve_the_line_while_a_lowered_limit_is_exceeded():
    limits = {A: 2}
    queue = make_queue(limits.get)
    slots = [take(queue), take(queue)]
    task = await line_up(queue)
    limits[A] = 1
    slots[0].release()
    await settle()
    assert not task.done()
    slots[1].release()
    await task


# Refusals


async def leave(*tasks: asyncio.Task[Slot]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_refuses_when_the_line_is_full():
    queue = make_queue(length=2)
    take(queue)
    tasks = [await line_up(queue) for _ in range(2)]
    with pytest.raises(QueueFull):
        await queue.wait([A], "ann")
    assert queue.refused == 1
    assert not any(task.done() for task in tasks)
    await leave(*tasks)
    assert queue.waiting == 0


async def test_it_refuses_at_once_when_no_line_is_wanted():
    queue = make_queue(length=0)
    take(queue)
    with pytest.raises(QueueFull):
        await queue.wait([A], "ann")


async def test_it_turns_the_last_of_the_greediest_away_for_another_client():
    queue = make_queue(length=3)
    slot = take(queue)
    greedy = [await line_up(queue, "greedy") for _ in range(3)]
    bob = await line_up(queue, "bob")
    with pytest.raises(QueueFull):
        await greedy[2]
    # From here on it would be no fairer.
    with pytest.raises(QueueFull):
        await queue.wait([A], "bob")
    assert (queue.waiting, queue.refused) == (3, 2)
    for task in (greedy[0], bob, greedy[1]):
        slot.release()
        slot = await task
    slot.release()
    assert is_empty(queue)


async def test_it_refuses_those_who_waited_too_long():
    queue = make_queue(timeout=0.01)
    slot = take(queue)
    with pytest.raises(QueueTimeout):
        await queue.wait([A], "ann")
    assert queue.timed_out == 1
    slot.release()
    assert is_empty(queue)


@pytest.mark.parametrize("waited", [29.99, 30.0, 31.0])
async def test_it_counts_earlier_waits_against_the_time(waited):
    queue = make_queue(timeout=30)
    slot = take(queue)
    async with asyncio.timeout(30):
        with pytest.raises(QueueTimeout):
            await queue.wait([A], "ann", waited=waited)
    assert queue.timed_out == 1
    slot.release()
    (await queue.wait([A], "ann", waited=waited)).release()
    assert is_empty(queue)


async def test_it_sends_those_away_who_would_wait_for_others_by_now():
    queue = make_queue()
    slots = [take(queue, A), take(queue, B)]
    now: dict[str, list[int]] = {"ann": [A], "bob": [B, A]}

    def by_now(name: str) -> Callable[[], list[int]]:
        return lambda: now[name]

    waiting = [
        asyncio.get_running_loop().create_task(queue.wait([A], name, wanted_now=by_now(name)))
        for name in ("ann", "bob")
    ]
    await settle()
    queue.reconsider()
    with pytest.raises(QueueMoved):
        await waiting[1]
    assert (queue.waiting, queue.refused, queue.timed_out) == (1, 0, 0)
    for slot in slots:
        slot.release()
    (await waiting[0]).release()
    assert is_empty(queue)


# Back in line


async def serve_all(slot: Slot, tasks: dict[str, asyncio.Task[Slot]]) -> list[str]:
    """Release and grant until all are served; who was, in which order."""
    served = []
    while tasks:
        slot.release()
        await settle()
        name = next(name for name, task in tasks.items() if task.done())
        served.append(name)
        slot = await tasks.pop(name)
    slot.release()
    return served


async def come_back(queue: SlotQueue, client: str, waited: float) -> asyncio.Task[Slot]:
    task = asyncio.get_running_loop().create_task(queue.wait([A], client, waited=waited))
    await settle()
    return task


async def test_who_comes_back_stands_before_those_who_came_later():
    queue = make_queue()
    slot = take(queue)
    tasks = {name: await line_up(queue, client) for name, client in (("ann-2", "ann"), ("bob-1", "bob"))}
    tasks["ann-1"] = await come_back(queue, "ann", waited=9.0)
    tasks["carol-1"] = await come_back(queue, "carol", waited=8.0)
    tasks["bob-2"] = await line_up(queue, "bob")
    assert await serve_all(slot, tasks) == ["carol-1", "ann-1", "bob-1", "ann-2", "bob-2"]
    assert is_empty(queue)


async def test_a_client_that_comes_back_does_not_come_before_those_it_has_had_its_turn_before():
    queue = make_queue()
    slot = take(queue)
    first = await line_up(queue, "greedy")
    bob = await line_up(queue, "bob")
    slot.release()
    slot = await first
    tasks = {"bob": bob, "greedy": await come_back(queue, "greedy", waited=9.0)}
    assert await serve_all(slot, tasks) == ["bob", "greedy"]
    assert is_empty(queue)


async def test_the_last_to_come_makes_way_for_one_who_comes_back():
    queue = make_queue(length=2)
    slot = take(queue)
    tasks = {"ann": await line_up(queue, "ann"), "bob": await line_up(queue, "bob")}
    tasks["carol"] = await come_back(queue, "carol", waited=9.0)
    with pytest.raises(QueueFull):
        await tasks.pop("bob")
    with pytest.raises(QueueFull):
        await queue.wait([A], "dan")
    assert await serve_all(slot, tasks) == ["carol", "ann"]
    assert is_empty(queue)


def test_it_forgets_the_turns_of_clients_long_gone():
    loop = SteppedLoop()
    queue = make_queue()

    async def come_and_go(client: str) -> None:
        slot = take(queue)
        task = await line_up(queue, client)
        slot.release()
        (await task).release()

    for number in range(1500):
        loop.run_until_complete(come_and_go(f"client-{number}"))
        loop.now += 1
    loop.close()
    assert len(queue._turns) <= 1001


# Clients that leave


async def test_it_forgets_a_client_that_left():
    queue = make_queue()
    slot = take(queue)
    first, second = await line_up(queue), await line_up(queue)
    await leave(first)
    assert queue.waiting == 1
    slot.release()
    (await second).release()
    assert is_empty(queue)


@pytest.mark.parametrize("left_first", [True, False])
async def test_it_passes_a_slot_on_that_was_granted_as_the_client_left(left_first):
    queue = make_queue()
    slot = take(queue)
    first, second = await line_up(queue), await line_up(queue)
    if left_first:
        first.cancel()
        slot.release()
    else:
        slot.release()
        first.cancel()
    (await second).release()
    assert first.cancelled()
    assert is_empty(queue)


async def test_it_frees_a_slot_whose_only_waiter_left_in_the_same_moment():
    queue = make_queue()
    slot = take(queue)
    task = await line_up(queue)
    task.cancel()
    slot.release()
    # Who comes now is not made to wait for one who has left.
    take(queue).release()
    await settle()
    assert is_empty(queue)


async def test_it_leaves_no_trace_of_a_client_that_left_as_it_was_refused(caplog):
    queue = make_queue(length=2)
    slot = take(queue)
    greedy = [await line_up(queue, "greedy") for _ in range(2)]
    bob = asyncio.get_running_loop().create_task(queue.wait([A], "bob"))
    await asyncio.sleep(0)
    assert (queue.refused, greedy[1].done()) == (1, False)
    await leave(*greedy, bob)
    assert all(task.cancelled() for task in greedy)
    slot.release()
    assert is_empty(queue)
    assert caplog.text == ""


async def test_it_counts_no_refusal_of_a_client_that_has_left():
    queue = make_queue(length=2)
    slot = take(queue)
    greedy = [await line_up(queue, "greedy") for _ in range(2)]
    greedy[1].cancel()
    queue.timeout = 0.01
    with pytest.raises(QueueTimeout):
        await queue.wait([A], "bob")
    assert (queue.refused, queue.waiting) == (0, 1)
    await leave(*greedy)
    slot.release()
    assert is_empty(queue)


def test_it_keeps_a_slot_that_was_granted_just_before_the_deadline():
    loop = SteppedLoop()
    queue = make_queue(timeout=10)
    slot = take(queue)
    loop.call_later(9.9, slot.release)
    task = loop.create_task(queue.wait([A], "ann"))
    loop.run_until_complete(settle())
    loop.now = 10.0  # both timers are due in one turn of the loop
    got = loop.run_until_complete(task)
    loop.close()
    assert (got.endpoint_id, got.waited, queue.timed_out) == (A, 10.0, 0)


def test_it_leaves_no_trace_when_the_loop_ends_under_it():
    queue = make_queue()
    slot = take(queue)
    loop = SteppedLoop()

    async def begin() -> Any:
        waiting = queue.wait([A], "ann")
        waiting.send(None)
        return waiting

    waiting = loop.run_until_complete(begin())
    assert queue.waiting == 1
    waiting.close()
    loop.close()
    slot.release()
    assert is_empty(queue)


# Many at once


async def test_it_serves_a_crowd_that_comes_and_goes(long_form):
    dice = random.Random(7)
    queue = make_queue(lambda endpoint_id: endpoint_id, length=50, timeout=20)
    busy: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()

    async def request(number: int) -> None:
        try:
            slot = await queue.wait(dice.sample([A, B, C], dice.randint(1, 3)), f"client-{number % 7}")
        except QueueFull:
            outcomes["full"] += 1
            return
        busy[slot.endpoint_id] += 1
        assert busy[slot.endpoint_id] <= slot.endpoint_id, "granted twice"
        try:
            for _ in range(dice.randint(0, 5)):
                await asyncio.sleep(0)
        finally:
            busy[slot.endpoint_id] -= 1
            slot.release()
        outcomes["served"] += 1

    tasks = []
    for number in range(20_000 if long_form else 2_000):
        tasks.append(asyncio.get_running_loop().create_task(request(number)))
        if dice.random() < 0.3:
            dice.choice(tasks[-40:]).cancel()
        if dice.random() < 0.35:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    left = [each for each in results if each is not None]
    assert all(isinstance(each, asyncio.CancelledError) for each in left)
    assert outcomes.total() + len(left) == len(tasks)
    assert min(outcomes["served"], outcomes["full"], len(left)) > 100
    assert is_empty(queue)


# Against a model of plain lists


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock the test moves."""

    now = 0.0

    def time(self) -> float:
        """The test's time."""
        return self.now


class Waiting:
    """One request of the model."""

    def __init__(self, client: str, accepted: frozenset[int], deadline: float) -> None:
        self.client, self.accepted, self.deadline = client, accepted, deadline
        self.outcome: int | type[BaseException] | None = None  # the endpoint granted, or why there is none
        self.task: asyncio.Task[Slot]


ENDPOINTS = st.sampled_from([A, B])


class QueueMachine(RuleBasedStateMachine):
    """Requests come, hold slots, leave and run out of time, in any order."""

    slots = Bundle("slots")
    LENGTH, TIMEOUT = 4, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.limits = {A: 1, B: 2}
        self.queue = SlotQueue(self.limits.__getitem__, length=self.LENGTH, timeout=self.TIMEOUT)
        self.taken = {A: 0, B: 0}
        self.line: list[Waiting] = []  # in order of arrival
        self.turns: list[str] = []  # clients that wait; whose turn it is comes first
        self.unchecked: list[Waiting] = []
        self.held: list[Slot] = []

    # The model.

    def drop(self, waiting: Waiting) -> None:
        self.line.remove(waiting)
        if not self.of(waiting.client):
            self.turns.remove(waiting.client)

    def of(self, client: str) -> list[Waiting]:
        return [each for each in self.line if each.client == client]

    def end(self, waiting: Waiting, outcome: int | type[BaseException]) -> None:
        self.drop(waiting)
        waiting.outcome = outcome
        self.unchecked.append(waiting)

    def serve(self) -> None:
        """Grant what is free."""
        for endpoint_id in (A, B):
            while self.taken[endpoint_id] < self.limits[endpoint_id]:
                queued = [each for client in self.turns for each in self.of(client)]
                first = next((each for each in queued if endpoint_id in each.accepted), None)
                if first is None:
                    break
                self.end(first, endpoint_id)
                self.taken[endpoint_id] += 1
                if first.client in self.turns:
                    self.turns.remove(first.client)
                    self.turns.append(first.client)

    # The queue, and both compared.

    def run_tasks(self) -> None:
        self.loop.run_until_complete(settle())

    def compare(self) -> Any:
        """Let the tasks run; every outcome is the model's. Returns the slots that came of it."""
        self.run_tasks()
        came = []
        for waiting in self.unchecked:
            assert waiting.task.done()
            if isinstance(waiting.outcome, int):
                assert waiting.task.result().endpoint_id == waiting.outcome
                came.append(waiting.task.result())
            elif waiting.outcome is asyncio.CancelledError:
                assert waiting.task.cancelled()
            else:
                assert type(waiting.task.exception()) is waiting.outcome
        self.unchecked.clear()
        self.held += came
        return multiple(*came)

    def release(self, slot: Slot) -> None:
        self.held.remove(slot)
        self.taken[slot.endpoint_id] -= 1
        slot.release()

    @rule(target=slots, client=st.sampled_from("xyz"), accepted=st.frozensets(ENDPOINTS, min_size=1))
    def arrive(self, client, accepted):
        waiting = Waiting(client, accepted, self.loop.now + self.TIMEOUT)
        free = [each for each in accepted if self.taken[each] < self.limits[each]]
        self.admit(waiting, free)
        waiting.task = self.loop.create_task(self.queue.wait(accepted, client))
        self.run_tasks()
        self.loop.now += 0.01  # no two deadlines are the same
        return self.compare()

    def admit(self, waiting: Waiting, free: list[int]) -> None:
        if not free and len(self.line) >= self.LENGTH:
            greediest = max(self.turns, key=lambda each: (len(self.of(each)), self.line.index(self.of(each)[-1])))
            if len(self.of(waiting.client)) + 1 >= len(self.of(greediest)):
                waiting.outcome = QueueFull
                self.unchecked.append(waiting)
                return
            self.end(self.of(greediest)[-1], QueueFull)
        self.line.append(waiting)
        if waiting.client not in self.turns:
            self.turns.append(waiting.client)
        if free:
            self.end(waiting, free[0])
            self.taken[free[0]] += 1

    @rule(target=slots, endpoint_id=ENDPOINTS)
    def take(self, endpoint_id):
        slot = self.queue.try_take(endpoint_id)
        assert (slot is not None) is (self.taken[endpoint_id] < self.limits[endpoint_id])
        if slot is None:
            return multiple()
        self.taken[endpoint_id] += 1
        self.held.append(slot)
        return slot

    @rule(target=slots, slot=consumes(slots))
    def give_back(self, slot):
        self.release(slot)
        self.serve()
        return self.compare()

    @rule(target=slots, position=st.integers(0, 3))
    def leave(self, position):
        for waiting in self.line[position : position + 1]:
            waiting.task.cancel()
            self.end(waiting, asyncio.CancelledError)
        return self.compare()

    @rule(target=slots, slot=consumes(slots), position=st.integers(0, 3), left_first=st.booleans())
    def race(self, slot, position, left_first):
        """A slot comes free and a client leaves before any task runs."""
        leaver = self.line[position] if position < len(self.line) else None
        if leaver is None:
            self.release(slot)
            self.serve()
        elif left_first:
            leaver.task.cancel()
            self.end(leaver, asyncio.CancelledError)
            self.release(slot)
            self.serve()
        else:
            self.release(slot)
            self.serve()
            leaver.task.cancel()
            if leaver.outcome is None:
                self.end(leaver, asyncio.CancelledError)
            else:
                assert isinstance(leaver.outcome, int)
                self.taken[leaver.outcome] -= 1
                leaver.outcome = asyncio.CancelledError
                self.serve()
        return self.compare()

    @rule(target=slots, endpoint_id=ENDPOINTS, limit=st.integers(1, 3))
    def change_limit(self, endpoint_id, limit):
        self.limits[endpoint_id] = limit
        self.queue.reconsider()
        self.serve()
        return self.compare()

    @rule(target=slots, seconds=st.integers(1, 8))
    def wait(self, seconds):
        self.loop.now += seconds
        for waiting in [each for each in self.line if each.deadline <= self.loop.now]:
            self.end(waiting, QueueTimeout)
        return self.compare()

    @invariant()
    def agrees_with_the_model(self):
        assert self.queue.waiting == len(self.line)
        for endpoint_id in (A, B):
            assert self.queue.taken(endpoint_id) == self.taken[endpoint_id]
            assert self.taken[endpoint_id] == sum(1 for each in self.held if each.endpoint_id == endpoint_id)
            free = self.taken[endpoint_id] < self.limits[endpoint_id]
            assert self.queue.has_room(endpoint_id) is free
            assert not (free and any(endpoint_id in each.accepted for each in self.line)), "a slot was lost"

    def teardown(self):
        for waiting in list(self.line):
            waiting.task.cancel()
        self.run_tasks()
        for slot in self.held:
            slot.release()
        assert is_empty(self.queue)
        self.loop.close()


TestQueueMachine = QueueMachine.TestCase
# Fifty steps each: the long form needs no more than five times as many.
TestQueueMachine.settings = settings(max_examples=min(settings().max_examples, 500))
