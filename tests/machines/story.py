"""The story: what a listener was told of one connection, held against what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tests.machines.links import BEAT, BEAT_ANSWER
from tests.machines.notebook import label_of
from trioglock.frames import Close
from trioglock.telemetry import (
    BackpressureEnded,
    BackpressureStarted,
    CloseStarted,
    ConnectAttemptFailed,
    Connected,
    ConnectStarted,
    Event,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    LinkClosed,
    MessageDropped,
    ReconnectScheduled,
    Terminated,
)

if TYPE_CHECKING:
    from tests.machines.machine import Machine

__all__ = ["check_story"]


def check_story(machine: Machine) -> Iterable[str]:
    """What is wrong with it."""
    events = machine.notes.events
    if not machine.setup.heard:
        return
    if len({event.connection for event in events}) != 1:
        yield "it is the story of more than one connection, or of none"
    yield from Reading().wrong_in(events)
    yield from _frames(machine, events)
    yield from _failures(machine, events)
    ends = machine.notes.ends
    if ends and ends != [event.reason for event in events if isinstance(event, Terminated)]:
        yield f"terminate was told {ends}, the listener {events[-1]}"
    if machine.conn is not None:
        dropped = sum(isinstance(event, MessageDropped) for event in events)
        if dropped != machine.conn.statistics().dropped:
            yield f"{dropped} drops were told: {machine.conn.statistics()}"


class Reading:
    """Goes through a story, event by event: what may follow on what."""

    def __init__(self) -> None:
        self._wrong: list[str] = []
        self._place = "idle"
        self._attempts = 0
        self._upgrades = 0
        self._waiting: Counter[str] = Counter()
        self._closes: Counter[str] = Counter()
        self._react: dict[type[Event], Callable[[Any], None]] = {
            ConnectStarted: self._connect_started,
            ConnectAttemptFailed: self._connect_failed,
            Connected: self._connected,
            FrameSent: self._frame_sent,
            FrameReceived: lambda _: self._must_be("up"),
            HeartbeatMissed: lambda _: self._must_be("up"),
            CloseStarted: self._close_started,
            BackpressureStarted: self._backpressure_started,
            BackpressureEnded: self._backpressure_ended,
            LinkClosed: self._disconnected,
            ReconnectScheduled: self._reconnect_scheduled,
            Terminated: self._terminated,
        }

    def wrong_in(self, events: list[Event]) -> list[str]:
        """What is out of place in it."""
        for event in events:
            at = len(self._wrong)
            if self._place == "over":
                self._wrong.append("something after the end")
            react = self._react.get(type(event))
            if react is not None:
                react(event)
            self._wrong[at:] = [f"{wrong}: {event}" for wrong in self._wrong[at:]]
        if self._place != "over":
            self._wrong.append(f"the story ends while the connection is {self._place}")
        return self._wrong

    def _must_be(self, *places: str) -> None:
        if self._place not in places:
            self._wrong.append(f"while it is {self._place}")

    def _must_equal(self, told: int, right: int) -> None:
        if told != right:
            self._wrong.append(f"{told} is not {right}")

    def _connect_started(self, event: ConnectStarted) -> None:
        self._must_be("idle")
        self._place = "dialling"
        self._attempts += 1
        self._must_equal(event.attempt, self._attempts)

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        self._must_be("dialling")
        self._place = "idle"
        self._must_equal(event.attempt, self._attempts)

    def _connected(self, event: Connected) -> None:
        self._must_be("dialling")
        self._place = "up"
        self._closes.clear()
        self._upgrades += 1
        self._must_equal(event.attempt, self._attempts)
        self._must_equal(event.upgrade, self._upgrades)

    def _frame_sent(self, event: FrameSent) -> None:
        self._must_be("up")
        if isinstance(event.frame, Close) and not self._closes:
            self._wrong.append("nobody has begun to close")

    def _close_started(self, event: CloseStarted) -> None:
        self._closes[event.side] += 1
        # We may close a link for another one, and then the connection.
        if self._closes["remote"] > 1 or self._closes["local"] > 2:
            self._wrong.append("closed again")

    def _backpressure_started(self, event: BackpressureStarted) -> None:
        self._waiting[event.waiting] += 1

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        self._waiting[event.waiting] -= 1
        if self._waiting[event.waiting] < 0:
            self._wrong.append("it had not begun")

    def _disconnected(self, event: LinkClosed) -> None:
        self._must_be("up")
        self._place = "idle"
        if self._waiting["reader"]:
            self._wrong.append("the reader still waits")

    def _reconnect_scheduled(self, event: ReconnectScheduled) -> None:
        self._must_be("idle")
        self._must_equal(event.attempt, self._attempts + 1)

    def _terminated(self, event: Terminated) -> None:
        # An attempt that is cancelled neither fails nor comes to something.
        self._must_be("idle", "dialling")
        self._place = "over"
        if any(self._waiting.values()):
            self._wrong.append(f"somebody still waits, {dict(self._waiting)}")


def _frames(machine: Machine, events: list[Event]) -> Iterable[str]:
    """Those that the link has seen."""
    sent = [event.frame for event in events if isinstance(event, FrameSent)]
    read = [event.frame for event in events if isinstance(event, FrameReceived)]
    links = machine.net.links
    written = [label for link in links for label in (*link.written, *link.in_doubt)]
    told = [label_of(frame) for frame in sent if isinstance(frame, str | bytes)]
    if Counter(label for label in told if label != BEAT) != Counter(written):
        yield f"written were {written}, told were {told}"
    if sum(isinstance(frame, Close) for frame in sent) != sum(link.closes for link in links):
        yield "Close frames were told that were not sent, or the other way round"
    labels = [label_of(frame) for frame in read if isinstance(frame, str | bytes)]
    if [label for label in labels if label != BEAT_ANSWER] != machine.notes.read:
        yield f"read were {machine.notes.read}, told were {labels}"


def _failures(machine: Machine, events: list[Event]) -> Iterable[str]:
    """What hooks and background tasks have raised, each once."""
    told = Counter(id(event.error) for event in events if isinstance(event, HookFailed))
    for error in machine.notes.raised:
        if told[id(error)] != 1:
            yield f"{error!r} was raised, and told {told[id(error)]} times"
    if any(count > 1 for count in told.values()):
        yield f"a failure was told twice: {[e for e in events if isinstance(e, HookFailed)]}"
