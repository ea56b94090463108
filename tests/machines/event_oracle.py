"""Checks of the telemetry events of a run: their order, and their agreement with the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tests.machines.links import BEAT, BEAT_ANSWER
from tests.machines.record import label_of
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
    StallDetected,
    Terminated,
)

if TYPE_CHECKING:
    from tests.machines.machine import Machine

__all__ = ["check_events"]


def check_events(machine: Machine) -> Iterable[str]:
    """Find all problems."""
    events = machine.record.events
    if not machine.setup.listened:
        return
    if len({event.connection for event in events}) != 1:
        yield "the events do not belong to exactly one connection"
    yield from EventOrder().check(events)
    yield from _frames(machine, events)
    yield from _failures(machine, events)
    ends = machine.record.ends
    if ends and ends != [event.reason for event in events if isinstance(event, Terminated)]:
        yield f"terminate received {ends}, the listener {events[-1]}"
    if machine.conn is not None:
        dropped = sum(isinstance(event, MessageDropped) for event in events)
        if dropped != machine.conn.statistics().dropped:
            yield f"{dropped} events of drops, but {machine.conn.statistics()}"


class EventOrder:
    """Checks the order of the events."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._state = "idle"
        self._attempts = 0
        self._upgrades = 0
        self._waiting: Counter[str] = Counter()
        self._closes: Counter[str] = Counter()
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ConnectStarted: self._connect_started,
            ConnectAttemptFailed: self._connect_failed,
            Connected: self._connected,
            FrameSent: self._frame_sent,
            FrameReceived: lambda _: self._must_be("open"),
            HeartbeatMissed: lambda _: self._must_be("open"),
            StallDetected: lambda _: self._must_be("open"),
            CloseStarted: self._close_started,
            BackpressureStarted: self._backpressure_started,
            BackpressureEnded: self._backpressure_ended,
            LinkClosed: self._link_closed,
            ReconnectScheduled: self._reconnect_scheduled,
            Terminated: self._terminated,
        }

    def check(self, events: list[Event]) -> list[str]:
        """Find all events that are out of order."""
        for event in events:
            at = len(self._problems)
            if self._state == "ended":
                self._problems.append("an event after the last one")
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
            self._problems[at:] = [f"{problem}: {event}" for problem in self._problems[at:]]
        if self._state != "ended":
            self._problems.append(f"the last event leaves the connection {self._state}")
        return self._problems

    def _must_be(self, *states: str) -> None:
        if self._state not in states:
            self._problems.append(f"while it is {self._state}")

    def _must_equal(self, seen: int, expected: int) -> None:
        if seen != expected:
            self._problems.append(f"{seen} is not {expected}")

    def _connect_started(self, event: ConnectStarted) -> None:
        self._must_be("idle")
        self._state = "connecting"
        self._attempts += 1
        self._must_equal(event.attempt, self._attempts)

    def _connect_failed(self, event: ConnectAttemptFailed) -> None:
        self._must_be("connecting")
        self._state = "idle"
        self._must_equal(event.attempt, self._attempts)

    def _connected(self, event: Connected) -> None:
        self._must_be("connecting")
        self._state = "open"
        self._closes.clear()
        self._upgrades += 1
        self._must_equal(event.attempt, self._attempts)
        self._must_equal(event.upgrade, self._upgrades)

    def _frame_sent(self, event: FrameSent) -> None:
        self._must_be("open")
        if isinstance(event.frame, Close) and not self._closes:
            self._problems.append("no close has started")

    def _close_started(self, event: CloseStarted) -> None:
        self._closes[event.side] += 1
        # reconnect() closes a link, and then the connection may close.
        if self._closes["remote"] > 1 or self._closes["local"] > 2:
            self._problems.append("closed again")

    def _backpressure_started(self, event: BackpressureStarted) -> None:
        self._waiting[event.waiting] += 1

    def _backpressure_ended(self, event: BackpressureEnded) -> None:
        self._waiting[event.waiting] -= 1
        if self._waiting[event.waiting] < 0:
            self._problems.append("without a start")

    def _link_closed(self, event: LinkClosed) -> None:
        self._must_be("open")
        self._state = "idle"
        if self._waiting["reader"]:
            self._problems.append("the reader is still waiting")

    def _reconnect_scheduled(self, event: ReconnectScheduled) -> None:
        self._must_be("idle")
        self._must_equal(event.attempt, self._attempts + 1)

    def _terminated(self, event: Terminated) -> None:
        # A cancelled attempt neither fails nor succeeds.
        self._must_be("idle", "connecting")
        self._state = "ended"
        if any(self._waiting.values()):
            self._problems.append(f"waits have not ended: {dict(self._waiting)}")


def _frames(machine: Machine, events: list[Event]) -> Iterable[str]:
    """Compare the frames of the events with those of the links."""
    sent = [event.frame for event in events if isinstance(event, FrameSent)]
    read = [event.frame for event in events if isinstance(event, FrameReceived)]
    links = machine.transport.links
    written = [label for link in links for label in (*link.written, *link.in_doubt)]
    seen = [label_of(frame) for frame in sent if isinstance(frame, str | bytes)]
    if Counter(label for label in seen if label != BEAT) != Counter(written):
        yield f"written were {written}, the events have {seen}"
    if sum(isinstance(frame, Close) for frame in sent) != sum(link.closes for link in links):
        yield "the Close frames of the events differ from those sent"
    labels = [label_of(frame) for frame in read if isinstance(frame, str | bytes)]
    if [label for label in labels if label != BEAT_ANSWER] != machine.record.read:
        yield f"read were {machine.record.read}, the events have {labels}"


def _failures(machine: Machine, events: list[Event]) -> Iterable[str]:
    """Each exception of a hook or background task has one event."""
    seen = Counter(id(event.error) for event in events if isinstance(event, HookFailed))
    for error in machine.record.raised:
        if seen[id(error)] != 1:
            yield f"{error!r} was raised, and emitted {seen[id(error)]} times"
    if any(count > 1 for count in seen.values()):
        yield f"a failure has two events: {[e for e in events if isinstance(e, HookFailed)]}"
