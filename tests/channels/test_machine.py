"""The machine of the server's side of a connection."""

from __future__ import annotations

from typing import Any

from trioglock.channels import Rejoined
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


def make_machine(max_topics: int = 100) -> ServerMachine:
    return ServerMachine(lambda topic: topic.startswith("room:") or None, max_topics)


def message(
    join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any = None
) -> PhoenixMessage:
    return PhoenixMessage(join_ref, ref, topic, event, {} if payload is None else payload)


def reply(join_ref: str | None, ref: str, topic: str, status: str, response: Any) -> PhoenixMessage:
    return message(join_ref, ref, topic, "phx_reply", {"response": response, "status": status})


def join(machine: ServerMachine, topic: str = "room:1", ref: str = "1") -> TopicJoin:
    *_, call = machine.receive(message(ref, ref, topic, "phx_join"))
    assert isinstance(call, CallJoin)
    machine.joined(call.join, {})
    return call.join


def test_messages_for_a_topic_that_is_joining_are_calls_like_any_other() -> None:
    machine = make_machine()
    (call,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(call, CallJoin)
    joining = call.join
    assert machine.receive(message(None, "2", "phoenix", "heartbeat")) == (
        reply(None, "2", "phoenix", "ok", {}),
    )
    (push,) = machine.receive(message("1", "3", "room:1", "hi"))
    assert push == CallHandleIn(joining, "3", "hi", {})
    assert machine.receive(message("1", "4", "room:1", "phx_leave")) == (CallLeave(joining, "4"),)
    overloaded = {"reason": "too many"}
    expected = reply("1", "3", "room:1", "error", overloaded)
    assert machine.answer(joining, "3", "error", overloaded) == expected
    assert machine.push(joining, "hello", {}) is None


def test_a_second_join_ends_one_that_still_waits_for_its_hook_and_closes_the_join_before() -> None:
    machine = make_machine(max_topics=1)
    first = join(machine)
    *_, second = machine.receive(message("2", "2", "room:1", "phx_join"))
    assert isinstance(second, CallJoin)
    machine.receive(message("2", "x", "room:1", "hi"))
    answer, end, third = machine.receive(message("3", "3", "room:1", "phx_join"))
    assert answer == reply("2", "2", "room:1", "error", {"reason": "joined again"})
    assert end == CallEnd(second.join, Rejoined())
    assert isinstance(third, CallJoin)
    assert machine.answer(second.join, "x", "ok", {}) is None
    assert machine.joined(second.join, {}) == machine.refused(second.join) == ()
    assert machine.joined(third.join, {}) == (
        reply("3", "3", "room:1", "ok", {}),
        message("1", "1", "room:1", "phx_close"),
    )
    assert first.state is JoinState.ENDED
    assert machine.joins == {"room:1": third.join}


def test_a_push_is_answered_at_most_once() -> None:
    machine = make_machine()
    joined = join(machine)
    (call,) = machine.receive(message("1", "2", "room:1", "hi", {"a": 1}))
    assert call == CallHandleIn(joined, "2", "hi", {"a": 1})
    expected = reply("1", "2", "room:1", "ok", {"b": 2})
    assert machine.answer(joined, "2", "ok", {"b": 2}) == expected
    assert machine.answer(joined, "2", "ok", {}) is None
    assert machine.answer(joined, "3", "ok", {}) is None


def test_a_push_that_was_given_up_is_not_answered() -> None:
    machine = make_machine()
    joined = join(machine)
    machine.receive(message("1", "2", "room:1", "hi"))
    machine.forget(joined, "2")
    assert machine.answer(joined, "2", "ok", {}) is None


def test_nothing_is_sent_for_a_channel_that_has_ended() -> None:
    machine = make_machine()
    joined = join(machine)
    machine.receive(message("1", "2", "room:1", "hi"))
    assert len(machine.crashed(joined)) == 1
    assert machine.crashed(joined) == ()
    assert machine.stopped(joined) == ()
    assert machine.left(joined, "3") == ()
    assert machine.answer(joined, "2", "ok", {}) is None
    assert machine.push(joined, "hello", {}) is None


def test_a_leave_is_answered_when_the_channel_has_reached_it() -> None:
    machine = make_machine()
    joined = join(machine)
    assert machine.receive(message("1", "2", "room:1", "phx_leave")) == (CallLeave(joined, "2"),)
    assert machine.joins == {"room:1": joined}
    assert machine.left(joined, "2") == (
        reply("1", "2", "room:1", "ok", {}),
        message("1", "1", "room:1", "phx_close"),
    )
    assert machine.joins == {}


def test_a_second_join_ends_the_first_one_before_its_hook_runs() -> None:
    machine = make_machine()
    first = join(machine)
    end, call = machine.receive(message("2", "2", "room:1", "phx_join"))
    assert end == CallEnd(first, Rejoined())
    assert isinstance(call, CallJoin)
    assert first.state is JoinState.ENDED
    assert machine.refused(call.join, {"reason": "no"}) == (
        reply("2", "2", "room:1", "error", {"reason": "no"}),
        message("1", "1", "room:1", "phx_close"),
    )
    assert machine.joins == {}


def test_the_limit_counts_topics_that_are_joined_or_joining() -> None:
    machine = make_machine(max_topics=1)
    (first,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(first, CallJoin)
    too_many = reply("2", "2", "room:2", "error", {"reason": "too many channels joined"})
    assert machine.receive(message("2", "2", "room:2", "phx_join")) == (too_many,)
    machine.joined(first.join, {})
    assert machine.receive(message("2", "2", "room:2", "phx_join")) == (too_many,)
    machine.stopped(first.join)
    join(machine, "room:2", "3")


def test_the_end_of_the_connection_ends_all_joins_once() -> None:
    machine = make_machine()
    first, second = join(machine), join(machine, "room:2", "2")
    machine.stopped(first)
    for _ in range(2):
        machine.close()
        assert machine.joins == {}
        assert second.state is JoinState.ENDED


def test_a_join_whose_hook_returns_after_the_end_of_the_connection_is_not_answered() -> None:
    machine = make_machine()
    (call,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(call, CallJoin)
    machine.close()
    assert machine.joined(call.join, {}) == ()
    assert machine.joins == {}


def test_a_join_that_is_refused_after_the_end_of_the_connection_is_not_answered() -> None:
    machine = make_machine()
    (call,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(call, CallJoin)
    machine.close()
    assert machine.refused(call.join) == ()
