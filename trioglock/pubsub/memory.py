"""``MemoryBroker``: hubs meet within one process, with nothing else to install."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ..frames import Data
from ..options import check_whole
from .broker import Broker, Deliver, Line
from .history import History
from .message import Message

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """Hands every message on at once. Hubs that are to meet share one MemoryBroker.

    Args:
        history: how many messages are kept for those who come back, of each hub's name; None
            keeps none.

    Raises:
        InvalidOption: ``history`` is not a whole number from 1 on.
    """

    def __init__(self, *, history: int | None = None) -> None:
        check_whole("history", history, least=1)
        self._limit = history
        self._rooms: dict[str, _Room] = {}

    def open(self, name: str, deliver: Deliver) -> AbstractAsyncContextManager[Line]:
        """See :meth:`Broker.open`."""
        return self._join(self._rooms.setdefault(name, _Room(self._limit)), deliver)

    @asynccontextmanager
    async def _join(self, room: _Room, deliver: Deliver) -> AsyncIterator[Line]:
        await trio.lowlevel.checkpoint()
        room.members[deliver] = None
        try:
            yield room
        finally:
            del room.members[deliver]


class _Room(Line):
    """The hubs of one name."""

    def __init__(self, limit: int | None) -> None:
        self.history: History | None = None if limit is None else History(limit)
        self.members: dict[Deliver, None] = {}
        # Ids of one process never meet those of an earlier one.
        self._began = time.time_ns() // 1_000_000
        self._count = 0

    async def publish(self, channel: str, data: Data) -> None:
        """See :meth:`Line.publish`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.history is None:
            message = Message(channel, data)
        else:
            self._count += 1
            message = Message(channel, data, f"{self._began}-{self._count}")
            self.history.add(message)
        for deliver in list(self.members):
            deliver(message)
        await trio.lowlevel.cancel_shielded_checkpoint()
