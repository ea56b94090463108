"""Browsers: subscribers at the other end of a connection."""

from __future__ import annotations

import logging
from typing import Any

import trio

from ..connection import Connection
from ..errors import ConnectionClosed
from .fanout import Fanout
from .message import Gap
from .queue import Backlog, Event
from .statistics import Counters
from .subscriber import Waiting

__all__ = ["Browser"]

_logger = logging.getLogger("trioglock.pubsub")

TOO_SLOW = 1013
"""Try again later; registered with IANA for RFC 6455, section 7.4.2."""


class Browser(Waiting):
    """One browser, on one channel.

    A frame goes straight to the connection. Only while that takes no more does it wait in the
    backlog, and a task that lives until the backlog is empty brings it there.

    Args:
        connection: to the browser.
        channel: which it listens to.
        backlog: for what the connection does not take at once.
        counters: of the hub.
        fanout: of the hub.
        envelopes: whether it gets messages with their ids, and gaps.
    """

    def __init__(
        self,
        connection: Connection[Any],
        channel: str,
        backlog: Backlog,
        counters: Counters,
        fanout: Fanout,
        *,
        envelopes: bool,
    ) -> None:
        super().__init__(backlog, counters)
        self.channel: str = channel
        self._connection = connection
        self._send = connection.send_frame_nowait
        self._fanout = fanout
        self._frame = fanout.enveloped if envelopes else fanout.raw
        self._gaps = envelopes
        self._held = False
        self._ended = False

    def put(self, event: Event) -> None:
        """See :meth:`Subscriber.put`."""
        if event.__class__ is Gap and not self._gaps:
            return
        if self.seen is not None and not self.is_news(event):
            return
        if self._held:
            self._hold(event)
            return
        try:
            self._send(self._frame(event), immediate=self._fanout.immediate)
        except trio.WouldBlock:
            self._hold(event)
        except ConnectionClosed:
            self._ended = self._held = True

    def _hold(self, event: Event) -> None:
        """Let an event wait for the connection, or end that."""
        if self._ended:
            return
        if self.keep(event):
            self.resume()
            return
        _logger.info("%s is too slow: disconnected", self._connection.name)
        self.counters.disconnected += 1
        self._close(TOO_SLOW, "too slow")

    def resume(self) -> None:
        """Bring what waits to the connection as fast as that takes it."""
        if not self._held and len(self):
            self._held = True
            self._start(self._pump)

    async def _pump(self) -> None:
        try:
            while len(self):
                await self._connection.send_frame(self._frame(self.take()))
        except ConnectionClosed:
            return
        self._held = self._ended

    def end(self) -> None:
        """See :meth:`Subscriber.end`: the browser is told that we go away."""
        self._close(1001, "the hub has closed")

    def _close(self, code: int, reason: str) -> None:
        if not self._ended:
            self._ended = self._held = True
            self.forget()
            self._connection.discard_unsent()
            self._start(self._connection.aclose, code, reason)

    def _start(self, *call: Any) -> None:
        try:
            self._connection.start_soon(*call)
        except ConnectionClosed:
            self._ended = True
