"""The state machine of subscriptions: a table of all inputs, and random orders of events."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.cases import case_of
from trioglock import Gap, SubscriptionRefused, SubscriptionTimeout
from trioglock.connection.subscriptions.machine import KeyState, SubscriptionMachine
from trioglock.connection.subscriptions.updates import UpdateQueue, make_updates_queue
from trioglock.options import Overflow
from trioglock.telemetry import EventEmitter

WANTED, REQUESTED, ACTIVE, REFUSED, LEAVING = KeyState

TIMEOUT = 10.0


class RecordingConsumer:
    """Records what the machine does with it."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def put(self, key: Any, message: Any) -> None:
        self.log.append(message)

    def activated(self, key: Any) -> None:
        self.log.append("activated")

    def interrupted(self, key: Any) -> None:
        self.log.append("interrupted")

    def fail(self, error: Exception) -> None:
        self.log.append(type(error))


class OneKey:
    """A machine on an open link, and one key in a given state."""

    def __init__(self, state: KeyState | None, consumers: int, **options: bool) -> None:
        self.machine = SubscriptionMachine(timeout=TIMEOUT, **options)
        self.machine.open_link(0)
        self.consumers = [RecordingConsumer() for _ in range(consumers)]
        if state is not WANTED:
            self.machine.set_ready()
        if state is not None:
            self._reach(state)
        for consumer in self.consumers:
            consumer.log.clear()

    def _reach(self, state: KeyState) -> None:
        machine, first = self.machine, RecordingConsumer()
        machine.join("k", first, 0)
        if state is not WANTED:
            machine.take_requests(0)
        if state in (ACTIVE, LEAVING):
            machine.subscribed("k")
        if state is REFUSED:
            machine.expire(TIMEOUT)
        if state is LEAVING:
            machine.leave("k", first)
            machine.take_requests(0)
        for consumer in self.consumers:
            machine.join("k", consumer, 0)
        machine.leave("k", first)
        assert machine.state("k") is (state if consumers_or(state, self.consumers) else None)

    @property
    def log(self) -> list[Any]:
        logs = [consumer.log for consumer in self.consumers]
        assert all(log == logs[0] for log in logs)
        return logs[0] if logs else []

    def sends(self) -> list[bool]:
        """Whether the requests for the key, if any, subscribe."""
        return [subscribe for subscribe, keys in self.machine.take_requests(0) if keys == ["k"]]


def consumers_or(state: KeyState, consumers: list[Any]) -> bool:
    return bool(consumers) or state is not WANTED


def subscribed(key: OneKey) -> None:
    key.machine.subscribed("k")


def unsubscribed(key: OneKey) -> None:
    key.machine.unsubscribed("k", "gone")


def refused(key: OneKey) -> None:
    key.machine.refused("k", "no")


def expired(key: OneKey) -> None:
    key.machine.expire(2 * TIMEOUT)


def updated(key: OneKey) -> None:
    key.machine.update("k", "update")


def lost(key: OneKey) -> None:
    key.machine.close_link()


def joined(key: OneKey) -> None:
    key.consumers.append(RecordingConsumer())
    key.machine.join("k", key.consumers[-1], 0)
    del key.consumers[:-1]


def left(key: OneKey) -> None:
    for consumer in key.consumers:
        key.machine.leave("k", consumer)


SUBSCRIBE, UNSUBSCRIBE = True, False
NO, LATE = SubscriptionRefused, SubscriptionTimeout

Input = Callable[[OneKey], None]

