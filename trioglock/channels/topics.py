"""Topics: the members in this process, and their connection with other processes through the hub.

The messages on the channel of a topic are wire frames of Phoenix: text, or a binary broadcast. They
are encoded once, and no process decodes them unless a channel intercepts events. A broadcast that
its sender must not receive has a prefix with the sender: in text, an origin and a space; in binary,
the byte 255, a length and as many bytes.

The first character distinguishes text from binary, because Redis returns binary data that is valid
UTF-8 as text.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..connection.fanout import Fanout
from ..errors import ConnectionClosed
from ..frames import Data, PreparedMessage
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Gap, Hub, Message, Subscriber
from ..pubsub.message import INCOMING, TOPIC_PREFIX
from .channel import ChannelHookTable
from .outgoing import HUB_CLOSED, close_connection
from .replay import Replay

if TYPE_CHECKING:
    from .actor import ChannelActor

__all__ = ["TopicIndex", "TopicSubscriber", "hub_channel", "topic_of"]

_logger = logging.getLogger("trioglock.channels")

ORIGIN_BYTE = b"\xff"
BROADCAST_BYTE = b"\x02"

_match_origin = re.compile(r"([0-9a-f]{16}-[0-9]+) (?=\[)").match


def hub_channel(topic: str, *, keep: bool = True) -> str:
    """Return the channel of a topic in the hub, or of its events that are not kept."""
    return f"{TOPIC_PREFIX}{'topic' if keep else 'unkept'}:{topic}"


TOPICS = hub_channel("")
"""The beginning of the channels of topics."""


def topic_of(channel: str) -> str | None:
    """Return the topic of a channel of the hub, or None if it belongs to no topic."""
    return channel.removeprefix(TOPICS) if channel.startswith(TOPICS) else None


def add_origin(frame: Data, origin: str) -> Data:
    """Return a frame that the member ``origin`` does not receive."""
    if isinstance(frame, str):
        return f"{origin} {frame}"
    return ORIGIN_BYTE + bytes([len(origin)]) + origin.encode() + frame


def split_origin(data: Data) -> tuple[Data, str | None]:
    """Return a frame and its origin, if it has one.

    The result is text only for a frame that was text when it was published.

    Raises:
        ValueError: it is not a broadcast.
    """
    if isinstance(data, str):
        if data.startswith("["):
            return data, None
        origin = _match_origin(data)
        if origin is not None:
            return data[origin.end() :], origin[1]
        data = data.encode()
    name = None
    if data[:1] == ORIGIN_BYTE:
        end = 2 + int.from_bytes(data[1:2])
        data, name = data[end:], data[2:end].decode(errors="replace")
    if data[:1] != BROADCAST_BYTE:
        raise ValueError("not a broadcast")
    return data, name


class TopicIndex:
    """The members of all topics in this process.

    Args:
        hub: transfers the messages.
        serializer: encodes and decodes them.
    """

    def __init__(self, hub: Hub, serializer: V2ServerSerializer) -> None:
        self.hub: Hub = hub
        self.serializer: V2ServerSerializer = serializer
        self._topics: dict[str, TopicSubscriber] = {}
        self._process = secrets.token_hex(8)
        self._origins = 0
        self._gap: Gap | None = None
        self._is_unavailable = False

    def __len__(self) -> int:
        return len(self._topics)

    def new_origin(self) -> str:
        """Return a new origin, unique among all processes."""
        self._origins += 1
        return f"{self._process}-{self._origins}"

    def subscribe(self, member: ChannelActor) -> bool:
        """Subscribe to the topic of a member that is about to join.

        Returns:
            Whether the member can :meth:`join` without :meth:`wait_subscribed`.

        Raises:
            UsageError: the hub is not open.
        """
        subscriber = self._subscribe(member)
        subscriber.joining[member] = None
        return all(map(self.hub.is_subscribed, subscriber.channels))

    async def wait_subscribed(self, member: ChannelActor) -> None:
        """Wait until the broker has confirmed the subscription to the topic of a member.

        Raises:
            UsageError: the hub is not open.
            BrokerUnavailable, BrokerError: the broker has not confirmed the subscription.
        """
        await self._wait_subscribed(member)
        self._is_unavailable = False

    async def _wait_subscribed(self, member: ChannelActor) -> None:
        for channel in self._subscribe(member).channels:
            if not self.hub.is_subscribed(channel):
                await self.hub.wait_subscribed(channel)

    def _subscribe(self, member: ChannelActor) -> TopicSubscriber:
        topic = member.join.topic
        subscriber = self._topics.get(topic)
        if subscriber is None:
            subscriber = TopicSubscriber(topic, member.hooks, self)
            for channel in subscriber.channels:
                self.hub.join(subscriber, channel)
            self._topics[topic] = subscriber
        return subscriber

    def join(self, member: ChannelActor) -> None:
        """Add a member.

        Raises:
            UsageError: the hub is not open.
        """
        subscriber = self._subscribe(member)
        subscriber.members[member] = None
        subscriber.joining.pop(member, None)

    async def start_replay(self, member: ChannelActor, after: str | None) -> bool:
        """Read the first events for a member that is about to join.

        Args:
            member: the member.
            after: the id of the last event that it received; None for the latest event.

        Returns:
            Whether events after this one may be missing.

        Raises:
            UsageError: the hub is not open.
            BrokerUnavailable, BrokerError: the history cannot be read.
        """
        await self._wait_subscribed(member)
        subscriber = self._subscribe(member)
        replay = subscriber.replays[member] = Replay(member, subscriber, self.hub)
        subscriber.joining.pop(member, None)
        is_incomplete = await replay.start(after)
        self._is_unavailable = False
        return is_incomplete

    def report_unavailable(self, topic: str, failure: Exception, *, history: bool) -> None:
        """Log that a history or the broker is unavailable, unless this was logged already."""
        if not self._is_unavailable:
            self._is_unavailable = True
            _logger.warning(
                "the %s %r, and possibly others, cannot be %s: %s",
                "history of" if history else "topic",
                topic,
                "read" if history else "joined",
                failure,
            )

    def send_replay(self, member: ChannelActor) -> None:
        """Send the events of :meth:`start_replay` and any later ones."""
        subscriber = self._topics.get(member.join.topic)
        replay = None if subscriber is None else subscriber.replays.get(member)
        if replay is not None and not replay.finish():
            with suppress(ConnectionClosed):
                member.connection.start_soon(replay.send)

    def leave(self, member: ChannelActor) -> None:
        """Remove a member; do nothing if it has not joined."""
        topic = member.join.topic
        subscriber = self._topics.get(topic)
        if subscriber is None:
            return
        replay = subscriber.replays.pop(member, None)
        if replay is not None:
            replay.end()
        elif not (member in subscriber.members or member in subscriber.joining):
            return
        subscriber.members.pop(member, None)
        subscriber.joining.pop(member, None)
        if not (subscriber.members or subscriber.replays or subscriber.joining):
            self.forget(subscriber)
            for channel in subscriber.channels:
                self.hub.leave(subscriber, channel)

    def forget(self, subscriber: TopicSubscriber) -> None:
        """Remove a topic."""
        if self._topics.get(subscriber.topic) is subscriber:
            del self._topics[subscriber.topic]

    def deliver_local(
        self, topic: str, frame: Data, *, exclude: Container[ChannelActor] = ()
    ) -> int:
        """Deliver a frame to the members in this process, except some; return their number."""
        subscriber = self._topics.get(topic)
        if subscriber is None:
            return 0
        members = [one for one in subscriber.members if one not in exclude]
        subscriber.deliver(frame, members)
        Fanout.current().schedule()
        return len(members)

    def report_gap(self, gap: Gap) -> None:
        """Log a gap once for all topics that it affects."""
        if gap is not self._gap:
            self._gap = gap
            topic = None if gap.channel is None else topic_of(gap.channel)
            _logger.warning(
                "broadcasts of the last %.1f seconds may be missing in %s: the connection to the "
                "broker was interrupted",
                gap.seconds,
                f"{len(self._topics)} topics" if topic is None else f"the topic {topic!r}",
            )


class TopicSubscriber(Subscriber):
    """Delivers the broadcasts of one topic to its members in this process.

    Args:
        topic: the topic.
        hooks: the hooks of its members.
        index: the index of all topics.
    """

    __slots__ = (
        "_corked",
        "_history",
        "_index",
        "_intercept",
        "channel",
        "joining",
        "members",
        "replays",
        "topic",
    )

    def __init__(self, topic: str, hooks: ChannelHookTable, index: TopicIndex) -> None:
        self.topic: str = topic
        self.channel: str = hub_channel(topic)
        """The channel of the topic in the hub."""
        self.joining: dict[ChannelActor, None] = {}
        """Members that will join when the subscription is confirmed."""
        self.members: dict[ChannelActor, None] = {}
        self.replays: dict[ChannelActor, Replay] = {}
        """Members, including joining ones, that first receive events from the history."""
        self._intercept = hooks.intercept
        self._history = hooks.history
        self._index = index
        self._corked = Fanout.current().corked

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the topic in the hub."""
        if self._history is None:
            return (self.channel,)
        return self.channel, hub_channel(self.topic, keep=False)

    def put(self, event: Message | Gap) -> None:
        if isinstance(event, Gap):
            if self._history is not None and event.channel in (INCOMING, self.channels[1]):
                return  # only events that are not kept may be missing
            self._index.report_gap(event)
            if self._history is not None:
                for replay in self.replays.values():
                    replay.put(event)
                for member in list(self.members):
                    member.lose_events(event)
        elif event.channel:  # not a message to all subscribers of the hub
            self._deliver(event)

    def _deliver(self, message: Message) -> None:
        frame, origin = self.read(message)
        if frame is None:
            # Any program can publish, and such a message would crash clients.
            _logger.error("a message to the topic %r is not a broadcast", self.topic)
            return
        # Copies: a write that fails may end a connection.
        if self.replays and message.channel == self.channel:
            for member, replay in list(self.replays.items()):
                if not replay.take(message):
                    del self.replays[member]
            members = [member for member in self.members if member not in self.replays]
        else:
            members = list(self.members)
        if origin is not None:
            members = [member for member in members if member.origin != origin]
        self.deliver(frame, members)

    def read(self, message: Message) -> tuple[Data | None, str | None]:
        """Return the frame in a message, and its origin, if it has one.

        The frame is None if the message is not a broadcast.
        """
        try:
            frame, origin = split_origin(message.data)
            if self._history is None or message.id is None or isinstance(frame, bytes):
                return frame, origin
            return self._history.add_id(frame, message.id), origin
        except ValueError:
            return None, None

    def deliver(self, frame: Data, members: Sequence[ChannelActor]) -> None:
        """Deliver a frame to some of the members."""
        if self._intercept:
            try:
                message = self._index.serializer.decode_broadcast(frame)
            except ValueError as error:
                _logger.error("a broadcast to %r is malformed: %s", self.topic, error)  # noqa: TRY400
                return
            if message.event in self._intercept:
                for member in members:
                    member.handle_out(message.event, message.payload)
                return
        corked, prepared = self._corked, PreparedMessage(frame)
        for member in members:
            outgoing = member.outgoing
            if outgoing.waiting or not outgoing.writer.put_prepared(prepared, corked):
                outgoing.send_later(prepared)

    def end(self) -> None:
        self._index.forget(self)
        members = self.members.keys() | self.replays.keys() | self.joining.keys()
        self.members, self.replays, self.joining = {}, {}, {}
        for member in members:
            close_connection(member.connection, HUB_CLOSED)
