"""Brokers transfer messages between hubs with the same name: interface and memory broker."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import trio

from ..connection.fanout import Fanout
from ..frames import Data
from ..options import check_whole
from .history import (
    HISTORY_BYTES,
    FindRetention,
    MemoryHistory,
    MessageHistory,
    Retention,
    check_history,
    join_retentions,
)
from .message import INCOMING, TOPIC_PREFIX, Event, Message
from .patterns import ChannelFilter

__all__ = ["HISTORY_SECONDS", "Broker", "BrokerSession", "Deliver", "MemoryBroker"]

HISTORY_SECONDS = 86_400.0
"""By default, a message is kept for a day."""

Deliver: TypeAlias = Callable[[Event], bool | None]
"""Receives each published message and each gap. It must neither block nor raise.

Returns True if other tasks must run because the queue of a subscription is filling up.
"""

PUBLISHES_PER_TURN = 64
SECONDS_PER_TURN = 0.01
"""A task that only publishes lets other tasks run after this many messages or seconds. Clients
receive the messages of one turn in one write."""


class BrokerSession(ABC):
    """The session of one open hub with a broker."""

    history: MessageHistory | None = None
    """The latest messages, if the broker keeps a history."""

    topic_history: MessageHistory | None = None
    """The latest messages of topics: see :meth:`Broker.open`."""

    find_retention: FindRetention | None = None
    """Returns the retention of any channel. If it is None and there is a :attr:`history`, all
    channels except topics and ``incoming`` have a history."""

    @property
    def is_up(self) -> bool:
        """Whether the broker can currently be reached. The default is True."""
        return True

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
            channel: as in :meth:`publish`.
            data: as in :meth:`publish`.

        Returns:
            Whether the message was published. The default does nothing and returns False.
        """
        return False

    def subscribe(self, channels: ChannelFilter) -> None:  # noqa: B027 - the default
        """Start delivering a channel or a pattern that now has a subscriber.

        This method must not block. The default does nothing, for a broker that delivers every
        message of the hub. Broadcasts must be delivered in any case.

        Args:
            channels: a channel, or a pattern, whose ``channel`` is None.
        """

    def unsubscribe(self, channels: ChannelFilter) -> None:  # noqa: B027 - the default
        """Stop delivering a channel or a pattern whose last subscriber has left.

        Garbage collection can call this method at any time and in any thread, so it must not use
        trio.

        Args:
            channels: as in :meth:`subscribe`.
        """

    def is_subscribed(self, channels: ChannelFilter) -> bool:  # noqa: ARG002 - the default
        """Whether each message published from now on is delivered, or a gap in its place.

        Args:
            channels: as in :meth:`subscribe`.
        """
        return True

    async def wait_subscribed(self, channels: ChannelFilter) -> None:  # noqa: ARG002 - the default
        """Wait until the broker delivers every message that is published after this method returns.

        Args:
            channels: as in :meth:`subscribe`.

        Raises:
            BrokerUnavailable: the broker did not confirm the subscription in time.
            BrokerError: the broker returned an error, for example because of missing permissions.
        """
        await trio.lowlevel.checkpoint()

    def has_history(self, channel: str) -> bool:
        """Whether the broker keeps the messages of a channel.

        Args:
            channel: as in :meth:`publish`.
        """
        if self.find_retention is not None:
            return self.find_retention(channel) is not None
        is_path = channel != INCOMING and not channel.startswith(TOPIC_PREFIX)
        return is_path and self.history is not None