# State, number of consumers, input: the state after it, what consumers see, and the requests sent.
TABLE: list[tuple[KeyState | None, int, Input, KeyState | None, list[Any], list[bool]]] = [
    (None, 0, subscribed, None, [], []),
    (None, 0, unsubscribed, None, [], []),
    (None, 0, refused, None, [], []),
    (None, 0, expired, None, [], []),
    (None, 0, updated, None, [], []),
    (None, 0, lost, None, [], []),
    (None, 0, joined, WANTED, [], [SUBSCRIBE]),
    (None, 0, left, None, [], []),
    (WANTED, 1, subscribed, WANTED, [], []),
    (WANTED, 1, unsubscribed, WANTED, [], []),
    (WANTED, 1, refused, WANTED, [], []),
    (WANTED, 2, expired, None, [LATE], []),
    (WANTED, 1, updated, WANTED, [], []),
    (WANTED, 2, lost, WANTED, ["interrupted"], []),
    (WANTED, 1, joined, WANTED, [], []),
    (WANTED, 2, left, None, [], []),
    (REQUESTED, 2, subscribed, ACTIVE, ["activated"], []),
    (REQUESTED, 0, subscribed, ACTIVE, [], [UNSUBSCRIBE]),
    (REQUESTED, 1, unsubscribed, REQUESTED, [], []),
    (REQUESTED, 2, refused, None, [NO], []),
    (REQUESTED, 0, refused, None, [], []),
    (REQUESTED, 2, expired, REFUSED, [LATE], [UNSUBSCRIBE]),
    (REQUESTED, 0, expired, REFUSED, [], [UNSUBSCRIBE]),
    (REQUESTED, 2, updated, REQUESTED, ["update"], []),
    (REQUESTED, 0, updated, REQUESTED, [], []),
    (REQUESTED, 2, lost, WANTED, ["interrupted"], []),
    (REQUESTED, 0, lost, None, [], []),
    (REQUESTED, 0, joined, REQUESTED, [], []),
    (REQUESTED, 1, joined, REQUESTED, [], []),
    (REQUESTED, 2, left, REQUESTED, [], []),
    (ACTIVE, 1, subscribed, ACTIVE, [], []),
    (ACTIVE, 2, unsubscribed, REFUSED, [NO], [UNSUBSCRIBE]),
    (ACTIVE, 0, unsubscribed, REFUSED, [], [UNSUBSCRIBE]),
    (ACTIVE, 2, refused, None, [NO], []),
    (ACTIVE, 0, refused, None, [], []),
    (ACTIVE, 1, expired, ACTIVE, [], []),
    (ACTIVE, 2, updated, ACTIVE, ["update"], []),
    (ACTIVE, 0, updated, ACTIVE, [], [UNSUBSCRIBE]),
    (ACTIVE, 2, lost, WANTED, ["interrupted"], []),
    (ACTIVE, 0, lost, None, [], []),
    (ACTIVE, 0, joined, ACTIVE, ["activated"], []),
    (ACTIVE, 1, joined, ACTIVE, ["activated"], []),
    (ACTIVE, 2, left, ACTIVE, [], [UNSUBSCRIBE]),
    (REFUSED, 1, subscribed, REFUSED, [], [UNSUBSCRIBE]),
    (REFUSED, 1, unsubscribed, WANTED, [], [SUBSCRIBE]),
    (REFUSED, 0, unsubscribed, None, [], []),
    (REFUSED, 1, refused, WANTED, [], [SUBSCRIBE]),
    (REFUSED, 0, refused, None, [], []),
    (REFUSED, 1, expired, REFUSED, [], [UNSUBSCRIBE]),
    (REFUSED, 1, updated, REFUSED, [], [UNSUBSCRIBE]),
    (REFUSED, 1, lost, WANTED, ["interrupted"], []),
    (REFUSED, 0, lost, None, [], []),
    (REFUSED, 0, joined, REFUSED, [], [UNSUBSCRIBE]),
    (REFUSED, 1, left, REFUSED, [], [UNSUBSCRIBE]),
    (LEAVING, 1, subscribed, LEAVING, [], []),
    (LEAVING, 1, unsubscribed, WANTED, [], [SUBSCRIBE]),
    (LEAVING, 0, unsubscribed, None, [], []),
    (LEAVING, 1, refused, WANTED, [], [SUBSCRIBE]),
    (LEAVING, 0, refused, None, [], []),
    (LEAVING, 1, expired, WANTED, [], [SUBSCRIBE]),
    (LEAVING, 0, expired, None, [], []),
    (LEAVING, 1, updated, LEAVING, [], []),
    (LEAVING, 0, updated, LEAVING, [], []),
    (LEAVING, 1, lost, WANTED, ["interrupted"], []),
    (LEAVING, 0, lost, None, [], []),
    (LEAVING, 0, joined, LEAVING, [], []),
    (LEAVING, 1, left, LEAVING, [], []),
]


def test_every_input_in_every_state() -> None:
    for before, consumers, event, after, log, sent in TABLE:
        with case_of(before, consumers, event.__name__):
            key = OneKey(before, consumers)
            event(key)
            assert key.machine.state("k") is after
            assert key.log == log
            assert key.sends() == sent
            assert key.sends() == []


