"""The machine of the server's side of a connection."""

from __future__ import annotations

from typing import Any

import pytest

from trioglock.channels import Left, Rejoined
from trioglock.channels.machine import (
    CallEnd,
    CallHandleIn,
    CallJoin,
    CallLeave,
    JoinState,
    ServerMachine,
    TopicJoin,
)
from trioglock.errors import UsageError
from trioglock.protocols.phoenix import PhoenixMessage


def make_machine(max_topics: int = 100) -> ServerMachine:
    return ServerMachine(lambda topic: topic.startswith("room:"), max_topics)


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


def test_no_message_is_received_while_a_join_waits_for_its_hook() -> None:
    machine = make_machine()
    machine.receive(message("1", "1", "room:1", "phx_join"))
    with pytest.raises(UsageError, match="waits for its hook"):
        machine.receive(message(None, "2", "phoenix", "heartbeat"))


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


def test_the_limit_counts_joined_topics() -> None:
    machine = make_machine(max_topics=1)
    first = join(machine)
    too_many = reply("2", "2", "room:2", "error", {"reason": "too many channels joined"})
    assert machine.receive(message("2", "2", "room:2", "phx_join")) == (too_many,)
    machine.stopped(first)
    join(machine, "room:2", "3")


def test_the_end_of_the_connection_ends_all_joins_once() -> None:
    machine = make_machine()
    first, second = join(machine), join(machine, "room:2", "2")
    machine.stopped(first)
    assert machine.close(Left()) == (CallEnd(second, Left()),)
    assert machine.close(Left()) == ()


def test_a_join_whose_hook_returns_after_the_end_of_the_connection_ends_at_once() -> None:
    machine = make_machine()
    (call,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(call, CallJoin)
    assert machine.close(Left()) == ()
    assert machine.joined(call.join, {}) == (CallEnd(call.join, Left()),)
    assert machine.joins == {}


def test_a_join_that_is_refused_after_the_end_of_the_connection_is_not_answered() -> None:
    machine = make_machine()
    (call,) = machine.receive(message("1", "1", "room:1", "phx_join"))
    assert isinstance(call, CallJoin)
    machine.close(Left())
    assert machine.refused(call.join) == ()
