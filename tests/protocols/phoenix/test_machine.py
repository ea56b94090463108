"""The state machine: every transition of the table, and heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from trioglock.protocols.phoenix import Machine, PhoenixMessage
from trioglock.protocols.phoenix.message import PhoenixHeartbeat
from trioglock.protocols.phoenix.state import TRANSITIONS, ChannelPhase

WAITING, ASKING, JOINING, JOINED, PAUSED, ENDED = ChannelPhase

TIMEOUT = 10.0
"""Seconds for a join."""


class Driven:
    """A machine with one channel, its clock and its server."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.now = 0.0
        self.attempt = 0
        self.channel, _ = self.machine.join("room:1", TIMEOUT, TIMEOUT)

    @property
    def phase(self) -> ChannelPhase:
        return self.machine.phase(self.channel) or ENDED

    def connect(self) -> None:
        self.machine.connect(self.now)

    def lose(self) -> None:
        self.machine.disconnect()

    def give_payload(self) -> None:
        self.attempt += 1
        self.machine.payload(self.channel, self.attempt, {})

    def fail(self) -> None:
        self.machine.fail(self.channel, ValueError("no payload"))

    def leave(self) -> None:
        self.machine.leave(self.channel, self.now + TIMEOUT)

    def wait(self) -> None:
        """Advance to the next deadline, of the join or of the pause."""
        self.now = self.machine.next_deadline
        self.machine.tick(self.now)

    def answer(self, status: str) -> None:
        self.receive("phx_reply", {"status": status, "response": {}})

    def receive(self, event: str, payload: Any = None) -> None:
        ref = self.machine.join_ref(self.channel)
        self.machine.received(PhoenixMessage(ref, ref, "room:1", event, payload), self.now)

    def bring_to(self, phase: ChannelPhase) -> Driven:
        """Reach a phase on the shortest path, during the first join."""
        steps: dict[ChannelPhase, tuple[Callable[[Driven], None], ...]] = {
            WAITING: (),
            ASKING: (Driven.connect,),
            JOINING: (Driven.give_payload,),
            JOINED: (lambda driven: driven.answer("ok"),),
            PAUSED: (lambda driven: driven.receive("phx_error"),),
        }
        for reached, todo in steps.items():
            for step in todo:
                step(self)
            assert self.phase is reached
            if reached is phase:
                return self
        raise AssertionError(phase)

    def bring_back_to(self, phase: ChannelPhase) -> Driven:
        """Reach a phase during a later join, where a failure does not end the channel."""
        self.bring_to(PAUSED).wait()
        if phase is JOINING:
            self.give_payload()
        assert self.phase is phase
        return self


Step = Callable[[Driven], None]

Reach = Callable[[Driven, ChannelPhase], Driven]

first, again = Driven.bring_to, Driven.bring_back_to


def refuse(driven: Driven) -> None:
    driven.answer("error")


def crash(driven: Driven) -> None:
    driven.receive("phx_error")


SCRIPTS: dict[tuple[ChannelPhase, ChannelPhase], list[tuple[Reach, Step]]] = {
    (WAITING, ASKING): [(first, Driven.connect)],
    (WAITING, ENDED): [
        (first, Driven.leave),
        (first, Driven.wait),
    ],
    (ASKING, JOINING): [(first, Driven.give_payload)],
    (ASKING, WAITING): [(first, Driven.lose)],
    (ASKING, PAUSED): [(again, Driven.wait)],
    (ASKING, ENDED): [
        (first, Driven.leave),
        (first, Driven.wait),
        (first, Driven.fail),
    ],
    (JOINING, JOINED): [(first, lambda driven: driven.answer("ok"))],
    (JOINING, WAITING): [(first, Driven.lose)],
    (JOINING, PAUSED): [
        (again, refuse),
        (again, crash),
        (again, Driven.wait),
    ],
    (JOINING, ENDED): [
        (first, Driven.leave),
        (first, refuse),
        (first, crash),
        (first, Driven.wait),
    ],
    (JOINED, WAITING): [(first, Driven.lose)],
    (JOINED, PAUSED): [(first, crash)],
    (JOINED, ENDED): [
        (first, Driven.leave),
        (first, lambda driven: driven.receive("phx_close")),
    ],
    (PAUSED, ASKING): [(first, Driven.wait)],
    (PAUSED, WAITING): [(first, Driven.lose)],
    (PAUSED, ENDED): [(first, Driven.leave)],
}


def test_every_transition_has_a_script() -> None:
    rows = {(before, after) for before, following in TRANSITIONS.items() for after in following}
    assert rows == SCRIPTS.keys()
    assert set(TRANSITIONS) == set(ChannelPhase)


@pytest.mark.parametrize(
    ("before", "after", "reach", "step"),
    [(*change, *script) for change, scripts in SCRIPTS.items() for script in scripts],
)
def test_every_transition_happens(
    before: ChannelPhase, after: ChannelPhase, reach: Reach, step: Step
) -> None:
    driven = reach(Driven(), before)
    step(driven)
    assert driven.phase is after


# Heartbeats.


def answer(ref: str | None, topic: str = "phoenix") -> PhoenixMessage:
    return PhoenixMessage(None, ref, topic, "phx_reply", {"status": "ok", "response": {}})


def test_only_the_answer_to_the_latest_heartbeat_counts() -> None:
    """Once, and not on another topic or connection."""
    refs = count(1)
    heartbeat = PhoenixHeartbeat(lambda: str(next(refs)))
    assert not heartbeat.pending
    first, second = heartbeat.next(), heartbeat.next()
    assert (first.join_ref, first.topic, first.event, first.payload) == (
        None,
        "phoenix",
        "heartbeat",
        {},
    )
    assert heartbeat.pending
    assert not heartbeat.is_answer(answer(first.ref))
    assert not heartbeat.is_answer(answer(second.ref, "room:1"))
    assert not heartbeat.is_answer(answer(None))
    assert heartbeat.is_answer(answer(second.ref))
    assert not heartbeat.is_answer(answer(second.ref))
    third = heartbeat.next()
    heartbeat.forget()
    assert not heartbeat.pending
    assert not heartbeat.is_answer(answer(third.ref))