def test_the_table_is_complete() -> None:
    inputs = {subscribed, unsubscribed, refused, expired, updated, lost, joined, left}
    assert {(before, event) for before, _, event, *_ in TABLE} == {
        (state, event) for state in (None, *KeyState) for event in inputs
    }


def test_a_server_without_confirmations() -> None:
    """A key is active when its request is sent, and gone when the next one is."""
    key = OneKey(None, 1, confirms=False, confirms_leaving=False)
    key.machine.join("k", key.consumers[0], 0)
    assert key.machine.state("k") is WANTED
    assert key.sends() == [SUBSCRIBE]
    assert key.machine.state("k") is ACTIVE
    assert key.log == ["activated"]
    left(key)
    assert key.sends() == [UNSUBSCRIBE]
    assert key.machine.state("k") is None
    assert key.machine.update("k", "late")


def test_a_refused_key_is_subscribed_again_without_confirmations_of_leaving() -> None:
    """The request to unsubscribe and the next one to subscribe leave in this order."""
    key = OneKey(REFUSED, 1, confirms_leaving=False)
    assert key.sends() == [UNSUBSCRIBE]
    assert key.sends() == [SUBSCRIBE]
    # Updates may belong to the earlier subscription until the new one is confirmed.
    key.machine.update("k", "old")
    key.machine.subscribed("k")
    key.machine.update("k", "new")
    assert key.log == ["interrupted", "activated", "new"]


def test_answers_to_an_earlier_request() -> None:
    """If the end of a subscription is not confirmed, answers to the next one are ambiguous."""
    key = OneKey(REFUSED, 1, confirms_leaving=False)
    assert (key.sends(), key.sends()) == ([UNSUBSCRIBE], [SUBSCRIBE])
    key.machine.subscribed("k")
    key.machine.update("k", "old")
    key.machine.subscribed("k")
    key.machine.update("k", "new")
    assert key.log == ["activated", "old", "interrupted", "activated", "new"]
    key = OneKey(REFUSED, 1, confirms_leaving=False)
    assert (key.sends(), key.sends()) == ([UNSUBSCRIBE], [SUBSCRIBE])
    key.machine.refused("k", "no")
    assert key.log == [SubscriptionRefused]
    assert key.sends() == [UNSUBSCRIBE]


def test_batches() -> None:
    machine = SubscriptionMachine(batch=2, timeout=TIMEOUT)
    machine.open_link(0)
    machine.set_ready()
    consumer = RecordingConsumer()
    for key in range(5):
        machine.join(key, consumer, 0)
    assert machine.take_requests(0) == [(True, [0, 1]), (True, [2, 3]), (True, [4])]
    for key in (0, 1, 2):
        machine.subscribed(key)
        machine.leave(key, consumer)
    machine.join(5, consumer, 0)
    assert machine.take_requests(0) == [(False, [0, 1]), (False, [2]), (True, [5])]


def test_timeouts() -> None:
    """A request that has not been written gets more time; the timeouts expire in order."""
    machine = SubscriptionMachine(timeout=TIMEOUT)
    machine.open_link(0)
    machine.set_ready()
    early, late = RecordingConsumer(), RecordingConsumer()
    machine.join("early", early, 0)
    machine.join("late", late, 0)
    machine.take_requests(3)
    assert machine.next_deadline == 13
    machine.expire(13, unsent={"late"})
    assert (early.log, late.log) == ([LATE], [])
    assert machine.next_deadline == 23
    machine.expire(23)
    assert late.log == [LATE]


# Random orders of events.

KEYS = ["a", "b"]


class ModelServer:
    """A server that handles requests in order, and numbers the updates of each key."""

    def __init__(self, *, confirms_leaving: bool) -> None:
        self.confirms_leaving = confirms_leaving
        self.requests: deque[tuple[bool, str]] = deque()
        self.messages: deque[tuple[str, str, int]] = deque()
        self.active: set[str] = set()
        self.numbers = dict.fromkeys(KEYS, 0)

    def lose(self) -> None:
        self.requests.clear()
        self.messages.clear()
        self.active.clear()

    def publish(self, key: str) -> None:
        """Updates exist whether or not the client is subscribed."""
        self.numbers[key] += 1
        if key in self.active:
            self.messages.append(("update", key, self.numbers[key]))

    def handle(self, answer: str, *, data_first: bool) -> None:
        """Handle a request: accept it, refuse it, or accept or ignore it without an answer."""
        subscribe, key = self.requests.popleft()
        if not subscribe:
            # A client may unsubscribe to be sure, after a timeout.
            self.active.discard(key)
            if self.confirms_leaving and answer != "silence":
                self.messages.append(("unsubscribed", key, 0))
            return
        if answer in ("accept", "silence"):
            assert key not in self.active, "subscribed twice"
            self.active.add(key)
        if data_first:
            self.publish(key)
        if answer == "accept":
            self.messages.append(("subscribed", key, 0))
        elif answer == "refuse":
            self.messages.append(("refused", key, 0))


