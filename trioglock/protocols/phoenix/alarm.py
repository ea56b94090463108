"""The alarm: one task that lets the state machine tick when its next deadline comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import trio

from .effects import Effect
from .machine import Machine

__all__ = ["Alarm", "Request"]

Request: TypeAlias = Callable[[], Iterable[Effect]]
"""Asks something of the machine."""

CROWDED = 0.01


class Alarm:
    """Wakes for the earliest deadline.

    Most deadlines are cancelled before they come, and those that are set later come later: so the
    task is hardly ever told anything, and a push costs no timer of its own.

    Args:
        machine: has the deadlines.
        cast: carries a request out soon; False if that will never be.
    """

    def __init__(self, machine: Machine, cast: Callable[[Request], bool]) -> None:
        self._machine = machine
        self._cast = cast
        self._scope = trio.CancelScope(deadline=math.inf)

    def set(self) -> None:
        """The machine may have an earlier deadline than before."""
        due = self._machine.next_deadline
        if due < self._scope.deadline:
            self._scope.deadline = due

    async def run(self) -> None:
        """Tick until nothing can be carried out any more."""
        while True:
            with trio.CancelScope(deadline=self._machine.next_deadline) as self._scope:
                await trio.sleep_forever()
            ticked = trio.Event()
            try:
                if not self._cast(partial(self._tick, ticked)):
                    return
            except trio.WouldBlock:
                await trio.sleep(CROWDED)  # thousands of casts are before us
            else:
                await ticked.wait()

    def _tick(self, ticked: trio.Event) -> list[Effect]:
        ticked.set()
        return self._machine.tick(trio.current_time())
