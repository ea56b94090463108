"""Fan-outs: the same messages for many connections, in one write per connection.

A write costs several times as much as everything else that a fan-out does for a connection. So
messages are queued immediately, in order with everything else that the connection sends, but
written at the end of the scheduler's turn: all messages of one chunk from a broker, or of several
calls in a row, leave together. Nothing waits for a timer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn

import trio

from ..frames import PreparedMessage
from .send_queue import SendQueue

__all__ = ["Fanout"]

_logger = logging.getLogger("trioglock")

TURN_SECONDS = 0.005
"""How long writing may keep other tasks from running."""

WRITES_PER_CHECK = 64
"""Number of connections between two looks at the clock."""


class Fanout:
    """Queues messages for many connections, and writes them at the end of the turn.

    There is one for each ``trio.run``, see :meth:`current`. Its methods do not raise: a connection
    never affects the others.
    """

    __slots__ = ("_corked", "_started", "_work")

    def __init__(self) -> None:
        self._corked: list[SendQueue] = []
        self._work = trio.lowlevel.ParkingLot()
        self._started = False

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

    def send(self, queue: SendQueue, message: PreparedMessage) -> bool:
        """Queue a message for one connection.

        Returns:
            False if its send queue is full or closed.
        """
        if queue.idle:
            queue.cork()
            self._corked.append(queue)
            if len(self._corked) == 1:
                self._wake()
        return queue.put_prepared(message) or self._make_space(queue, message)

    def broadcast(self, queues: Iterable[SendQueue], message: PreparedMessage) -> int:
        """Queue a message for many connections; return the number of those that took it."""
        send = self.send
        return sum([send(queue, message) for queue in queues])

    def _make_space(self, queue: SendQueue, message: PreparedMessage) -> bool:
        # A queue that is full only because of this turn is not slow.
        if queue.closed or not queue.corked:
            return False
        self._uncork(queue)
        return not queue.full and self.send(queue, message)

    def _wake(self) -> None:
        if self._started:
            self._work.unpark()
        else:
            self._started = True
            trio.lowlevel.spawn_system_task(self._run)

    async def _run(self) -> NoReturn:
        while True:
            await self._write_corked()
            if self._corked:
                await trio.lowlevel.checkpoint()
            else:
                await self._work.park()

    async def _write_corked(self) -> None:
        # The list is replaced: a listener of events may start another fan-out.
        queues, self._corked = iter(self._corked), []
        began = time.perf_counter()
        while some := list(islice(queues, WRITES_PER_CHECK)):
            for queue in some:
                self._uncork(queue)
            if time.perf_counter() - began > TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                began = time.perf_counter()

    @staticmethod
    def _uncork(queue: SendQueue) -> None:
        try:
            queue.uncork()
        except Exception:
            _logger.exception("a message of a fan-out cannot be written")


_current: trio.lowlevel.RunVar[Any] = trio.lowlevel.RunVar("trioglock.connection.fanout")
