"""Receiving messages with SUBSCRIBE and PSUBSCRIBE."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

import trio

from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerError, BrokerUnavailable
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
from .interest import MAX_BATCHES, Interest
from .scripts import HubKeys

__all__ = ["PubSubReceiver", "deliver_all"]

T = TypeVar("T")

_logger = logging.getLogger("trioglock.pubsub")

BEGAN_AGAIN = "the history began again, possibly on another server"

BROADCASTS = ChannelFilter(EVERYONE)

Payload: TypeAlias = tuple[bytes, bytes]
"""The Redis channel of a message, and its payload."""

_with_id = re.compile(rb"([0-9]{1,20}-[0-9]{1,20}) ([0-9]{1,20}-[0-9]{1,20}) ").match

TURN_SECONDS = 0.01
"""Seconds for which a burst of messages may prevent other tasks from running. After that, clients
receive the messages delivered so far."""


class PubSubReceiver(ReconnectingConnection):
    """Receives messages on its own connection, with their ids if there is a history.

    After an interruption, it delivers the missed messages that the history contains, and a gap
    where messages may be missing.

    Args:
        address: the address of the server, or the discovery that finds it.
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
        self._asked_at = 0.0  # when the current batch was sent
        self._complete_at = 0.0  # all messages published before this time have arrived
        self._skip_until: Position | None = None  # the end of the messages read from the history
        self._born = b""  # the id with which the history began
        self._has_plain = False  # messages have arrived that the history should contain
        self._interest = Interest(keys, has_history=history is not None)
        self._work = trio.lowlevel.ParkingLot()  # of the task that subscribes
        self._confirmed = trio.lowlevel.ParkingLot()
        self._is_closed = False
        self._is_subscribing = False  # whether a batch has been sent on the current connection
        self._ids: list[bytes | None] | None = None  # the newest id, and the first of the history
        self._error: Any = None  # the first error among the replies to the current batch

    # Subscriptions.

    def subscribe(self, channels: ChannelFilter) -> None:
        self._interest.add(channels)
        if not self._interest.waits:
            self._work.unpark()

    def unsubscribe(self, channels: ChannelFilter) -> None:
        # The command is sent with the next subscription, after the next message, or after some
        # time. This must not wake a task, because garbage collection may call it.
        self._interest.remove(channels)

    def is_subscribed(self, channels: ChannelFilter) -> bool:
        # The first batch on the next connection contains every subscription. After this batch,
        # there is a gap, or the missed messages are read from the history.
        return not self._is_subscribing or self._interest.is_confirmed(channels)

    async def wait_subscribed(self, channels: ChannelFilter) -> None:
        """Wait until a subscription is confirmed.

        Raises:
            BrokerUnavailable: Redis did not confirm the subscription within ``publish_timeout``
                seconds.
            BrokerError: Redis refused the subscription.
        """
        with PeerTimeout(self.timings.publish_timeout):
            while not (self._is_up and self._interest.is_confirmed(channels)):
                error = self._interest.error_of(channels)
                if error is not None:
                    raise BrokerError(f"Redis returned an error: {error}")
                if self._is_closed:
                    raise BrokerUnavailable("the hub is closed")
                await self._confirmed.park()
            return
        raise BrokerUnavailable(
            f"Redis at {self.address} did not confirm the subscription within "
            f"{seconds_text(self.timings.publish_timeout)}"
        ) from self.failure

    def is_pending(self, channel: str) -> bool:
        """Whether subscribers in this process would miss a message published now."""
        return self._is_subscribing and self._interest.is_pending(channel)

    async def wait_pending(self, channel: str) -> None:
        """Wait until no subscription to a channel is pending, or the connection is lost."""
        while self.is_pending(channel):
            await self._confirmed.park()

    def close(self) -> None:
        """Make all calls to :meth:`wait_subscribed` fail."""
        self._is_closed = True
        self._confirmed.unpark_all()

    def mark_up(self) -> None:
        super().mark_up()
        self._confirmed.unpark_all()

    def mark_down(self) -> None:
        super().mark_down()
        self._is_subscribing = False
        self._confirmed.unpark_all()

    # The connection.

    async def use(self, connection: RedisConnection) -> NoReturn:
        self._interest.reset()
        self._ids = None
        if self._history is not None:
            # Version 3 of the protocol allows other commands on a connection with subscriptions.
            await connection.request("HELLO", 3)
        early = await self._subscribe_all(connection)
        if self._history is not None:
            last, self._born = self._read_ids()
            if not self.subscribed.is_set():
                self._history.advance(last)
                self._skip_until = parse_id(last)
        if self.subscribed.is_set():
            await self._catch_up()
        self.mark_up()
        self.subscribed.set()
        self._last_alive = trio.current_time()
        self._complete_at = self._asked_at
        await self._deliver_all(self._parse(early))
        failure: Exception = RedisDisconnected("the connection to Redis broke")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_batches, connection, nursery.cancel_scope)
            try:
                while True:
                    replies = await self._receive(connection)
                    await self._deliver_all(self._parse(self._take_all(connection, replies)))
                    if self._interest.has_changes and not self._interest.waits:
                        self._work.unpark()
            except (RedisDisconnected, BrokerError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        raise failure

    async def _subscribe_all(self, connection: RedisConnection) -> list[Payload]:
        """Subscribe, and return the messages that have arrived in the meantime.

        Later changes are left to :meth:`_write_batches`, because they may never end.
        """
        early = list[Payload]()
        self._is_subscribing = True
        for _ in range(MAX_BATCHES):
            if not self._interest.has_changes:
                break
            await connection.write(self._pack_batch(connection))
            while self._interest.waits:
                with PeerTimeout(self.timings.health_timeout) as deadline:
                    early += self._take_all(connection, await connection.receive())
                if deadline.expired:
                    raise RedisDisconnected("Redis did not confirm the subscriptions")
        return early

    async def _write_batches(self, connection: RedisConnection, scope: trio.CancelScope) -> None:
        """Send each change of the subscriptions; regularly check the server, and read the ids."""
        interest = self._interest
        try:
            while True:
                with trio.move_on_after(self.timings.health_interval):
                    while interest.waits or not interest.has_changes:
                        await self._work.park()
                if not interest.waits:
                    await connection.write(self._pack_batch(connection))
        except RedisDisconnected:
            scope.cancel()

    def _pack_batch(self, connection: RedisConnection) -> bytes:
        self._asked_at = trio.current_time()
        commands: list[Sequence[str]] = [*self._interest.next_batch()]
        if self._history is not None:
            # ROLE, because the ids on a replica are those of another server.
            commands += [("HMGET", self._keys.ids, "last", "born"), ("ROLE",)]
        return b"".join([connection.pack(*command) for command in (*commands, ("PING",))])

    def _take_all(self, connection: RedisConnection, replies: Iterable[Any]) -> Iterator[Payload]:
        """Process replies, and yield the channels and payloads of messages."""
        interest = self._interest
        for reply in replies:
            match reply:
                case [b"message", channel, payload]:
                    yield channel, payload
                case [b"pmessage", pattern, channel, payload]:
                    if interest.is_first(pattern, channel):
                        yield channel, payload
                case b"PONG" | [b"pong", _]:
                    self._end_batch(connection)
                case [kind, name, int()]:
                    interest.confirm(kind, name)
                case [_, _]:
                    self._ids = reply
                case [b"slave", *_]:
                    raise RedisDisconnected(f"Redis at {self.address} is no longer a master")
                case [b"master", *_]:
                    pass
                case _:
                    try:
                        connection.check_reply(reply)
                    except BrokerError:
                        self._error = self._error or reply

    def _end_batch(self, connection: RedisConnection) -> None:
        """Handle the end of the replies to a batch."""
        error, self._error = self._error, None
        self._interest.end_batch(error)
        refused = self._interest.error_of(BROADCASTS)
        if refused is None and self._history is not None and self._ids is None:
            refused = error
        if refused is not None:
            connection.check_reply(refused)
        if self._is_up and self._history is not None:
            last, born = self._read_ids()
            if born != self._born:
                raise RedisDisconnected(BEGAN_AGAIN)
            # All messages up to this id have arrived, on all channels that are subscribed to.
            self._complete_at = self._asked_at
            if parse_id(last) > parse_id(self._history.last):
                self._history.advance(last)
        self._confirmed.unpark_all()
        self._work.unpark()

    def _read_ids(self) -> tuple[str, bytes]:
        last, born = self._ids or (None, None)
        if last is None or born is None:
            raise RedisDisconnected("the history was deleted")
        return last.decode(), born

    async def _catch_up(self) -> None:
        """Deliver the messages missed during an interruption, and a gap if any may be lost."""
        seconds = trio.current_time() - self._last_alive
        history = self._history
        if history is None:
            await self._deliver_all([Gap(seconds)])
            return
        # Messages of channels without a history may always be missing.
        gaps = [Gap(seconds, history.last, None if self._has_plain else INCOMING)]
        missed = MissedMessages((), complete=True, last=history.last, more=True)
        page, channels = PageSize(), self._interest.filter()
        while missed.more:
            missed = await self._ask(
                history.after(
                    missed.last,
                    channels,
                    page.count,
                    waits_for_partner=False,
                    complete_at=self._complete_at,
                )
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
        """Advance ``history`` with each event: the connection may be lost before the last."""
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
        """Wait for replies, until a silent server is considered lost."""
        with trio.move_on_after(self.timings.health_interval):
            return await connection.receive()
        with PeerTimeout(self.timings.health_timeout):
            return await connection.receive()
        raise RedisDisconnected(f"Redis was silent for {seconds_text(self.timings.health_timeout)}")

    def _parse(self, messages: Iterable[Payload]) -> Iterator[Event]:
        for channel, payload in messages:
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
        """Return a message with an id; None if it was already delivered."""
        match = _with_id(payload)
        if match is None:
            return None  # not published by this package
        message_id, born, data = match[1].decode(), match[2], payload[match.end() :]
        if self._history is None:
            return Message(channel, decode_data(data))
        if born != self._born:
            raise RedisDisconnected(BEGAN_AGAIN)
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
                "its publisher must also pass history=...",
                channel,
            )

    async def _deliver_all(self, events: Iterable[Event]) -> None:
        self._last_alive = trio.current_time()
        await deliver_all(self._deliver, events)


async def deliver_all(deliver: Deliver, events: Iterable[Event]) -> None:
    """Deliver events, and regularly let other tasks run."""
    started = time.perf_counter()
    for event in events:
        deliver(event)
        if time.perf_counter() - started > TURN_SECONDS:
            await trio.lowlevel.checkpoint()
            started = time.perf_counter()
