"""Receiving the messages of sharded channels with SSUBSCRIBE, on a connection to each node."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import trio

from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerError, BrokerUnavailable
from ..broker import Deliver
from ..history import PageSize, Position, Retention, format_id, id_before, parse_id
from ..message import Event, Gap, Message
from ..patterns import ChannelFilter
from .address import RedisAddress, import_redis
from .connection import Argument, RedisConnection, RedisDisconnected, RedisTimings, open_connection
from .history import decode_data
from .interest import MAX_LOGGED
from .pubsub import deliver_all
from .scripts import SERVER_SCALE, ShardKeys
from .server_info import SHARD
from .shard_history import ShardHistory, parse_page, read_command, server_of, start_position
from .shards import Shards

__all__ = ["ShardReceiver"]

_logger = logging.getLogger("trioglock.pubsub")

MAX_BATCH = 500
"""Maximum number of channels in one write."""

MAX_REPLAYS = 16
"""Maximum number of channels for which one write requests missed messages: Redis disconnects a
subscriber that has too much pending data."""

_with_id = re.compile(rb"([0-9]{1,20}-[0-9]{1,20}) ").match


class ShardedChannel:
    """A channel with subscribers in this process.

    Args:
        name: the channel.
        slot: its hash slot.
        retention: its history, if it has one.
    """

    __slots__ = (
        "error",
        "has_plain",
        "is_confirmed",
        "lost_at",
        "name",
        "node",
        "position",
        "retention",
        "slot",
    )

    def __init__(self, name: str, slot: int, retention: Retention | None) -> None:
        self.name: str = name
        self.slot: int = slot
        self.retention: Retention | None = retention
        self.node: ShardNode | None = None
        """The node that has, or will have, the subscription."""
        self.is_confirmed: bool = False
        self.error: Exception | None = None
        """Why Redis refuses the subscription."""
        self.position: Position | None = None
        """With a history: all messages up to this position have been received."""
        self.lost_at: float | None = None
        """The time when the subscription was lost; messages may have been missed since then."""
        self.has_plain: bool = False
        """Whether messages without an id have arrived, although the channel has a history."""


class Subscribing:
    """One attempt to subscribe to a channel at a node.

    Args:
        channel: the channel.
    """

    __slots__ = ("channel", "is_over", "is_replaying", "page", "reports_gap")

    def __init__(self, channel: ShardedChannel) -> None:
        self.channel: ShardedChannel = channel
        self.is_over: bool = False
        """Whether the subscription has been lost, refused or ended: later replies are ignored."""
        self.is_replaying: bool = channel.position is not None
        """Whether messages with ids are ignored, because they will be read from the history."""
        self.reports_gap: bool = channel.lost_at is not None
        self.page: PageSize = PageSize()


class ShardNode:
    """The connection to one node, for the channels whose slots it serves. It does not reconnect.

    Redis sends replies and messages in order, so messages that a replay does not contain follow it.

    Args:
        server: the address of the node.
        receiver: the receiver of the hub.
    """

    def __init__(self, server: RedisAddress, receiver: ShardReceiver) -> None:
        self.server: RedisAddress = server
        self.channels: dict[ShardedChannel, Subscribing] = {}
        self.is_up: bool = False
        self.last_alive: float = 0.0
        self.clock: int = 0
        """The latest time that the node returned, in milliseconds: all messages published before it
        have arrived."""
        self._receiver = receiver
        self._keys = receiver.keys
        self._push: type = import_redis()[1].PushNotification
        self._names: dict[bytes, tuple[Subscribing, bool]] = {}
        self._added: dict[ShardedChannel, Subscribing] = {}
        self._removed: dict[str, None] = {}
        self._reads: deque[Subscribing] = deque()
        # A new connection starts with one replay at a time, because more may have caused Redis to
        # close the previous one.
        self._replays = PageSize(1)
        self._replayed: list[Message] = []  # in the current batch
        # The commands whose replies are due: the kind, the subscription if any, and the name.
        self._due: deque[tuple[str, Subscribing | None, bytes]] = deque()
        self._unsubscribing = set[bytes]()  # until Redis has confirmed it
        # When to repeat SUNSUBSCRIBE for the names that Redis has not confirmed.
        self._repeat_at: float = 0.0
        self._work = trio.lowlevel.ParkingLot()

    def add(self, channel: ShardedChannel) -> None:
        """Subscribe to a channel."""
        channel.node = self
        self.channels[channel] = self._added[channel] = Subscribing(channel)
        self._removed.pop(channel.name, None)
        self._work.unpark_all()

    def remove(self, channel: ShardedChannel) -> None:
        """Unsubscribe from a channel; garbage collection may call this method."""
        subscribing = self.channels.pop(channel, None)
        if subscribing is not None:
            subscribing.is_over = True
        self._added.pop(channel, None)
        self._removed[channel.name] = None

    async def run(self) -> None:
        """Connect, and receive messages until the connection is lost or no longer needed.

        Raises:
            RedisDisconnected: the connection is lost.
            BrokerError: the node returned an error.
        """
        timeout = self._receiver.timings.health_timeout
        async with open_connection(self.server, timeout, mode=SHARD) as connection:
            with PeerTimeout(timeout):
                # Version 3 of the protocol allows other commands after a subscription.
                await connection.request("HELLO", 3)
                self.is_up, self.last_alive = True, trio.current_time()
            if not self.is_up:
                raise RedisDisconnected("Redis did not answer")
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_all, connection, nursery.cancel_scope)
                try:
                    await self._read_all(connection)
                except (RedisDisconnected, BrokerError) as error:
                    failure = error
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure

    async def _write_all(self, connection: RedisConnection, scope: trio.CancelScope) -> None:
        """Send changes to the subscriptions, and check the node regularly."""
        try:
            while True:
                with trio.move_on_after(self._receiver.timings.health_interval):
                    while self._due or not (self._added or self._reads or self._removed):
                        await self._work.park()
                if not self._due:
                    if not self.channels:
                        self._receiver.forget(self)  # no channels may be added from now on
                        scope.cancel()
                        return
                    await connection.write(self._pack_batch(connection))
        except RedisDisconnected:
            scope.cancel()

    def _pack_batch(self, connection: RedisConnection) -> bytes:
        packed = list[bytes]()

        def ask(
            kind: str, subscribing: Subscribing | None, *command: Argument, name: bytes = b""
        ) -> None:
            packed.append(connection.pack(*command))
            self._due.append((kind, subscribing, name))

        keys, replays = self._keys, min(self._replays.count, MAX_REPLAYS)
        ended = self._take_ended()
        if ended:
            packed += [connection.pack("SUNSUBSCRIBE", text) for text in ended]
            # A confirmation looks like a report that the slot has been moved. The reply to PING
            # shows that every SUNSUBSCRIBE has been answered; errors before it are refusals.
            ask("unsubscribed", None, "PING")
        while self._reads and replays:
            ask("read", *self._read(self._reads.popleft()))
            replays -= 1
        for channel in list(self._added)[:MAX_BATCH]:
            if not replays:
                break
            subscribing = self._added.pop(channel, None)
            if subscribing is None:
                continue  # removed by garbage collection
            replays -= subscribing.is_replaying
            for kind, make_name in (("plain", keys.plain), ("stream", keys.stream)):
                text = make_name(channel.name).encode()
                ask(kind, subscribing, "SSUBSCRIBE", text, name=text)
            if channel.retention is not None:
                ask("read", *self._read(subscribing))
        ask("time", None, "TIME")
        return b"".join(packed)

    def _take_ended(self) -> set[bytes]:
        """Return the names for the next SUNSUBSCRIBE."""
        ended = set[bytes]()
        for name in list(self._removed):
            self._removed.pop(name, None)
            for text in (self._keys.plain(name).encode(), self._keys.stream(name).encode()):
                if self._names.pop(text, None) is not None:
                    ended.add(text)
        self._unsubscribing |= ended
        if (now := trio.current_time()) < self._repeat_at:
            return ended
        # Redis 8.0 refuses SUNSUBSCRIBE, but not SSUBSCRIBE, while the cluster is down.
        self._repeat_at = now + self._receiver.timings.health_interval
        return self._unsubscribing

    def _read(self, subscribing: Subscribing) -> tuple[Any, ...]:
        channel = subscribing.channel
        assert channel.retention is not None
        count = subscribing.page.count if subscribing.is_replaying else 0
        position = channel.position or (0, 0)
        return subscribing, *read_command(
            self._keys, channel.name, position, count, channel.retention
        )

    async def _read_all(self, connection: RedisConnection) -> NoReturn:
        timings = self._receiver.timings
        while True:
            replies: list[Any] | None = None
            # _write_all() sends a check after `health_interval`.
            with trio.move_on_after(timings.health_interval):
                replies = await connection.receive()
            if replies is None:
                with PeerTimeout(timings.health_timeout):
                    replies = await connection.receive()
            if replies is None:
                raise RedisDisconnected(
                    f"Redis was silent for {seconds_text(timings.health_timeout)}"
                )
            self.last_alive = trio.current_time()
            await deliver_all(self._receiver.deliver, self._take_all(connection, replies))
            if self._removed:
                self._work.unpark_all()

    def _take_all(self, connection: RedisConnection, replies: Iterable[Any]) -> Iterator[Event]:
        """Process replies, and yield the messages and gaps."""
        for reply in replies:
            if not isinstance(reply, self._push):
                yield from self._take_reply(connection, reply)
                continue
            match reply:
                case [b"smessage", bytes(name), bytes(payload)]:
                    known = self._names.get(name)
                    if known is not None and not known[0].is_over:
                        yield from self._parse(*known, payload)
                case [b"ssubscribe", name, _]:
                    kind, subscribing, expected = self._next_due()
                    if expected != name or subscribing is None:
                        raise RedisDisconnected("Redis confirmed a different subscription")
                    self._names[expected] = subscribing, kind == "stream"
                    self._unsubscribing.discard(expected)
                    if not subscribing.is_over:
                        yield from self._confirmed(kind, subscribing)
                case [b"sunsubscribe", bytes(name), _]:
                    self._unsubscribing.discard(name)
                    if (known := self._names.pop(name, None)) is not None:
                        self._moved(known[0], "its slot has been moved")

    def _next_due(self) -> tuple[str, Subscribing | None, bytes]:
        if not self._due:
            raise RedisDisconnected("Redis sent a reply without a command")
        due = self._due.popleft()
        if not self._due:
            self._work.unpark_all()
        return due

    def _confirmed(self, kind: str, subscribing: Subscribing) -> Iterator[Event]:
        channel = subscribing.channel
        if kind == "plain":
            if subscribing.reports_gap and (channel.retention is None or channel.has_plain):
                yield self._gap(subscribing, channel.position)
        elif channel.retention is None:
            self._receiver.confirm(channel)

    def _gap(self, subscribing: Subscribing, position: Position | None) -> Gap:
        """Return a gap, which is reported once for each interruption."""
        channel = subscribing.channel
        subscribing.reports_gap = False
        seconds = 0.0 if channel.lost_at is None else trio.current_time() - channel.lost_at
        return Gap(seconds, None if position is None else format_id(position), channel.name)

    def _take_reply(self, connection: RedisConnection, reply: Any) -> Iterator[Event]:
        if self._due and self._due[0][0] == "unsubscribed" and isinstance(reply, Exception):
            return
        kind, subscribing, _ = self._next_due()
        try:
            connection.check_reply(reply)
        except RedisDisconnected as error:
            if subscribing is None or connection.is_not_master(reply):
                raise
            self._moved(subscribing, str(error))
            return
        except BrokerError as error:
            if subscribing is None:
                raise
            if not subscribing.is_over:
                if subscribing.reports_gap and subscribing.channel.error is None:
                    yield self._gap(subscribing, subscribing.channel.position)
                self._receiver.refuse(subscribing.channel, error)
            return
        if kind == "unsubscribed":
            return
        if kind == "time":
            self.clock = int(reply[0]) * 1000 + int(reply[1]) // 1000
            self._replays.adapt(self._replayed)
            self._replayed.clear()
            self._receiver.wake()  # a subscription may have ended before it was confirmed
        elif kind != "read" or subscribing is None:
            raise RedisDisconnected("Redis sent an unexpected reply")
        elif not subscribing.is_over:
            yield from self._replay(subscribing, reply)

    def _replay(self, subscribing: Subscribing, reply: Any) -> Iterator[Event]:
        channel = subscribing.channel
        if not subscribing.is_replaying:
            channel.position = start_position(reply)
            self._receiver.confirm(channel)
            return
        assert channel.retention is not None
        assert channel.position is not None
        missed = parse_page(channel.name, reply, channel.position, channel.retention)
        if not missed.complete:
            yield self._gap(subscribing, parse_id(missed.start))
        subscribing.page.adapt(missed.messages)
        self._replayed += missed.messages
        for message in missed.messages:
            assert message.id is not None
            channel.position = parse_id(message.id)
            yield message
        channel.position = parse_id(missed.last)
        if missed.more:
            self._reads.append(subscribing)
            self._work.unpark_all()
        else:
            subscribing.is_replaying = False
            self._receiver.confirm(channel)

    def _parse(self, subscribing: Subscribing, has_id: bool, payload: bytes) -> Iterator[Event]:
        channel = subscribing.channel
        if not has_id:
            if channel.retention is not None and not channel.has_plain:
                channel.has_plain = True
                _logger.warning(
                    "a message on %r has no id and is not in the history: "
                    "its publisher must also pass history=...",
                    channel.name,
                )
            yield Message(channel.name, decode_data(payload))
            return
        match = _with_id(payload)
        if match is None or subscribing.is_replaying:
            return  # not published by this package, or it will be read from the history
        data = decode_data(payload[match.end() :])
        if channel.retention is None:
            yield Message(channel.name, data)
            return
        text = match[1].decode()
        position, previous = parse_id(text), channel.position
        if previous is not None and server_of(position) != server_of(previous):
            # Another server has taken over, and messages of the previous one may be missing.
            yield Gap(0.0, id_before(text), channel.name)
        channel.position = position
        yield Message(channel.name, data, text)

    def _moved(self, subscribing: Subscribing, reason: str) -> None:
        if not subscribing.is_over:
            self._receiver.lose(subscribing.channel, reason)

    def position_of(self, channel: ShardedChannel) -> Position | None:
        """A position such that all messages up to it have been received."""
        position = channel.position
        if position is None or not channel.is_confirmed:
            return position
        # The end of the millisecond before the latest TIME reply.
        latest = self.clock - 1, (server_of(position) + 1) * SERVER_SCALE - 1
        return max(position, latest)


class ShardReceiver:
    """Subscribes to each channel at the node that serves its slot.

    Args:
        shards: the nodes.
        timings: the timing arguments of the broker.
        keys: the names of the hub in Redis.
        history: the history of the hub, if it has one.
        deliver: called with each message and gap.
        nursery: runs the connections.
    """

    def __init__(
        self,
        shards: Shards,
        timings: RedisTimings,
        keys: ShardKeys,
        history: ShardHistory | None,
        deliver: Deliver,
        nursery: trio.Nursery,
    ) -> None:
        self.timings: RedisTimings = timings
        self.keys: ShardKeys = keys
        self.deliver: Deliver = deliver
        self._shards = shards
        self._history = history
        self._nursery = nursery
        self._wanted: dict[str, ShardedChannel] = {}
        self._unassigned: dict[ShardedChannel, None] = {}
        self._nodes: dict[RedisAddress, ShardNode] = {}
        self._failed: dict[RedisAddress, Exception] = {}  # since the latest lookup
        self._failure: Exception | None = None
        self._lost: dict[ShardedChannel, None] = {}
        self._refused: dict[ShardedChannel, None] = {}
        self._logged = set[RedisAddress]()  # nodes whose loss has been logged
        self._logged_refusals = set[str]()  # channels
        self._changed = trio.lowlevel.ParkingLot()
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether the nodes are known."""
        return self._shards.is_up

    def close(self) -> None:
        """Make all calls to :meth:`wait_subscribed` fail."""
        self._is_closed = True
        self.wake()

    # Subscriptions.

    def subscribe(self, channels: ChannelFilter) -> None:
        name = channels.channel
        assert name is not None, "the hub refuses patterns"
        if name not in self._wanted:
            retention = None if self._history is None else self._history.find_retention(name)
            channel = ShardedChannel(name, self.keys.slot(name), retention)
            self._wanted[name] = channel
            self._assign(channel)

    def unsubscribe(self, channels: ChannelFilter) -> None:
        channel = self._wanted.pop(channels.pattern, None)
        if channel is not None:
            for channels_of in (self._unassigned, self._lost, self._refused):
                channels_of.pop(channel, None)
            if channel.node is not None:
                channel.node.remove(channel)

    def is_subscribed(self, channels: ChannelFilter) -> bool:
        channel = self._wanted.get(channels.pattern)
        # A gap or a replay follows after a subscription was lost.
        is_lost = channel is not None and channel.lost_at is not None and channel.error is None
        return channel is None or channel.is_confirmed or is_lost

    async def wait_subscribed(self, channels: ChannelFilter) -> None:
        """Wait until a subscription is confirmed.

        Raises:
            BrokerUnavailable: Redis did not confirm the subscription within ``publish_timeout``
                seconds.
            BrokerError: Redis refused the subscription.
        """
        with PeerTimeout(self.timings.publish_timeout):
            while True:
                channel = self._wanted.get(channels.pattern)
                if channel is None or channel.is_confirmed:
                    await trio.lowlevel.checkpoint()
                    return
                if channel.error is not None:
                    raise channel.error
                if self._is_closed:
                    raise BrokerUnavailable("the hub is closed")
                await self._changed.park()
        raise BrokerUnavailable(
            f"Redis at {self._shards.address} did not confirm the subscription within "
            f"{seconds_text(self.timings.publish_timeout)}"
        ) from (self._shards.failure or self._failure)

    def is_pending(self, channel: str) -> bool:
        """Whether subscribers in this process would miss a message published now."""
        state = self._wanted.get(channel)
        if state is None or self._is_closed:
            return False
        return not state.is_confirmed and state.error is None

    async def wait_pending(self, channel: str) -> None:
        """Wait until no subscription to a channel is pending."""
        while self.is_pending(channel):
            await self._changed.park()

    def position_of(self, name: str) -> Position | None:
        """A position such that all messages of a channel up to it have been received."""
        channel = self._wanted.get(name)
        if channel is None or channel.node is None:
            return None if channel is None else channel.position
        return channel.node.position_of(channel)

    # Nodes.

    async def run(self) -> NoReturn:
        """Assign the channels to nodes until cancelled."""
        while True:
            await self._shards.wait_looked_up()
            self._failed.clear()
            for node in list(self._nodes.values()):
                if not node.is_up:  # it may not answer for a long time
                    for channel in list(node.channels):
                        if self._shards.master_of(channel.slot) != node.server:
                            self.lose(channel, "its slot has been moved")
            # The permissions may have changed.
            unassigned = [*self._unassigned, *self._refused]
            self._unassigned, self._refused = {}, {}
            for channel in unassigned:
                if self._is_wanted(channel):
                    self._assign(channel)
            self.wake()

    def wake(self) -> None:
        """Wake the tasks that wait for subscriptions, so that they check them again."""
        self._changed.unpark_all()

    def _is_wanted(self, channel: ShardedChannel) -> bool:
        return self._wanted.get(channel.name) is channel

    def _assign(self, channel: ShardedChannel) -> None:
        server = self._shards.master_of(channel.slot)
        if server is None or server in self._failed:
            channel.node = None
            self._unassigned[channel] = None
            self._shards.mark_stale()
            return
        node = self._nodes.get(server)
        if node is None:
            node = self._nodes[server] = ShardNode(server, self)
            self._nursery.start_soon(self._run_node, node)
        node.add(channel)

    async def _run_node(self, node: ShardNode) -> None:
        failure: Exception | None = None
        try:
            await node.run()
        except (RedisDisconnected, BrokerError) as error:
            failure = error
            if node.channels and node.server not in self._logged:
                self._logged.add(node.server)
                _logger.warning(
                    "no connection to Redis at %s for subscriptions: %s", node.server, error
                )
        finally:
            self.forget(node)
        if failure is not None:
            self._failed[node.server] = self._failure = failure
        for channel in list(node.channels):
            self.lose(channel, "the connection is lost")
        self.wake()

    def forget(self, node: ShardNode) -> None:
        """Use another connection from now on."""
        if self._nodes.get(node.server) is node:
            del self._nodes[node.server]

    def lose(self, channel: ShardedChannel, reason: str) -> None:
        """Subscribe again, because a subscription has been lost."""
        node = channel.node
        assert node is not None
        if channel.lost_at is None and channel.is_confirmed:
            channel.lost_at = node.last_alive
            self._lost[channel] = None
        channel.position = node.position_of(channel)
        channel.is_confirmed, channel.node = False, None
        node.remove(channel)
        if self._is_wanted(channel):
            self._unassigned[channel] = None
            self._shards.mark_stale()
        _logger.debug("lost the subscription to %r: %s", channel.name, reason)

    def confirm(self, channel: ShardedChannel) -> None:
        """Called when all messages that are published from now on will arrive."""
        channel.is_confirmed, channel.lost_at, channel.error = True, None, None
        self._found(channel)
        self.wake()

    def _found(self, channel: ShardedChannel) -> None:
        self._lost.pop(channel, None)
        if self._logged and not self._lost:
            self._logged.clear()
            _logger.warning("subscribed again to all channels at %s", self._shards.address)

    def refuse(self, channel: ShardedChannel, error: Exception) -> None:
        """Called when Redis refuses a subscription. It is tried again after the next lookup."""
        node = channel.node
        assert node is not None
        node.remove(channel)
        channel.node, channel.error, channel.is_confirmed = None, error, False
        if "unknown command" in str(error):
            channel.error = BrokerError(f"sharded=True requires Redis 7.0 or later: {error}")
        if self._is_wanted(channel):
            self._refused[channel] = None
        self._found(channel)
        if channel.name not in self._logged_refusals and len(self._logged_refusals) < MAX_LOGGED:
            self._logged_refusals.add(channel.name)
            _logger.warning("Redis refused to subscribe to the channel %r: %s", channel.name, error)
        self.wake()