class SubscriptionModel(RuleBasedStateMachine):
    """Drives the machine and real consumers with random events, against a model of the server."""

    consumers = Bundle("consumers")
    confirms_leaving: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = SubscriptionMachine(
            batch=2, timeout=TIMEOUT, confirms_leaving=self.confirms_leaving
        )
        self.server = ModelServer(confirms_leaving=self.confirms_leaving)
        self.joined: dict[UpdateQueue, dict[str, int]] = {}
        """The consumers, and the number of the last update of each of their keys."""
        self.linked = False

    @initialize(target=consumers)
    def start(self) -> Any:
        """Most examples need a link and an active key."""
        self.open_link()
        self.make_ready()
        queue: Any = self.join(["a"], None, "wait")
        self.settle([])
        return queue

    # The program.

    @rule(
        target=consumers,
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True),
        limit=st.sampled_from([1, 2, None]),
        overflow=st.sampled_from(["drop_oldest", "drop_newest"]),
    )
    def join(self, keys: list[str], limit: int | None, overflow: Overflow) -> UpdateQueue:
        queue = make_updates_queue(
            keys, limit, "wait" if limit is None else overflow, EventEmitter(None, of="test")
        )
        self.joined[queue] = {}
        for key in keys:
            self.machine.join(key, queue, self.now)
        return queue

    @rule(queue=consumes(consumers), again=st.booleans())
    def leave(self, queue: UpdateQueue, again: bool) -> None:
        """Leave the block, or cancel the wait for the confirmation; perhaps join again."""
        self.receive(queue)
        for key in queue.keys:
            self.machine.leave(key, queue)
        queue.end()
        del self.joined[queue]
        if again:
            if len(queue.keys) == 1:
                self.flush()
            self.join(list(queue.keys), None, "wait")

    @rule(queue=consumers)
    def receive(self, queue: UpdateQueue) -> None:
        """Check that no update is missing without a gap, once all keys were confirmed."""
        if queue.inactive:
            return
        last = self.joined[queue]
        while queue.items:
            item = queue.items.popleft()
            if isinstance(item, Gap):
                for key in queue.keys if item.channel is None else [item.channel]:
                    last.pop(key, None)
                continue
            key, number = item
            assert number == last.get(key, number - 1) + 1, "a gap was not reported"
            last[key] = number

    @rule()
    def flush(self) -> None:
        while self.machine.has_requests:
            for subscribe, keys in self.machine.take_requests(self.now):
                assert 0 < len(keys) <= 2
                self.server.requests.extend((subscribe, key) for key in keys)

    # The server.

    @precondition(lambda self: self.server.requests)
    @rule(answer=st.sampled_from(["accept", "accept", "refuse", "silence"]), early=st.booleans())
    def handle(self, answer: str, early: bool) -> None:
        self.server.handle(answer, data_first=early)

    @rule(key=st.sampled_from(KEYS))
    def publish(self, key: str) -> None:
        self.server.publish(key)

    @precondition(lambda self: self.server.messages)
    @rule(twice=st.booleans())
    def deliver(self, twice: bool) -> None:
        """Deliver the next message of the server, perhaps twice if it is a confirmation."""
        kind, key, number = self.server.messages.popleft()
        if kind == "update":
            self.machine.update(key, (key, number))
            return
        for name in (key, key, "unknown") if twice else (key,):
            if kind == "subscribed":
                self.machine.subscribed(name)
            elif kind == "refused":
                self.machine.refused(name, "no")
            else:
                self.machine.unsubscribed(name, "gone")

    # The link.

    @precondition(lambda self: self.linked)
    @rule(seen=st.booleans(), reconnects=st.booleans())
    def lose(self, seen: bool, reconnects: bool) -> None:
        """Lose the link, perhaps with an update before and one during the outage."""
        if seen:
            self.settle(KEYS)
        self.server.lose()
        self.machine.close_link()
        self.linked = False
        if reconnects:
            for key in KEYS:
                self.server.publish(key)
            self.open_link()
            self.make_ready()

    @precondition(lambda self: not self.linked)
    @rule()
    def open_link(self) -> None:
        self.machine.open_link(self.now)
        self.linked = True

    @precondition(lambda self: self.linked and not self.machine._is_ready)
    @rule()
    def make_ready(self) -> None:
        self.machine.set_ready()
        self.flush()

    @rule(seconds=st.sampled_from([0.5, TIMEOUT / 2, TIMEOUT]))
    def wait(self, seconds: float) -> None:
        self.before_wait()
        self.now += seconds
        self.machine.expire(self.now)

    def before_wait(self) -> None:
        """Called before time passes."""

    # What must hold.

    @invariant()
    def an_ended_consumer_has_an_error(self) -> None:
        for queue in self.joined:
            assert queue.ended == (queue.error is not None)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=4))
    def settle(self, keys: list[str]) -> None:
        """Let the server accept everything, publish, and all consumers receive."""
        self.flush()
        for key in keys:
            self.server.publish(key)
        while self.server.requests or self.server.messages:
            if self.server.requests:
                self.handle("accept", early=bool(keys))
            else:
                self.deliver(twice=False)
            self.flush()
        for queue in self.joined:
            self.receive(queue)

    def teardown(self) -> None:
        """Once everything is answered, exactly the wanted keys are active."""
        if not self.linked:
            self.open_link()
        if not self.machine._is_ready:
            self.make_ready()
        self.settle([])
        while self.machine.next_deadline < math.inf:
            self.wait(TIMEOUT)
            self.settle([])
        for queue in list(self.joined):
            if queue.ended:
                self.leave(queue, again=False)
        self.settle(KEYS)
        wanted = {key for queue in self.joined for key in queue.keys}
        assert self.server.active == wanted
        assert {key for key in KEYS if self.machine.state(key)} == wanted
        assert not any(queue.inactive for queue in self.joined)


