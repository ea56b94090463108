"""The frames to one client, with a bounded queue for those that cannot be sent yet."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import Any

import trio

from ..connection import Connection
from ..connection.send_queue import SendQueue
from ..connection.writer import Writer
from ..errors import ConnectionClosed
from ..frames import Close, Data, PreparedMessage

__all__ = ["HUB_CLOSED", "TRY_AGAIN_LATER", "OutgoingFrames", "close_connection"]

_logger = logging.getLogger("trioglock.channels")

TRY_AGAIN_LATER = 1013
"""Registered with IANA for RFC 6455, section 7.4.2."""

HUB_CLOSED = Close(1001, "the hub has closed")


class OutgoingFrames:
    """Sends frames to one client in order, without waiting.

    A frame is passed to the connection directly. If the connection cannot accept it, it waits in a
    queue, which a task empties. If the queue is full, the connection is closed with 1013.

    Args:
        connection: the connection.
        max_queue: maximum number of frames in the queue.
        max_bytes: total size of these frames in bytes at which the queue also counts as full.
    """

    __slots__ = (
        "_connection",
        "_emptied",
        "_max_bytes",
        "_max_queue",
        "_page_lock",
        "_queue",
        "_size",
        "needs_turn",
        "replied",
        "send_queue",
        "writer",
    )

    def __init__(self, connection: Connection[Any, Any], max_queue: int, max_bytes: int) -> None:
        self.writer: Writer = connection._writer  # noqa: SLF001 - part of the same package
        """The writer of the connection."""
        self.send_queue: SendQueue = connection._send_queue  # noqa: SLF001
        """The queue of the writer."""
        self.replied: bool = False
        """Set by :meth:`reply`."""
        self.needs_turn: bool = False
        """Whether the next message from the client should wait, for space or for other tasks."""
        self._connection = connection
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._queue: deque[Data | PreparedMessage] | None = None
        self._size = 0
        self._emptied: trio.lowlevel.ParkingLot | None = None
        self._page_lock: trio.Lock | None = None

    @property
    def page_lock(self) -> trio.Lock:
        """Held by the replay that has read a page; the client's other replays read later."""
        if self._page_lock is None:
            self._page_lock = trio.Lock()
        return self._page_lock

    @property
    def waiting(self) -> bool:
        """Whether frames wait in the queue."""
        return self._queue is not None

    @property
    def has_space(self) -> bool:
        """Whether a frame can be sent without a queue, or the connection is closing."""
        writer = self.writer
        return self._queue is None and (writer.has_space or writer.closed)

    def reply(self, frame: Data) -> None:
        """Send a frame in reply to the client; a full queue stops reading from the client."""
        self.replied = True
        if self._queue is not None:
            self.needs_turn = True
            self._append(frame)
        elif not self.send_queue.closed:
            self.writer.put(frame)

    def send(self, frame: Data | PreparedMessage) -> None:
        """Send a frame that is not a reply to the client."""
        if self._queue is None:
            if self.writer.has_space:
                self.writer.put(frame)
                return
            if self.writer.closed:
                return
        self.send_later(frame)

    def send_later(self, frame: Data | PreparedMessage) -> None:
        """Add a frame to the queue, or close the connection if the queue is full."""
        if self.writer.closed:
            return
        queue = self._queue
        if queue is not None and (len(queue) >= self._max_queue or self._size >= self._max_bytes):
            _logger.warning(
                "%s is too slow and is closed: %d messages are waiting",
                self._connection.name,
                len(queue),
            )
            queue.clear()
            close_connection(self._connection, Close(TRY_AGAIN_LATER, "too slow"))
            return
        self._append(frame)

    async def send_in_turn(self, frame: Data) -> None:
        """Send a frame, and wait until the connection can accept it.

        Raises:
            ConnectionClosed: the connection is closing or closed.
        """
        await trio.lowlevel.checkpoint()
        await self._wait_queue()
        if self.writer.has_space:
            self.writer.put(frame)
        else:
            await self._connection.send_frame(frame)

    async def wait_space(self) -> None:
        """Wait until a frame can be sent without a queue, or the connection is closing."""
        while not self.has_space:
            if self._queue is None:
                await self.writer.wait_space()
            await self._wait_queue()

    async def _wait_queue(self) -> None:
        while self._queue is not None:
            self._emptied = self._emptied or trio.lowlevel.ParkingLot()
            await self._emptied.park()

    def _append(self, frame: Data | PreparedMessage) -> None:
        if self._queue is None:
            try:
                self._connection.start_soon(self._send_queue)
            except ConnectionClosed:
                return
            self._queue, self._size = deque(), 0
        self._queue.append(frame)
        self._size += _size_of(frame)

    async def _send_queue(self) -> None:
        try:
            while self._queue:
                frame = self._queue.popleft()
                self._size -= _size_of(frame)
                await self._connection.send_frame(frame)
        except ConnectionClosed:
            pass
        finally:
            self._queue = None
            if self._emptied is not None:
                self._emptied.unpark_all()


def _size_of(frame: Data | PreparedMessage) -> int:
    return frame.size if isinstance(frame, PreparedMessage) else len(frame)


def close_connection(connection: Connection[Any, Any], frame: Close) -> None:
    """Close a connection from any task, without waiting and without sending its queued data."""
    connection.discard_unsent()
    with suppress(ConnectionClosed):
        try:
            connection.send_frame_nowait(frame)
        except trio.WouldBlock:  # a large frame is being written
            connection.start_soon(connection.aclose, frame.code, frame.reason)
