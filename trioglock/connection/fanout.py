"""Writes at the end of the scheduler's turn: fan-outs, and other frames not written immediately.

A write costs several times as much as all other work of a fan-out for a connection. Messages are
therefore queued immediately, in order with other messages of the connection, but written at the end
of the scheduler's turn: all messages in one chunk from a broker, or from several calls in a row,
are written together. No message waits for a timer.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from ..frames import PreparedMessage

if TYPE_CHECKING:
    from .writer import Writer

__all__ = ["Fanout"]

_logger = logging.getLogger("trioglock")

TURN_SECONDS = 0.005
"""Maximum time for which writing may prevent other tasks from running."""

WRITES_PER_CHECK = 64
"""Number of connections between two checks of the time."""


class Fanout:
    """Writes the messages of fan-outs at the end of the turn; one for each ``trio.run``.

    The caller queues them with ``Writer.put_prepared(message, fanout.corked)``, which does not
    raise: a connection never affects the others. Afterwards it calls :meth:`schedule`.
    """

    __slots__ = ("_is_scheduled", "_links", "_work", "corked", "turns")

    def __init__(self) -> None:
        self.corked: list[Writer] = []
        """The writers to uncork; always the same list."""
        self.turns: int = 0
        """The number of turns of the scheduler at whose end messages were written."""
        self._is_scheduled = False
        self._links = 0
        self._work: trio.lowlevel.ParkingLot | None = None

    @classmethod
    def current(cls) -> Fanout:
        """Return the object of the current ``trio.run``.

        Raises:
            RuntimeError: called outside of ``trio.run``.
        """
        fanout = _current.get(None)
        if fanout is None:
            fanout = cls()
            _current.set(fanout)
        return fanout

    def broadcast(self, writers: Iterable[Writer], message: PreparedMessage) -> int:
        """Queue a message for many connections; return the number of those that accepted it."""
        corked = self.corked
        count = sum([writer.put_prepared(message, corked) for writer in writers])
        self.schedule()
        return count

    def add(self, writer: Writer) -> None:
        """Uncork a writer at the end of this turn."""
        self.corked.append(writer)
        self.schedule()

    def schedule(self) -> None:
        """Write the queued messages at the end of this turn."""
        if self._is_scheduled or not self.corked:
            return
        self._is_scheduled = True
        if self._work is not None:
            self._work.unpark()
        else:
            self._work = trio.lowlevel.ParkingLot()
            trio.lowlevel.spawn_system_task(self._run, self._work)

    def join(self) -> None:
        """Count a writer that has a link."""
        self._links += 1

    def leave(self) -> None:
        """Stop counting a writer. The task ends with the last link."""
        self._links -= 1
        if not self._links and self._work is not None:
            self._work.unpark()

    async def _run(self, work: trio.lowlevel.ParkingLot) -> None:
        try:
            while self._links or self.corked:
                self.turns += 1
                await self._write_corked()
                if not self.corked:
                    self._is_scheduled = False
                    if self._links:
                        await work.park()
        finally:
            self._work = None

    async def _write_corked(self) -> None:
        began = time.perf_counter()
        while self.corked:
            # A telemetry listener may start another fan-out in the meantime.
            writers = self.corked[:WRITES_PER_CHECK]
            del self.corked[:WRITES_PER_CHECK]
            for writer in _write_singles(writers):
                try:
                    writer.uncork()
                except Exception:
                    _logger.exception("the messages of a fan-out cannot be written")
            if time.perf_counter() - began > TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()


def _write_singles(writers: list[Writer]) -> list[Writer]:
    """Write the frames of writers that have a single frame; return the other writers.

    The writes follow each other directly. With other work between them, the peers would go to sleep
    after each write, and the next would have to wake them.
    """
    others: list[Writer] = []
    started: list[tuple[Writer, int, bytes]] = []
    for writer in writers:
        start = writer.start_write()
        if start is None:
            others.append(writer)
        else:
            started.append((writer, *start))
    results: list[int | OSError] = []
    for _, fd, data in started:
        try:
            results.append(os.write(fd, data))
        except OSError as error:
            results.append(error)
    for (writer, _, data), result in zip(started, results, strict=True):
        writer.finish_write(data, result)
    return others


_current: trio.lowlevel.RunVar[Fanout | None] = trio.lowlevel.RunVar("trioglock.connection.fanout")
