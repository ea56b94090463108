"""Brokers for tests of histories: one that injects gaps, and one as slow as a remote server."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar
from weakref import WeakSet

import trio

from trioglock import BrokerUnavailable
from trioglock.frames import Data
from trioglock.pubsub import Broker, BrokerSession, Gap, MemoryBroker, Message
from trioglock.pubsub.broker import Deliver
from trioglock.pubsub.history import FindRetention, MemoryHistory, MessageHistory, MissedMessages
from trioglock.pubsub.message import INCOMING
from trioglock.pubsub.patterns import ChannelFilter


class GapBroker(MemoryBroker):
    """Delivers the gaps that a test wants."""

    deliver: Deliver

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        self.deliver = deliver
        async with super().open(name, deliver, find_retention) as session:
            yield session


class SlowBroker(Broker):
    """Needs time to deliver messages and to read its history, and can lose its connection."""

    def __init__(self) -> None:
        self.log = MemoryHistory()
        self.delivery_seconds = 0.0
        self.seconds_before_reading = 0.0
        self.seconds_after_reading = 0.0
        self.is_unavailable = False
        self.session: SlowSession

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        assert find_retention is not None
        self.session = SlowSession(self, deliver, find_retention)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.session.run)
            yield self.session
            nursery.cancel_scope.cancel()


class SlowHistory(MessageHistory):
    """Takes time before and after reading the log of the broker."""

    def __init__(self, broker: SlowBroker) -> None:
        self._broker = broker
        self.advance(broker.log.last)

    async def after(self, message_id: str, channels: ChannelFilter, count: int) -> MissedMessages:
        broker = self._broker
        await trio.sleep(broker.seconds_before_reading)
        if broker.is_unavailable:
            raise BrokerUnavailable("on purpose")
        missed = await broker.log.after(message_id, channels, count)
        await trio.sleep(broker.seconds_after_reading)
        return missed

    async def latest(self, channels: ChannelFilter, count: int) -> list[Message]:
        await trio.sleep(self._broker.seconds_before_reading)
        latest = await self._broker.log.latest(channels, count)
        await trio.sleep(self._broker.seconds_after_reading)
        return latest


class SlowSession(BrokerSession):
    """Delivers messages in order, with a delay."""

    def __init__(self, broker: SlowBroker, deliver: Deliver, find_retention: FindRetention) -> None:
        self.topic_history: MessageHistory = SlowHistory(broker)
        self.find_retention: FindRetention = find_retention
        self._broker = broker
        self._deliver = deliver
        self._queue: deque[tuple[float, Message]] = deque()
        self._changed = trio.Event()

    async def publish(self, channel: str, data: Data) -> None:
        await trio.lowlevel.checkpoint()
        retention = self.find_retention(channel)
        log = self._broker.log
        message = Message(channel, data) if retention is None else log.add(channel, data, retention)
        self._queue.append((trio.current_time() + self._broker.delivery_seconds, message))
        self._changed.set()

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            while self._queue:
                await trio.sleep_until(self._queue[0][0])
                if self._queue:  # the connection may have been lost
                    self._receive(self._queue.popleft()[1])

    def _receive(self, message: Message) -> None:
        if message.id is not None:
            self.topic_history.advance(message.id)
        self._deliver(message)

    async def reconnect(self) -> None:
        """Lose the messages under way, and deliver those that the log contains."""
        self._queue.clear()
        log = self._broker.log
        missed = await log.after(self.topic_history.last, ChannelFilter("*"), 10_000)
        self._deliver(Gap(1.0, self.topic_history.last, INCOMING if missed.complete else None))
        for message in missed.messages:
            self._receive(message)

    def lose(self) -> None:
        """Lose the messages under way for good."""
        self._queue.clear()
        self.topic_history.advance(self._broker.log.last)
        self._deliver(Gap(1.0, self.topic_history.last))


class CountedText(str):
    """A text whose copies in memory can be counted."""

    living: ClassVar[WeakSet[CountedText]] = WeakSet()

    def __new__(cls, text: str) -> CountedText:
        counted = super().__new__(cls, text)
        cls.living.add(counted)
        return counted

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class CopyingHistory(SlowHistory):
    """Returns a copy of each message, as a remote server does."""

    async def after(self, message_id: str, channels: ChannelFilter, count: int) -> MissedMessages:
        missed = await super().after(message_id, channels, count)
        return replace(missed, messages=tuple(map(self._copy, missed.messages)))

    def _copy(self, message: Message) -> Message:
        assert isinstance(message.data, str)
        return replace(message, data=CountedText(message.data))


class CopyingBroker(SlowBroker):
    """Its history returns copies."""

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        async with super().open(name, deliver, find_retention) as session:
            session.topic_history = CopyingHistory(self)
            yield session