class Broker(ABC):
    """The configuration of a broker. Only its sessions run tasks."""

    sharded: bool = False
    """Whether the channels are independent of each other, each with its own ids.

    In this case, there are no patterns or broadcasts, and each gap applies to one channel.
    """

    @abstractmethod
    def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect a hub for the duration of an ``async with`` block.

        Args:
            name: name of the hub. Only messages published under this name are delivered.
            deliver: called with every message and every gap, in the trio thread. A gap on the
                ``incoming`` channel applies to all channels without a history.
            find_retention: returns the retention of the channel of a topic. It is passed only if a
                class of :mod:`trioglock.channels` has a history; the session must then have a
                :attr:`~BrokerSession.topic_history`.

        Raises:
            BrokerUnavailable: on entry, if the broker could not be reached in time.
            BrokerError: on entry, if the broker returned an error, for example because of a wrong
                password.
        """


class MemoryBroker(Broker):
    """A broker within one process. It delivers every message immediately.

    Publishing to it is not always a checkpoint: other tasks run before the queue of a
    subscription is full, and at least once every 64 messages or 10 milliseconds.

    Hubs that share a MemoryBroker and a name receive each other's messages.

    Args:
        history: number of messages to keep for each channel, for subscribers that resume; None
            keeps none. The ``incoming`` channel has no history, and topics of
            :mod:`trioglock.channels` have their own.
        history_seconds: how long these messages are kept; None for no limit.
        history_bytes: maximum total size in memory of these messages, and separately of the
            messages of topics. Above this size, the histories of the least recently used channels
            are discarded, so subscribers that resume receive a gap. A single channel can use half
            of this size.

    Raises:
        InvalidOption: an argument has the wrong type or value.
    """

    def __init__(
        self,
        *,
        history: int | None = None,
        history_seconds: float | None = HISTORY_SECONDS,
        history_bytes: int = HISTORY_BYTES,
    ) -> None:
        check_history(history, history_seconds)
        check_whole("history_bytes", history_bytes, least=1, none=False)
        self._history_bytes = history_bytes
        self._retention = None if history is None else Retention(history, history_seconds)
        self._exchanges: dict[str, MemoryExchange] = {}

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        await trio.lowlevel.checkpoint()
        exchange = self._exchanges.get(name)
        if exchange is None:
            exchange = self._exchanges[name] = MemoryExchange(self._history_bytes)
        session = MemorySession(exchange, join_retentions(self._retention, find_retention))
        session.history = None if self._retention is None else exchange.history
        session.topic_history = None if find_retention is None else exchange.history
        exchange.members[deliver] = None
        try:
            yield session
        finally:
            del exchange.members[deliver]


class MemoryExchange:
    """The state that all hubs with the same name share."""

    def __init__(self, history_bytes: int) -> None:
        self.history: MemoryHistory = MemoryHistory(history_bytes)
        self.members: dict[Deliver, None] = {}
        # The following describe the current turn of the scheduler.
        self._turn = -1
        self._publishes = 0
        self._turn_began = 0.0

    def deliver(self, message: Message) -> bool:
        """Deliver a message; return whether the queue of a subscription is filling up."""
        crowded = [deliver(message) for deliver in list(self.members)]
        return any(crowded)

    async def end_turn(self, *, crowded: bool) -> None:
        """Let other tasks run, if necessary."""
        if self._turn_is_over() or crowded:
            self._turn = -1
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _turn_is_over(self) -> bool:
        turn, now = Fanout.current().turns, time.perf_counter()
        if turn != self._turn:
            self._turn, self._publishes, self._turn_began = turn, 0, now
        self._publishes += 1
        return self._publishes >= PUBLISHES_PER_TURN or now - self._turn_began > SECONDS_PER_TURN


class MemorySession(BrokerSession):
    """The session of one hub."""

    def __init__(self, exchange: MemoryExchange, find_retention: FindRetention) -> None:
        self.find_retention: FindRetention = find_retention
        self._exchange = exchange

    async def publish(self, channel: str, data: Data) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        crowded = self._deliver(channel, data)
        await self._exchange.end_turn(crowded=crowded)

    def publish_nowait(self, channel: str, data: Data) -> bool:
        self._deliver(channel, data)
        return True

    def _deliver(self, channel: str, data: Data) -> bool:
        retention = self.find_retention(channel)
        if retention is None:
            return self._exchange.deliver(Message(channel, data))
        return self._exchange.deliver(self._exchange.history.add(channel, data, retention))
