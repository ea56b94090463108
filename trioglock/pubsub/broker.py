"""Brokers, which carry messages between hubs with the same name: interface and memory broker."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio

from ..connection.fanout import Fanout
from ..frames import Data
from .history import History, MemoryHistory, check_history
from .message import INCOMING, Event, Message

__all__ = ["HISTORY_SECONDS", "Broker", "BrokerSession", "Deliver", "MemoryBroker"]

HISTORY_SECONDS = 86_400.0
"""By default, a message is kept for a day."""

Deliver: TypeAlias = Callable[[Event], bool | None]
"""Receives each published message and each gap; neither blocks nor raises.

It returns True if a subscription that reads more slowly than messages are published needs a turn.
"""

PUBLISHES_PER_TURN = 64
SECONDS_PER_TURN = 0.01
"""A task that only publishes lets other tasks run after this many messages or seconds. Clients
receive the messages of one turn in one write."""


class BrokerSession(ABC):
    """The session of one open hub with a broker."""

    history: History | None = None
    """The latest messages, if the broker keeps a history."""

    @abstractmethod
    async def publish(self, channel: str, data: Data) -> None:
        """Publish a message to every hub with the same name, including this one.

        Args:
            channel: name of the channel; ``""`` for a broadcast.
            data: text or binary.

        Raises:
            BrokerUnavailable: the broker did not accept the message in time.
            BrokerError: the broker returned an error.
        """

    def publish_nowait(self, channel: str, data: Data) -> bool:  # noqa: ARG002 - the default
        """Publish a message without waiting, if the broker delivers messages immediately.

        Args:
            channel: as for :meth:`publish`.
            data: as for :meth:`publish`.

        Returns:
            Whether it was published. The default does nothing and returns False.
        """
        return False


class Broker(ABC):
    """The configuration of a broker. It runs no tasks; its sessions do."""

    @abstractmethod
    def open(self, name: str, deliver: Deliver) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect a hub for the duration of an ``async with`` block.

        Args:
            name: name of the hub. Only messages published under this name are delivered.
            deliver: called with every message and every gap, in the trio thread.

        Raises:
            BrokerUnavailable: on entry: the broker could not be reached in time.
            BrokerError: on entry: the broker returned an error, for example because of a wrong
                password.
        """


class MemoryBroker(Broker):
    """A broker within one process. It delivers every message immediately.

    Publishing to it is not always a checkpoint: other tasks run before the queue of a subscription
    is full, and at least after every 64 messages or 10 milliseconds.

    Hubs that share a MemoryBroker and a name receive each other's messages.

    Args:
        history: number of messages to keep for each channel, for subscribers that resume; None
            keeps none. The channel ``incoming`` has no history.
        history_seconds: how long they are kept; None for no limit.

    Raises:
        InvalidOption: an argument has the wrong type or value.
    """

    def __init__(
        self, *, history: int | None = None, history_seconds: float | None = HISTORY_SECONDS
    ) -> None:
        check_history(history, history_seconds)
        self._limit = history
        self._seconds = history_seconds
        self._sessions: dict[str, MemorySession] = {}

    @asynccontextmanager
    async def open(self, name: str, deliver: Deliver) -> AsyncIterator[BrokerSession]:
        await trio.lowlevel.checkpoint()
        session = self._sessions.get(name)
        if session is None:
            history = None if self._limit is None else MemoryHistory(self._limit, self._seconds)
            session = self._sessions[name] = MemorySession(history)
        session.members[deliver] = None
        try:
            yield session
        finally:
            del session.members[deliver]


class MemorySession(BrokerSession):
    """One session for all hubs with the same name."""

    def __init__(self, history: MemoryHistory | None) -> None:
        self.history: History | None = history
        self.members: dict[Deliver, None] = {}
        self._log = history
        # These describe the current turn of the scheduler.
        self._turn = -1
        self._publishes = 0
        self._turn_began = 0.0

    async def publish(self, channel: str, data: Data) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        crowded = self._deliver(channel, data)
        if self._turn_is_over() or crowded:
            self._turn = -1
            await trio.lowlevel.cancel_shielded_checkpoint()

    def publish_nowait(self, channel: str, data: Data) -> bool:
        self._deliver(channel, data)
        return True

    def _deliver(self, channel: str, data: Data) -> bool:
        """Deliver a message; return whether a subscription needs a turn."""
        if self._log is None or channel == INCOMING:
            message = Message(channel, data)
        else:
            message = self._log.add(channel, data)
        crowded = [deliver(message) for deliver in list(self.members)]
        return any(crowded)

    def _turn_is_over(self) -> bool:
        turn, now = Fanout.current().turns, time.perf_counter()
        if turn != self._turn:
            self._turn, self._publishes, self._turn_began = turn, 0, now
        self._publishes += 1
        return self._publishes >= PUBLISHES_PER_TURN or now - self._turn_began > SECONDS_PER_TURN
