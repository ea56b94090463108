"""Receiving messages with PSUBSCRIBE."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import trio

from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerUnavailable
from ..broker import Deliver
from ..history import MissedMessages, PageSize, Position, parse_id
from ..message import EVERYONE, INCOMING, Event, Gap, Message
from ..patterns import ChannelFilter
from .address import RedisAddress
from .connection import (
    ReconnectingConnection,
    RedisConnection,
    RedisDisconnected,
    RedisTimings,
)
from .discovery import Discovery
from .history import RedisHistory, decode_data
from .scripts import HubKeys

__all__ = ["PubSubReceiver"]

T = TypeVar("T")

_logger = logging.getLogger("trioglock.pubsub")

EVERYTHING = ChannelFilter("*")

_with_id = re.compile(rb"([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,20}-[0-9]{1,20}) ").match

TURN_SECONDS = 0.01
"""Seconds for which a burst of messages may keep other tasks from running. Then clients receive the
messages so far."""


class PubSubReceiver(ReconnectingConnection):
    """Receives messages on its own connection, with their ids if there is a history.

    After an interruption it delivers what the history contains, and a gap where messages may be
    missing.

    Args:
        address: the address of the server, or what finds it.
        timings: the timing arguments of the broker.
        keys: the channels of the hub.
        history: the history of the hub, if it has one.
        deliver: called with each message and gap.
    """

    purpose = "subscribing"

    def __init__(
        self,
        address: RedisAddress | Discovery,
        timings: RedisTimings,
        keys: HubKeys,
        history: RedisHistory | None,
        deliver: Deliver,
    ) -> None:
        super().__init__(address, timings, None if history is None else keys.ids)
        self.subscribed: trio.Event = trio.Event()
        """Set after the first successful subscription."""
        self._keys = keys
        self._history = history
        self._deliver = deliver
        self._plain_prefix = keys.plain_prefix.encode()
        self._prefix = keys.prefix.encode()
        self._last_alive = 0.0
        self._skip_until: Position | None = None  # already read from the history
        self._born = b""  # the id with which the history began
        self._has_plain = False  # messages have arrived that the history should contain

    async def use(self, connection: RedisConnection) -> NoReturn:
        with PeerTimeout(self.timings.health_timeout) as deadline:
            early = await self._subscribe(connection)
        if deadline.expired:
            raise RedisDisconnected("Redis did not confirm the subscription")
        if self._history is not None:
            last, born = await self._ask(self._history.read_ids())
            self._born = born.encode()
            if not self.subscribed.is_set():
                self._history.advance(last)
        if self.subscribed.is_set():
            await self._catch_up()
        self.mark_up()
        self.subscribed.set()
        self._last_alive = trio.current_time()
        await self._deliver_all(self._parse(early))
        while True:
            await self._deliver_all(self._parse(await self._receive(connection)))

    async def _subscribe(self, connection: RedisConnection) -> list[Any]:
        """Subscribe, and return the messages that have arrived in the meantime."""
        plain, with_ids = (connection.pack("PSUBSCRIBE", one) for one in self._keys.patterns)
        await connection.write(plain + with_ids)
        confirmed, early = 0, list[Any]()
        while confirmed < 2:
            for reply in await connection.receive():
                if isinstance(reply, list) and reply[0] == b"pmessage":
                    early.append(reply)
                    continue
                if confirmed == 0 or self._history is not None:
                    connection.check_reply(reply)
                confirmed += 1  # without a history, the second one may be refused
        return early

    async def _catch_up(self) -> None:
        """Deliver the messages missed during an interruption, and a gap if some are lost."""
        seconds = trio.current_time() - self._last_alive
        history = self._history
        if history is None:
            await self._deliver_all([Gap(seconds)])
            return
        # Messages of channels without a history may always be missing.
        gaps = [Gap(seconds, history.last, None if self._has_plain else INCOMING)]
        missed = MissedMessages((), complete=True, last=history.last, more=True)
        page = PageSize()
        while missed.more:
            missed = await self._ask(
                history.after(missed.last, EVERYTHING, page.count, waits_for_partner=False)
            )
            if missed.incomplete and EVERYONE not in missed.incomplete:
                gaps += [Gap(seconds, missed.start, channel) for channel in missed.incomplete]
            elif not missed.complete:
                gaps = [Gap(seconds, missed.start)]
            page.adapt(missed.messages)
            await self._deliver_all(self._advancing(history, [*gaps, *missed.messages]))
            history.advance(missed.last)
            gaps = []
        self._skip_until = parse_id(missed.last)

    def _advancing(self, history: RedisHistory, events: Iterable[Event]) -> Iterator[Event]:
        """Advance with each message: the connection may be dropped before the last one."""
        for event in events:
            if event.id is not None:
                history.advance(event.id)
            yield event

    async def _ask(self, request: Awaitable[T]) -> T:
        try:
            return await request
        except BrokerUnavailable as error:
            raise RedisDisconnected("the history could not be read") from error

    async def _receive(self, connection: RedisConnection) -> Iterable[Any]:
        """Wait for replies, at most until a silent server is considered lost."""
        with trio.move_on_after(self.timings.health_interval):
            return await connection.receive()
        with PeerTimeout(self.timings.health_timeout):
            await connection.write(connection.pack("PING"))
            return await connection.receive()
        raise RedisDisconnected(f"Redis was silent for {seconds_text(self.timings.health_timeout)}")

    def _parse(self, replies: Iterable[Any]) -> Iterable[Event]:
        for reply in replies:
            # ["pmessage", pattern, channel, payload]; other replies answer PSUBSCRIBE and PING.
            if not isinstance(reply, list) or len(reply) != 4:
                continue
            channel, payload = reply[2], reply[3]
            if channel.startswith(self._prefix):
                name = channel[len(self._prefix) :].decode(errors="replace")
                message = self._parse_with_id(name, payload)
                if message is not None:
                    yield message
            elif channel.startswith(self._plain_prefix):
                name = channel[len(self._plain_prefix) :].decode(errors="replace")
                self._check_plain(name)
                yield Message(name, decode_data(payload))

    def _parse_with_id(self, channel: str, payload: bytes) -> Message | None:
        """The message from a publisher with a history; None if it has been delivered already."""
        match = _with_id(payload)
        if match is None:
            return None  # not published by this package
        message_id, born, data = match[1].decode(), match[2], payload[match.end() :]
        if self._history is None:
            return Message(channel, decode_data(data))
        if born != self._born:
            raise RedisDisconnected("the history began again, possibly on another server")
        if self._skip_until is not None:
            if parse_id(message_id) <= self._skip_until:
                return None
            self._skip_until = None
        self._history.advance(message_id)
        return Message(channel, decode_data(data), message_id)

    def _check_plain(self, channel: str) -> None:
        history = self._history
        if history is None or self._has_plain:
            return
        if history.find_retention(channel) is not None:
            self._has_plain = True
            _logger.warning(
                "a message on %r has no id and is not in the history: "
                "its publisher needs history=... too",
                channel,
            )

    async def _deliver_all(self, events: Iterable[Event]) -> None:
        self._last_alive = trio.current_time()
        started = time.perf_counter()
        for event in events:
            self._deliver(event)
            if time.perf_counter() - started > TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                started = time.perf_counter()
