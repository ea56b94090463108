"""A listener that is not content with listening: it acts on the connection that it hears of."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from tests.machines.notebook import Notebook, frame_of, label_of
from trioglock import Close, Connection, ConnectionClosed, Status, UsageError
from trioglock.telemetry import Event

__all__ = ["Meddler"]

PATIENCE = 20
"""How often it acts: to send a frame for each that is sent would never come to an end."""


class Meddler:
    """Does a thing each time that it is told an event, as soon as there is a connection.

    Args:
        notes: of what it does.
        word: what it does.
    """

    def __init__(self, notes: Notebook, word: str) -> None:
        self.conn: Connection[Any] | None = None
        self._notes = notes
        self._word = word
        self._left = PATIENCE

    def hear(self, _: Event) -> None:
        """Do it."""
        if self.conn is None or not self._left:
            return
        self._left -= 1
        with suppress(ConnectionClosed, trio.WouldBlock, UsageError):
            self._meddle(self.conn)

    def _meddle(self, conn: Connection[Any]) -> None:
        notes = self._notes
        match self._word:
            case "abort":
                notes.lost_track = True
                if conn.status is not Status.CLOSED:
                    notes.stopped = "abort()"
                conn.abort()
            case "close":
                conn.send_frame_nowait(Close(4005))
            case "receive":
                notes.taken.append(label_of(conn.receive_nowait()))
            case "frame" | "at once":
                offer = notes.offer(1)
                offer.taken = False
                try:
                    frame = frame_of(offer.labels[0], 3)
                    conn.send_frame_nowait(frame, immediate=self._word == "at once")
                    offer.taken = True
                finally:
                    offer.ended = notes.tick()
