"""At random: broadcasts, losses, joins with an id, and a history that forgets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.channels.history_helpers import SlowBroker
from trioglock.channels import Channel, History, Push
from trioglock.errors import ConnectionClosed
from trioglock.pubsub import Hub

SIZE, SECONDS = 4, 30


class Room(Channel[None]):
    history = History(size=SIZE, seconds=SECONDS)


class Intercepting(Room):
    intercept = ("news",)

    async def handle_out(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep(0.02)
        return Push(event, payload), state


TOPICS = ["room:1", "intercepting:1"]


class Model:
    """What was broadcast."""

    def __init__(self) -> None:
        self.order: list[tuple[str, int]] = []
        self.times: dict[tuple[str, int], float] = {}
        self.counts = dict.fromkeys(TOPICS, 0)

    def add(self, topic: str) -> int:
        self.counts[topic] += 1
        event = (topic, self.counts[topic])
        self.order.append(event)
        self.times[event] = trio.current_time()
        return event[1]

    def may_have_gap(self, topic: str, last: int) -> bool:
        """Whether an event after the last one is no longer kept.

        If none of a topic is kept, events of others count, too.
        """
        deadline = trio.current_time() - SECONDS
        later = self.order[self.order.index((topic, last)) + 1 :] if last else self.order
        if self.times.get((topic, self.counts[topic]), 0) >= deadline:
            later = [event for event in later if event[0] == topic]
        return last < self.counts[topic] - SIZE or any(self.times[one] < deadline for one in later)


class Member:
    """A client that joins again with the id of the last event that it has received."""

    def __init__(self, site: ChannelsSite, model: Model, topic: str) -> None:
        self.site = site
        self.model = model
        self.topic = topic
        self.last: int = 0
        self.after: Any = 0
        self.scope = trio.CancelScope()
        self.next_ref = 0
        self.ref = ""
        self.joined = False
        self.may_skip = True  # the history before the next event is unknown
        self.raw: RawPhoenix | None = None

    async def run(self) -> None:
        """Connect, until the end."""
        while True:
            with trio.CancelScope() as self.scope:
                async with self.site.dial() as self.raw:
                    self.joined = False
                    await self.join()
                    try:
                        while True:
                            await self.take(*await self.raw.receive())
                    except ConnectionClosed:
                        pass

    async def join(self) -> None:
        self.joined = False
        self.next_ref += 1
        self.ref = str(self.next_ref)
        assert self.raw is not None
        await self.raw.send(self.ref, self.ref, self.topic, "phx_join", {"after": self.after})

    async def take(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        if event == "news":
            if self.joined:
                self.take_event(payload)
        elif join_ref != self.ref:
            return
        elif event == "phx_error":
            await self.join()
        elif event == "phx_reply" and ref == self.ref:
            if payload["status"] == "error":
                assert payload["response"] == {"reason": "the history cannot be read"}
                await trio.sleep(0.5)
                await self.join()
                return
            self.joined = True
            gap = payload["response"] == {"gap": True}
            assert gap or payload["response"] == {}
            assert not gap or self.model.may_have_gap(self.topic, self.last)
            self.may_skip = gap or not self.last

    def take_event(self, payload: Any) -> None:
        number = payload["n"]
        assert number > self.last, "received twice"
        assert number == self.last + 1 or self.may_skip, "lost"
        self.last, self.after, self.may_skip = number, payload["id"], False

    def check(self) -> None:
        """Everything has arrived."""
        assert self.joined
        assert self.last == self.model.counts[self.topic] or self.may_skip


async def act(site: ChannelsSite, broker: SlowBroker, members: list[Member], action: Any) -> None:
    match action:
        case ("broadcast", topic, count):
            for _ in range(count):
                await site.channels.broadcast(topic, "news", {"n": members[0].model.add(topic)})
        case ("sleep", seconds):
            await trio.sleep(seconds)
        case ("speed", delivery, before, after):
            broker.delivery_seconds = delivery
            broker.seconds_before_reading, broker.seconds_after_reading = before, after
        case ("drop", number):
            members[number].joined = False
            members[number].scope.cancel()
        case ("rejoin", number):
            if members[number].joined:
                await members[number].join()
        case ("reconnect",):
            await broker.session.reconnect()
        case ("lose",):
            broker.session.lose()
        case ("unavailable", is_unavailable):
            broker.is_unavailable = is_unavailable


async def run(actions: list[Any]) -> None:
    broker, model = SlowBroker(), Model()
    routes: dict[str, type[Channel[Any]]] = {"room:*": Room, "intercepting:*": Intercepting}
    async with (
        serving_channels(routes, hub=Hub(broker=broker, max_queue=3)) as site,
        trio.open_nursery() as nursery,
    ):
        members = [Member(site, model, topic) for topic in TOPICS for _ in range(2)]
        for member in members:
            nursery.start_soon(member.run)
        for action in actions:
            await act(site, broker, members, action)
        await act(site, broker, members, ("speed", 0.0, 0.0, 0.0))
        broker.is_unavailable = False
        await trio.sleep(4)
        for member in members:
            member.check()
        nursery.cancel_scope.cancel()


seconds = st.sampled_from([0.0, 0.01, 0.1])
ACTIONS = st.one_of(
    st.tuples(st.just("broadcast"), st.sampled_from(TOPICS), st.sampled_from([1, 1, 2, 3, 6])),
    st.tuples(st.just("sleep"), st.sampled_from([0, 0, 0.01, 0.03, 0.1, 0.3, 1, 20, 50])),
    st.tuples(st.just("speed"), seconds, seconds, seconds),
    st.tuples(st.just("drop"), st.integers(0, 3)),
    st.tuples(st.just("rejoin"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["reconnect", "lose"])),
    st.tuples(st.just("unavailable"), st.booleans()),
)


@pytest.mark.slow
@settings(max_examples=25)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_nothing_is_lost_or_received_twice_without_a_gap(actions: list[Any]) -> None:
    trio.run(partial(run, actions), clock=MockClock(autojump_threshold=0))