class WithoutConfirmationsOfLeaving(SubscriptionModel):
    """Such a server may leave out an answer, but does not answer after the timeout.

    Nothing would distinguish such an answer from that to the next request.
    """

    confirms_leaving = False

    def before_wait(self) -> None:
        self.settle([])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queues of consumers read a clock, which this test does not need."""
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("model", [SubscriptionModel, WithoutConfirmationsOfLeaving])
def test_random_orders(model: type[SubscriptionModel]) -> None:
    """No order of events leaves a wrong key active, or loses an update without a gap."""
    run_state_machine_as_test(
        model, settings=settings(max_examples=20, stateful_step_count=50, deadline=None)
    )


def walk(model: SubscriptionModel, random: Random) -> None:
    """Take random steps. Hypothesis shrinks failures, but rarely finds long sequences."""
    consumers = [model.start()]
    for _ in range(40):
        step = random.randrange(12)
        if step < 2 or not consumers:
            keys = random.sample(KEYS, random.randint(1, 2))
            consumers.append(model.join(keys, random.choice([1, 2, None]), "drop_oldest"))
        elif step < 4:
            model.leave(consumers.pop(random.randrange(len(consumers))), again=False)
            consumers[:] = model.joined
        elif step == 4:
            model.flush()
        elif step == 5 and model.server.requests:
            model.handle(
                random.choice(["accept", "refuse", "silence"]), early=random.random() < 0.5
            )
        elif step < 8 and model.server.messages:
            model.deliver(twice=random.random() < 0.2)
        elif step == 8:
            model.publish(random.choice(KEYS))
        elif step == 9:
            model.wait(random.choice([0.5, TIMEOUT / 2, TIMEOUT]))
        elif step == 10:
            model.settle(random.choices(KEYS, k=3))
        else:
            change_link(model, random)
    model.teardown()


def change_link(model: SubscriptionModel, random: Random) -> None:
    if not model.linked:
        model.open_link()
    elif not model.machine._is_ready:
        model.make_ready()
    elif random.random() < 0.3:
        model.lose(seen=random.random() < 0.5, reconnects=random.random() < 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("model", [SubscriptionModel, WithoutConfirmationsOfLeaving])
def test_random_walks(model: type[SubscriptionModel]) -> None:
    """As above, with longer sequences."""
    for seed in range(700):
        try:
            walk(model(), Random(seed))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
