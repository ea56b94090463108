"""A channel goes from phase to phase as the table says, and each row of it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trioglock.protocols.phoenix import Machine, PhoenixMessage
from trioglock.protocols.phoenix.state import TRANSITIONS, ChannelPhase

TIMEOUT = 10.0
"""Seconds for a join."""


class Driven:
    """A machine with one channel, and the clock and the server of it."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.now = 0.0
        self.attempt = 0
        self.channel, _ = self.machine.join("room:1", TIMEOUT, TIMEOUT)

    @property
    def phase(self) -> ChannelPhase:
        return self.machine.phase(self.channel) or ChannelPhase.ENDED

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
        """Until the next deadline: of the join, or of the pause."""
        self.now = self.machine.next_deadline
        self.machine.tick(self.now)

    def answer(self, status: str) -> None:
        self.hear("phx_reply", {"status": status, "response": {}})

    def hear(self, event: str, payload: Any = None) -> None:
        ref = self.machine.join_ref(self.channel)
        self.machine.received(PhoenixMessage(ref, ref, "room:1", event, payload), self.now)

    def bring_to(self, phase: ChannelPhase) -> Driven:
        """The shortest way to a phase, by a first join."""
        steps: dict[ChannelPhase, tuple[Callable[[Driven], None], ...]] = {
            ChannelPhase.WAITING: (),
            ChannelPhase.ASKING: (Driven.connect,),
            ChannelPhase.JOINING: (Driven.give_payload,),
            ChannelPhase.JOINED: (lambda driven: driven.answer("ok"),),
            ChannelPhase.PAUSED: (lambda driven: driven.hear("phx_error"),),
        }
        for reached, todo in steps.items():
            for step in todo:
                step(self)
            assert self.phase is reached
            if reached is phase:
                return self
        raise AssertionError(phase)

    def bring_back_to(self, phase: ChannelPhase) -> Driven:
        """The same by joining again, where a last_error is not the end."""
        self.bring_to(ChannelPhase.PAUSED).wait()
        if phase is ChannelPhase.JOINING:
            self.give_payload()
        assert self.phase is phase
        return self


Script = Callable[[], Driven]


def first(phase: ChannelPhase, step: Callable[[Driven], None]) -> Script:
    def run() -> Driven:
        driven = Driven().bring_to(phase)
        step(driven)
        return driven

    return run


def again(phase: ChannelPhase, step: Callable[[Driven], None]) -> Script:
    def run() -> Driven:
        driven = Driven().bring_back_to(phase)
        step(driven)
        return driven

    return run


def refuse(driven: Driven) -> None:
    driven.answer("error")


def crash(driven: Driven) -> None:
    driven.hear("phx_error")


SCRIPTS: dict[tuple[ChannelPhase, ChannelPhase], list[Script]] = {
    (ChannelPhase.WAITING, ChannelPhase.ASKING): [first(ChannelPhase.WAITING, Driven.connect)],
    (ChannelPhase.WAITING, ChannelPhase.ENDED): [
        first(ChannelPhase.WAITING, Driven.leave),
        first(ChannelPhase.WAITING, Driven.wait),
    ],
    (ChannelPhase.ASKING, ChannelPhase.JOINING): [first(ChannelPhase.ASKING, Driven.give_payload)],
    (ChannelPhase.ASKING, ChannelPhase.WAITING): [first(ChannelPhase.ASKING, Driven.lose)],
    (ChannelPhase.ASKING, ChannelPhase.PAUSED): [again(ChannelPhase.ASKING, Driven.wait)],
    (ChannelPhase.ASKING, ChannelPhase.ENDED): [
        first(ChannelPhase.ASKING, Driven.leave),
        first(ChannelPhase.ASKING, Driven.wait),
        first(ChannelPhase.ASKING, Driven.fail),
    ],
    (ChannelPhase.JOINING, ChannelPhase.JOINED): [first(ChannelPhase.JOINING, lambda driven: driven.answer("ok"))],
    (ChannelPhase.JOINING, ChannelPhase.WAITING): [first(ChannelPhase.JOINING, Driven.lose)],
    (ChannelPhase.JOINING, ChannelPhase.PAUSED): [
        again(ChannelPhase.JOINING, refuse),
        again(ChannelPhase.JOINING, crash),
        again(ChannelPhase.JOINING, Driven.wait),
    ],
    (ChannelPhase.JOINING, ChannelPhase.ENDED): [
        first(ChannelPhase.JOINING, Driven.leave),
        first(ChannelPhase.JOINING, refuse),
        first(ChannelPhase.JOINING, crash),
        first(ChannelPhase.JOINING, Driven.wait),
    ],
    (ChannelPhase.JOINED, ChannelPhase.WAITING): [first(ChannelPhase.JOINED, Driven.lose)],
    (ChannelPhase.JOINED, ChannelPhase.PAUSED): [first(ChannelPhase.JOINED, crash)],
    (ChannelPhase.JOINED, ChannelPhase.ENDED): [
        first(ChannelPhase.JOINED, Driven.leave),
        first(ChannelPhase.JOINED, lambda driven: driven.hear("phx_close")),
    ],
    (ChannelPhase.PAUSED, ChannelPhase.ASKING): [first(ChannelPhase.PAUSED, Driven.wait)],
    (ChannelPhase.PAUSED, ChannelPhase.WAITING): [first(ChannelPhase.PAUSED, Driven.lose)],
    (ChannelPhase.PAUSED, ChannelPhase.ENDED): [first(ChannelPhase.PAUSED, Driven.leave)],
}


def test_every_row_is_tried() -> None:
    """The table has the rows that are driven below, and every phase."""
    rows = {(before, after) for before, following in TRANSITIONS.items() for after in following}
    assert rows == SCRIPTS.keys()
    assert set(TRANSITIONS) == set(ChannelPhase)


@pytest.mark.parametrize(
    ("after", "script"),
    [
        pytest.param(after, script, id=f"{before.value}-{after.value}-{number}")
        for (before, after), scripts in SCRIPTS.items()
        for number, script in enumerate(scripts)
    ],
)
def test_every_row_happens(after: ChannelPhase, script: Script) -> None:
    """What the row names leads to where it says."""
    assert script().phase is after
