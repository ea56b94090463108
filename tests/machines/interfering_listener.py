"""A listener that acts on the connection whose events it receives."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from tests.machines.record import Record, frame_of, label_of
from trioglock import Close, Connection, ConnectionClosed, Status, UsageError
from trioglock.telemetry import Event

__all__ = ["InterferingListener"]

MAX_ACTIONS = 20
"""Maximum number of actions, because sending a frame for each sent frame would not end."""


class InterferingListener:
    """Performs an action for each event, once there is a connection.

    Args:
        record: the record of the run.
        action: the action.
    """

    def __init__(self, record: Record, action: str) -> None:
        self.conn: Connection[Any] | None = None
        self._record = record
        self._action = action
        self._remaining = MAX_ACTIONS

    def receive(self, _: Event) -> None:
        """Perform the action."""
        if self.conn is None or not self._remaining:
            return
        self._remaining -= 1
        with suppress(ConnectionClosed, trio.WouldBlock, UsageError):
            self._act(self.conn)

    def _act(self, conn: Connection[Any]) -> None:
        record = self._record
        match self._action:
            case "abort":
                record.may_lose = True
                if conn.status is not Status.CLOSED:
                    record.stopped = "abort()"
                conn.abort()
            case "close":
                conn.send_frame_nowait(Close(4005))
            case "receive":
                record.received.append(label_of(conn.receive_nowait()))
            case "frame" | "immediate":
                offer = record.offer(1)
                offer.queued = False
                try:
                    frame = frame_of(offer.labels[0], 3)
                    conn.send_frame_nowait(frame, immediate=self._action == "immediate")
                    offer.queued = True
                finally:
                    offer.ended = record.tick()
