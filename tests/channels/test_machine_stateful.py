"""At random: the machine, a client that follows the protocol, and messages that cross."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trioglock.channels.machine import (
    CallEnd,
    CallHandleIn,
    CallJoin,
    CallLeave,
    JoinState,
    ServerMachine,
    TopicJoin,
)
from trioglock.protocols.phoenix import PhoenixMessage

TOPICS = ["room:1", "room:2", "room:3", "nope"]


class Conversation(RuleBasedStateMachine):
    """A client and a server; messages wait in two queues, and calls in the queue of a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.server = ServerMachine(lambda topic: topic != "nope" or None, max_topics=2)
        self.refs = itertools.count(1)
        self.to_server = deque[PhoenixMessage]()
        self.to_client = deque[PhoenixMessage]()
        # The client.
        self.current: dict[str, str] = {}  # the latest join of each topic
        self.joined: dict[str, str] = {}
        self.asked: dict[str, str] = {}  # the event of each ref
        self.replies = Counter[str]()
        # The server.
        self.joining: list[TopicJoin] = []
        self.calls: dict[TopicJoin, deque[CallHandleIn | CallLeave]] = {}
        self.kept: list[tuple[TopicJoin, str]] = []
        self.successes = Counter[TopicJoin]()
        self.ends = Counter[TopicJoin]()
        self.lost = False

    # The client.

    def ask(self, join_ref: str | None, topic: str, event: str, ref: str | None = None) -> None:
        ref = ref or str(next(self.refs))
        self.asked[ref] = event
        self.to_server.append(PhoenixMessage(join_ref, ref, topic, event, {}))

    @rule(topic=st.sampled_from(TOPICS))
    def client_joins(self, topic: str) -> None:
        ref = str(next(self.refs))
        self.current[topic] = ref
        self.joined.pop(topic, None)
        self.ask(ref, topic, "phx_join", ref)

    @rule(topic=st.sampled_from(TOPICS), stale=st.booleans())
    def client_pushes(self, topic: str, stale: bool) -> None:
        self.ask("0" if stale else self.current.get(topic, "0"), topic, "hi")

    @rule(topic=st.sampled_from(TOPICS), null=st.booleans())
    def client_leaves(self, topic: str, null: bool) -> None:
        if topic in self.current:
            self.ask(None if null else self.current[topic], topic, "phx_leave")

    @rule()
    def client_sends_a_heartbeat(self) -> None:
        self.ask(None, "phoenix", "heartbeat")

    @precondition(lambda self: self.to_client)
    @rule()
    def client_receives(self) -> None:
        message = self.to_client.popleft()
        topic, join_ref, ref = message.topic, message.join_ref, message.ref
        if message.event == "phx_reply":
            assert ref is not None
            self.replies[ref] += 1
            if self.asked[ref] == "phx_join" and ref == self.current.get(topic):
                if message.payload["status"] == "ok":
                    self.joined[topic] = ref
                else:
                    self.joined.pop(topic, None)
        elif message.event in ("phx_close", "phx_error"):
            assert join_ref == ref
            if join_ref == self.joined.get(topic):
                del self.joined[topic]

    # The server.

    @precondition(lambda self: self.to_server and not self.lost)
    @rule()
    def server_receives(self) -> None:
        self.run(self.server.receive(self.to_server.popleft()))

    def run(self, outputs: Any) -> None:
        for output in outputs:
            match output:
                case PhoenixMessage():
                    self.to_client.append(output)
                case CallHandleIn(join) | CallLeave(join):
                    self.calls[join].append(output)
                case CallEnd(join):
                    self.end(join)
                case CallJoin(join):
                    self.joining.append(join)
                    self.calls[join] = deque()

    def end(self, join: TopicJoin) -> None:
        self.calls.pop(join, None)
        if join not in self.joining:  # otherwise its hook may still return
            self.ends[join] += 1

    @precondition(lambda self: self.joining)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "refused", "crashed"]))
    def join_returns(self, data: st.DataObject, outcome: str) -> None:
        self.return_join(data.draw(st.sampled_from(self.joining)), outcome)

    def return_join(self, join: TopicJoin, outcome: str) -> None:
        self.joining.remove(join)
        if outcome == "ok":
            messages = self.server.joined(join, {})
            if messages:
                self.successes[join] += 1
            self.run(messages)
        else:
            self.run(self.server.refused(join, {} if outcome == "refused" else None))
            for call in self.calls.pop(join, ()):
                event = "phx_leave" if isinstance(call, CallLeave) else call.event
                message = PhoenixMessage(join.join_ref, call.ref, join.topic, event, {})
                self.run(self.server.receive(message))

    def ready(self) -> list[TopicJoin]:
        """The joined channels with calls."""
        return [join for join, calls in self.calls.items() if calls and join not in self.joining]

    @precondition(lambda self: self.ready())
    @rule(data=st.data(), outcome=st.sampled_from(["answer", "keep", "nothing", "stop", "crash"]))
    def channel_handles(self, data: st.DataObject, outcome: str) -> None:
        waiting = self.ready()
        join = data.draw(st.sampled_from(waiting))
        call = self.calls[join].popleft()
        if isinstance(call, CallLeave):
            messages = self.server.left(join, call.ref)
            self.run(messages)
            if messages:
                self.end(join)
            return
        ref = call.ref
        assert ref is not None
        if outcome == "answer":
            answer = self.server.answer(join, ref, "ok", {})
            assert answer is not None
            self.to_client.append(answer)
        elif outcome == "keep":
            self.kept.append((join, ref))
        elif outcome == "nothing":
            self.server.forget(join, ref)
        else:
            end = self.server.stopped if outcome == "stop" else self.server.crashed
            messages = end(join)
            self.run(messages)
            if messages:
                self.end(join)

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), twice=st.booleans())
    def channel_answers_later(self, data: st.DataObject, twice: bool) -> None:
        join, ref = data.draw(st.sampled_from(self.kept))
        if not twice:
            self.kept.remove((join, ref))
        answer = self.server.answer(join, ref, "ok", {})
        if join.state is not JoinState.JOINED:
            assert answer is None
        if answer is not None:
            self.to_client.append(answer)

    @precondition(lambda self: not self.lost)
    @rule(really=st.integers(0, 9))
    def connection_ends(self, really: int) -> None:
        if really == 0:
            self.lost = True
            joins = list(self.server.joins.values())
            self.server.close()
            for join in joins:
                self.end(join)
            self.to_client.clear()

    # What holds.

    @invariant()
    def every_ref_is_answered_at_most_once(self) -> None:
        waiting = Counter(message.ref for message in self.to_client if message.event == "phx_reply")
        for ref, count in (self.replies + waiting).items():
            assert count == 1, ref

    @invariant()
    def a_successful_join_ends_at_most_once(self) -> None:
        assert max(self.ends.values(), default=0) <= 1
        assert set(self.ends) <= set(self.successes)
        joins = set(self.server.joins.values())
        assert joins - set(self.joining) == set(self.successes) - set(self.ends)

    @invariant()
    def the_limit_holds(self) -> None:
        assert len(self.server.joins) <= 2

    def teardown(self) -> None:
        """When everything has arrived, both sides agree about what is joined."""
        while not self.lost and (self.to_server or self.to_client or self.joining):
            if self.joining:
                self.return_join(self.joining[0], "ok")
            elif self.to_server:
                self.server_receives()
            else:
                self.client_receives()
        if not self.lost:
            # A leave that its channel has not reached changes nothing yet.
            joins = {topic: join.join_ref for topic, join in self.server.joins.items()}
            assert self.joined == joins


@pytest.mark.slow
def test_every_ref_is_answered_at_most_once_and_both_sides_agree_about_what_is_joined() -> None:
    run_state_machine_as_test(
        Conversation, settings=settings(stateful_step_count=60, deadline=None)
    )
