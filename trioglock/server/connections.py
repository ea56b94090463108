"""The roster: the connections of a server that are open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio

from ..connection import Connection, Session
from ..connection.outgoing import checked_frame
from ..errors import ConnectionClosed, InvalidFrame
from ..frames import Close, Frame, PreparedMessage

__all__ = ["ConnectionRegistry"]

COALESCE = 0.001
"""Seconds. A broadcast that comes sooner after the one before is written together with what else
is queued by then; one that stands alone is written on the spot, which takes half the time."""


class ConnectionRegistry:
    """Who is connected. To be had for others than :class:`Server`, such as an ASGI application."""

    def __init__(self) -> None:
        self._members: dict[Connection[Any], Session[Any]] = {}
        self._closing: Close | None = None
        self._deadline = math.inf
        self._bounded: set[trio.CancelScope] = set()
        self._latest = -math.inf  # broadcast

    @property
    def connections(self) -> frozenset[Connection[Any]]:
        """Those that are open now: ``handle_connect`` has returned, the handler has not."""
        return frozenset(self._members)

    @contextmanager
    def listed(self, session: Session[Any], connection: Connection[Any]) -> Iterator[None]:
        """List a connection for the time of the block."""
        self._members[connection] = session
        if self._closing is not None:
            session.close(self._closing)
        try:
            yield
        finally:
            del self._members[connection]

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """The block is cancelled at the deadline of :meth:`close`, also in a shielded scope."""
        with trio.CancelScope(deadline=self._deadline) as scope:
            self._bounded.add(scope)
            try:
                yield
            finally:
                self._bounded.remove(scope)

    def broadcast(self, frame: Frame) -> int:
        """Queue a frame, as it is, for everyone; see :meth:`Server.broadcast`.

        Raises:
            InvalidFrame: it is neither text, nor bytes-like, nor a ping or pong.
        """
        checked = checked_frame(frame)
        if isinstance(checked, Close):
            raise InvalidFrame("a Close frame is not broadcast: use close()")
        # Encoded once for all.
        message = PreparedMessage(checked) if isinstance(checked, str | bytes) else checked
        if isinstance(message, PreparedMessage):
            now = trio.current_time()
            immediate, self._latest = now - self._latest > COALESCE, now
            outboxes = [session.send_queue for session in self._members.values()]
            return sum(
                [send_queue.put_prepared(message, immediate=immediate) for send_queue in outboxes]
            )
        queued = 0
        for connection in self._members:
            with suppress(trio.WouldBlock, ConnectionClosed):
                connection.send_frame_nowait(message)
                queued += 1
        return queued

    def close(self, frame: Close, deadline: float) -> None:
        """Begin to close all, also those who come from now on.

        Args:
            frame: tells them why.
            deadline: of what is :meth:`bounded`, on trio's clock.
        """
        self._closing = frame
        self._deadline = deadline
        for scope in self._bounded:
            scope.deadline = deadline
        for session in tuple(self._members.values()):
            session.close(frame)
