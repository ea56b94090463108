"""A channel goes from phase to phase as the table says, and each row of it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trioglock.protocols.phoenix import Machine, Message
from trioglock.protocols.phoenix.membership import TRANSITIONS, Phase

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
    def phase(self) -> Phase:
        return self.machine.phase(self.channel) or Phase.ENDED

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
        self.machine.received(Message(ref, ref, "room:1", event, payload), self.now)

    def bring_to(self, phase: Phase) -> Driven:
        """The shortest way to a phase, by a first join."""
        steps: dict[Phase, tuple[Callable[[Driven], None], ...]] = {
            Phase.WAITING: (),
            Phase.ASKING: (Driven.connect,),
            Phase.JOINING: (Driven.give_payload,),
            Phase.JOINED: (lambda driven: driven.answer("ok"),),
            Phase.PAUSED: (lambda driven: driven.hear("phx_error"),),
        }
        for reached, todo in steps.items():
            for step in todo:
                step(self)
            assert self.phase is reached
            if reached is phase:
                return self
        raise AssertionError(phase)

    def bring_back_to(self, phase: Phase) -> Driven:
        """The same by joining again, where a last_error is not the end."""
        self.bring_to(Phase.PAUSED).wait()
        if phase is Phase.JOINING:
            self.give_payload()
        assert self.phase is phase
        return self


Script = Callable[[], Driven]


def first(phase: Phase, step: Callable[[Driven], None]) -> Script:
    def run() -> Driven:
        driven = Driven().bring_to(phase)
        step(driven)
        return driven

    return run


def again(phase: Phase, step: Callable[[Driven], None]) -> Script:
    def run() -> Driven:
        driven = Driven().bring_back_to(phase)
        step(driven)
        return driven

    return run


def refuse(driven: Driven) -> None:
    driven.answer("error")


def crash(driven: Driven) -> None:
    driven.hear("phx_error")


SCRIPTS: dict[tuple[Phase, Phase], list[Script]] = {
    (Phase.WAITING, Phase.ASKING): [first(Phase.WAITING, Driven.connect)],
    (Phase.WAITING, Phase.ENDED): [
        first(Phase.WAITING, Driven.leave),
        first(Phase.WAITING, Driven.wait),
    ],
    (Phase.ASKING, Phase.JOINING): [first(Phase.ASKING, Driven.give_payload)],
    (Phase.ASKING, Phase.WAITING): [first(Phase.ASKING, Driven.lose)],
    (Phase.ASKING, Phase.PAUSED): [again(Phase.ASKING, Driven.wait)],
    (Phase.ASKING, Phase.ENDED): [
        first(Phase.ASKING, Driven.leave),
        first(Phase.ASKING, Driven.wait),
        first(Phase.ASKING, Driven.fail),
    ],
    (Phase.JOINING, Phase.JOINED): [first(Phase.JOINING, lambda driven: driven.answer("ok"))],
    (Phase.JOINING, Phase.WAITING): [first(Phase.JOINING, Driven.lose)],
    (Phase.JOINING, Phase.PAUSED): [
        again(Phase.JOINING, refuse),
        again(Phase.JOINING, crash),
        again(Phase.JOINING, Driven.wait),
    ],
    (Phase.JOINING, Phase.ENDED): [
        first(Phase.JOINING, Driven.leave),
        first(Phase.JOINING, refuse),
        first(Phase.JOINING, crash),
        first(Phase.JOINING, Driven.wait),
    ],
    (Phase.JOINED, Phase.WAITING): [first(Phase.JOINED, Driven.lose)],
    (Phase.JOINED, Phase.PAUSED): [first(Phase.JOINED, crash)],
    (Phase.JOINED, Phase.ENDED): [
        first(Phase.JOINED, Driven.leave),
        first(Phase.JOINED, lambda driven: driven.hear("phx_close")),
    ],
    (Phase.PAUSED, Phase.ASKING): [first(Phase.PAUSED, Driven.wait)],
    (Phase.PAUSED, Phase.WAITING): [first(Phase.PAUSED, Driven.lose)],
    (Phase.PAUSED, Phase.ENDED): [first(Phase.PAUSED, Driven.leave)],
}


def test_every_row_is_tried() -> None:
    """The table has the rows that are driven below, and every phase."""
    rows = {(before, after) for before, following in TRANSITIONS.items() for after in following}
    assert rows == SCRIPTS.keys()
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize(
    ("after", "script"),
    [
        pytest.param(after, script, id=f"{before.value}-{after.value}-{number}")
        for (before, after), scripts in SCRIPTS.items()
        for number, script in enumerate(scripts)
    ],
)
def test_every_row_happens(after: Phase, script: Script) -> None:
    """What the row names leads to where it says."""
    assert script().phase is after
