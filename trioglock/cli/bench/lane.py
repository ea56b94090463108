"""The lane: one connection, on which each echo is answered by the next message."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from ..._redact import printable, shorten
from ...connection import Connection
from ...disconnect import Disconnect
from ...frames import Data
from ...hooks import ConnectionInfo, Reply, Socket
from .meter import Meter

__all__ = ["Lane"]


class Sent(NamedTuple):
    """A message on its way, and when it left, in nanoseconds of ``time.perf_counter_ns``."""

    message: Data
    at: int


class Lane(Socket[None]):
    """The hooks of one connection.

    Args:
        meter: told every echo.
        next_message: the next one to send; None if there is no more.
    """

    def __init__(self, meter: Meter, next_message: Callable[[], Data | None]) -> None:
        self.done: trio.Event = trio.Event()
        """Nothing is on its way any more, and nothing more will be sent."""
        self._meter = meter
        self._next = next_message
        self._waiting: deque[Sent] = deque()
        self._starting = True
        self._handle: Connection[Any] | None = None

    def init_stream(self, info: ConnectionInfo) -> None:
        """Keep the connection, to drop it when it fails."""
        self._handle = info.connection

    async def start(self, conn: Connection[None], in_flight: int) -> None:
        """Send the first messages; the hooks do the rest."""
        for _ in range(in_flight):
            if self.done.is_set():
                return
            message = self._next()
            if message is None:
                break
            while not self._put(conn, message):
                await conn.flush()
        self._starting = False
        self._check_done()

    def _put(self, conn: Connection[None], message: Data) -> bool:
        """Queue a message and note it in the same step: echoes come in the order of the queue."""
        try:
            conn.send_frame_nowait(message)
        except trio.WouldBlock:
            return False
        self._note(message, time.perf_counter_ns())
        return True

    def _note(self, message: Data, now: int) -> None:
        self._waiting.append(Sent(message, now))
        if self._meter.running:
            self._meter.sent += 1

    def handle_receive(self, frame: Data, state: None) -> tuple[Reply | None, None]:
        """An echo, it is to be hoped; the next message."""
        now = time.perf_counter_ns()
        waiting = self._waiting
        if not waiting or frame != waiting[0].message:
            self._complain(frame)
            return None, state
        sent = waiting.popleft()
        if self._meter.running:
            self._meter.latencies.add(now - sent.at)
        message = None if self.done.is_set() else self._next()
        if message is None:
            self._check_done()
            return None, state
        self._note(message, now)
        return Reply(message), state

    def _check_done(self) -> None:
        if not self._waiting and not self._starting:
            self.done.set()

    def _complain(self, frame: Data) -> None:
        if self._waiting:
            told = f"sent {shorten(self._waiting[0].message)}, got {shorten(frame)}"
        else:
            told = f"got {shorten(frame)} without having sent anything"
        self.fail("not an echo", told)

    def check_silence(self, seconds: float) -> None:
        """Fail if the oldest message has been on its way for longer than that."""
        late = time.perf_counter_ns() - seconds * 1e9
        if self._waiting and self._waiting[0].at < late:
            self.fail("no echo in time", f"nothing came back within {seconds:g} seconds")

    def fail(self, what: str, detail: str) -> None:
        """Note why this connection is over, once, and drop it."""
        if self.done.is_set():
            return
        self._meter.blame(what, detail)
        self._waiting.clear()
        self.done.set()
        if self._handle is not None:
            self._handle.abort()

    def terminate(self, reason: Disconnect, state: None) -> None:
        """The connection has ended; too early, unless all is done."""
        self._handle = None
        self.fail("ended early", printable(str(reason)))
