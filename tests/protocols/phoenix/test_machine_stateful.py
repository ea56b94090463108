"""Any sequence of events keeps the invariants: one join per topic, one outcome per push."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trioglock.protocols.phoenix import AlreadyJoined, BufferFull, Machine, PhoenixMessage
from trioglock.protocols.phoenix.state import (
    ChannelEnded,
    ChannelInterrupted,
    ChannelJoined,
    ChannelPhase,
    DeliverMessage,
    Effect,
    GetPayload,
    ResolvePush,
    SendMessage,
)

TOPICS = st.sampled_from(["a:1", "a:2", "b:1"])
SOON = st.floats(0.1, 30)
PICK = st.integers(0, 10**6)
STATUS = st.sampled_from(["ok", "ok", "error"])


class Phoenix(RuleBasedStateMachine):
    """Drives a machine, and simulates the server, the clock and the user."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(max_buffer=3)
        self.now = 0.0
        self.live: dict[int, str] = {}
        self.joined: set[int] = set()
        self.asked: list[GetPayload] = []
        self.attempts: dict[int, int] = {}
        self.outcomes: Counter[int] = Counter()
        self.pushes: set[int] = set()
        self.leaves: set[int] = set()
        self.withdrawn: set[int] = set()
        self.sent: list[PhoenixMessage] = []
        self.refs: set[str | None] = set()
        self.join_refs: dict[str, str | None] = {}

    # Effects.

    def check(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage(message):
                    self.check_sent(message)
                case GetPayload(channel, attempt):
                    assert channel in self.live
                    self.attempts[channel] = attempt
                    self.asked.append(effect)
                case ChannelJoined(channel, _, again):
                    assert again == (channel in self.joined)
                    self.joined.add(channel)
                case ChannelInterrupted(channel):
                    assert channel in self.live
                case ChannelEnded(channel):
                    del self.live[channel]  # once
                case DeliverMessage(channel, message):
                    assert self.live[channel] == message.topic
                    assert message.join_ref in (None, self.machine.join_ref(channel))
                case ResolvePush(push):
                    self.outcomes[push] += 1

    def check_sent(self, message: PhoenixMessage) -> None:
        assert self.machine.connected
        assert message.ref not in self.refs, "a ref was used twice"
        self.refs.add(message.ref)
        self.sent.append(message)
        if message.event == "phx_join":
            assert message.join_ref == message.ref
            assert self.join_refs.get(message.topic) is None, "joined while it was joined"
            [channel] = [number for number, topic in self.live.items() if topic == message.topic]
            assert message.payload == {"attempt": self.attempts[channel]}, "an old payload"
            self.join_refs[message.topic] = message.ref
        elif message.event == "phx_leave":
            if self.join_refs[message.topic] == message.join_ref:
                self.join_refs[message.topic] = None
        else:
            assert message.join_ref == self.join_refs[message.topic], "pushed to another join"

    # The user.

    @rule(topic=TOPICS, timeout=SOON)
    def join(self, topic: str, timeout: float) -> None:
        try:
            channel, effects = self.machine.join(topic, timeout, self.now + timeout)
        except AlreadyJoined:
            assert topic in self.live.values()
            return
        assert topic not in self.live.values()
        self.live[channel] = topic
        self.check(effects)

    @precondition(lambda self: self.live)
    @rule(pick=PICK, timeout=SOON, wants_reply=st.booleans())
    def push(self, pick: int, timeout: float, wants_reply: bool) -> None:
        channel = self.one_of(list(self.live), pick)
        try:
            push, effects = self.machine.push(
                channel, "event", {}, self.now + timeout, wants_reply=wants_reply
            )
        except BufferFull:
            return
        self.pushes.add(push)
        self.check(effects)

    @precondition(lambda self: self.pushes)
    @rule(pick=PICK)
    def withdraw(self, pick: int) -> None:
        push = self.one_of(sorted(self.pushes), pick)
        if not self.outcomes[push]:
            self.withdrawn.add(push)
        self.machine.withdraw(push)

    @precondition(lambda self: self.live)
    @rule(pick=PICK, timeout=SOON)
    def leave(self, pick: int, timeout: float) -> None:
        leave, effects = self.machine.leave(self.one_of(list(self.live), pick), self.now + timeout)
        self.leaves.add(leave)
        self.check(effects)

    @precondition(lambda self: self.asked)
    @rule(pick=PICK, fails=st.integers(0, 5))
    def answer(self, pick: int, fails: int) -> None:
        """Return the payload of a join, in time or too late."""
        asked = self.asked.pop(pick % len(self.asked))
        if fails == 0:
            self.check(self.machine.fail(asked.channel, ValueError("no payload")))
        else:
            self.give_payload(asked)

    def give_payload(self, asked: GetPayload) -> None:
        payload = {"attempt": asked.attempt}
        self.check(self.machine.payload(asked.channel, asked.attempt, payload))

    # The connection and the clock.

    @initialize()
    def first_connection(self) -> None:
        self.connect()

    @rule()
    def connect(self) -> None:
        if not self.machine.connected:
            self.check(self.machine.connect(self.now))

    @rule()
    def disconnect(self) -> None:
        effects = self.machine.disconnect()
        self.join_refs.clear()
        self.sent.clear()
        assert not any(isinstance(effect, SendMessage) for effect in effects)
        self.check(effects)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.check(self.machine.tick(self.now))
        assert self.machine.next_deadline > self.now

    # The server: correct, late and invalid messages.

    @precondition(lambda self: self.machine.connected)
    @rule(topic=TOPICS)
    def join_successfully(self, topic: str) -> None:
        if topic not in self.live.values():
            self.join(topic, 10)
        for asked in list(self.asked):
            if self.live.get(asked.channel) == topic:
                self.asked.remove(asked)
                self.give_payload(asked)
        if self.join_refs.get(topic) is not None:
            ref = self.join_refs[topic]
            self.receive(ref, ref, topic, "phx_reply", {"status": "ok", "response": {}})

    @precondition(lambda self: self.sent and self.machine.connected)
    @rule(pick=PICK, status=STATUS, with_join_ref=st.booleans())
    def reply(self, pick: int, status: str, with_join_ref: bool) -> None:
        to = self.one_of(self.sent, pick)
        join_ref = to.join_ref if with_join_ref else None
        self.receive(join_ref, to.ref, to.topic, "phx_reply", {"status": status, "response": {}})

    @precondition(lambda self: self.sent and self.machine.connected)
    @rule(pick=PICK, event=st.sampled_from(["phx_close", "phx_error", "news"]))
    def end_or_push(self, pick: int, event: str) -> None:
        to = self.one_of(self.sent, pick)
        self.receive(to.join_ref, None if event == "news" else to.join_ref, to.topic, event, {})

    @precondition(lambda self: self.machine.connected)
    @rule(
        join_ref=st.sampled_from([None, "0", "999999"]),
        ref=st.sampled_from([None, "0", "999999"]),
        topic=st.sampled_from(["a:1", "a:2", "phoenix", "unknown"]),
        event=st.sampled_from(["phx_reply", "phx_close", "phx_error", "news", "phx_join"]),
        payload=st.sampled_from([{}, None, [], {"status": 1}, {"status": "ok"}]),
    )
    def receive_any(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        self.receive(join_ref, ref, topic, event, payload)

    def receive(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        current = self.join_refs.get(topic)
        channel = self.machine.channel(topic)
        joining = channel is not None and self.machine.phase(channel) is ChannelPhase.JOINING
        effects = self.machine.received(
            PhoenixMessage(join_ref, ref, topic, event, payload), self.now
        )
        refused = isinstance(payload, dict) and payload.get("status") == "error"
        ended = event in ("phx_close", "phx_error") and join_ref in (None, current)
        if ended or (event == "phx_reply" and joining and ref == current and refused):
            self.join_refs[topic] = None
        self.check(effects)

    def one_of(self, things: list[Any], pick: int) -> Any:
        return things[pick % len(things)]

    # Invariants.

    @invariant()
    def every_push_is_resolved_at_most_once(self) -> None:
        assert all(count == 1 for count in self.outcomes.values())
        assert not self.withdrawn & self.outcomes.keys()

    @invariant()
    def pending_pushes_are_counted(self) -> None:
        open_pushes = (self.pushes | self.leaves) - self.outcomes.keys() - self.withdrawn
        assert self.machine.pending == len(open_pushes)

    @invariant()
    def one_channel_per_topic(self) -> None:
        topics = list(self.live.values())
        assert len(topics) == len(set(topics))
        for channel, topic in self.live.items():
            assert self.machine.channel(topic) == channel
            join_ref = self.machine.join_ref(channel)
            is_in = self.machine.phase(channel) in (ChannelPhase.JOINING, ChannelPhase.JOINED)
            assert (join_ref is not None) == is_in
            if is_in:
                assert self.join_refs[topic] == join_ref

    def teardown(self) -> None:
        self.check(self.machine.close())
        assert not self.live
        assert self.machine.pending == 0
        assert (self.pushes | self.leaves) - self.withdrawn == set(self.outcomes)
        assert self.machine.next_deadline == float("inf")
        self.every_push_is_resolved_at_most_once()


TestPhoenix = pytest.mark.slow(Phoenix.TestCase)
TestPhoenix.settings = settings(stateful_step_count=40, deadline=None)
