"""``MemoryBroker``: connects the hubs of one process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..frames import Data
from ..options import check_whole
from .broker import Broker, BrokerSession, Deliver
from .history import History
from .message import Message

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """A broker within one process. It delivers every message immediately.

    Hubs that share a MemoryBroker and a name receive each other's messages.

    Args:
        history: number of messages to keep for each hub name, for subscribers that resume; None
            keeps none.

    Raises:
        InvalidOption: ``history`` is not a positive integer or None.
    """

    def __init__(self, *, history: int | None = None) -> None:
        check_whole("history", history, least=1)
        self._limit = history
        self._sessions: dict[str, MemorySession] = {}

    @asynccontextmanager
    async def open(self, name: str, deliver: Deliver) -> AsyncIterator[BrokerSession]:
        session = self._sessions.setdefault(name, MemorySession(self._limit))
        await trio.lowlevel.checkpoint()
        session.members[deliver] = None
        try:
            yield session
        finally:
            del session.members[deliver]


class MemorySession(BrokerSession):
    """One session for all hubs of a name."""

    def __init__(self, limit: int | None) -> None:
        self.history: History | None = None if limit is None else History(limit)
        self.members: dict[Deliver, None] = {}
        # The ids of one process never overlap with those of an earlier one.
        self._started = time.time_ns() // 1_000_000
        self._count = 0

    async def publish(self, channel: str, data: Data) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.history is None:
            message = Message(channel, data)
        else:
            self._count += 1
            message = Message(channel, data, f"{self._started}-{self._count}")
            self.history.add(message)
        for deliver in list(self.members):
            deliver(message)
        await trio.lowlevel.cancel_shielded_checkpoint()
