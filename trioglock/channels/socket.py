"""The hooks of one WebSocket connection, over which one client joins its topics."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import trio

from ..connection import Connection
from ..connection._sync import ignore
from ..connection.fanout import Fanout
from ..disconnect import Disconnect
from ..errors import ConnectionClosed, UsageError
from ..frames import Close, Data
from ..hooks import ConnectionInfo, Reply, Socket
from ..options import Rate
from ..protocols.phoenix.message import JOIN, LEAVE, PhoenixMessage
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Hub
from ..pubsub.reservation import Reservation
from .actor import ChannelActor
from .channel import Channel, hook_table
from .credentials import ExpiryTimer, Refresh, TokenRefresher
from .ids import IdIndex
from .limits import TokenBucket
from .machine import (
    ACCESS_TOKEN,
    CallEnd,
    CallHandleIn,
    CallJoin,
    CallLeave,
    CallRefresh,
    Output,
    ServerMachine,
    TopicJoin,
)
from .outgoing import TRY_AGAIN_LATER, OutgoingFrames, close_connection
from .results import EndReason
from .routes import ChannelRoutes
from .topics import TopicIndex

__all__ = ["ChannelsSocket", "SocketOptions"]

_logger = logging.getLogger("trioglock.channels")

EXPIRED = Close(1008, "the credentials have expired")

MALFORMED = Close(1011)
"""The reason that Phoenix sends, because its process crashes."""

SECONDS_PER_TURN = 0.01
"""Other tasks run when the broadcasts of one client have taken this time."""

REPLIED = Reply()
"""Lets the connection stop reading from a client that does not read its replies."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """The options of a :class:`.Channels`, for all its clients.

    Args:
        routes: the channel classes.
        index: the topics of this process.
        ids: the connections of this process that have an id.
        max_topics: maximum number of topics that a client may have joined.
        message_rate: the limit on all messages of a client, or None.
        join_rate: the limit on joins and new tokens, or None.
        refresh: verifies new tokens, or None.
        identify: returns the id of a user's connections, or None.
    """

    routes: ChannelRoutes
    index: TopicIndex
    ids: IdIndex
    max_topics: int
    message_rate: Rate | None
    join_rate: Rate | None
    refresh: Refresh | None
    identify: Callable[[Any], str | None] | None


class ChannelsSocket(Socket[None, Any]):
    """One client.

    Plain hooks of channels run inside ``handle_receive``; the actor of a topic runs its async hooks
    in a task. An async hook of the connection would delay its end.

    Args:
        options: the options of the server.
        user: the user of the client.
        id: the id of the connection, if it has one.
        expires_at: the Unix time at which the credentials of the client expire, or infinity.
    """

    connection: Connection[Any, Any]
    outgoing: OutgoingFrames

    def __init__(
        self,
        options: SocketOptions,
        user: Any,
        id: str | None,  # noqa: A002 - the term of Phoenix
        expires_at: float,
    ) -> None:
        index = options.index
        self.hub: Hub = index.hub
        self.index: TopicIndex = index
        self.serializer: V2ServerSerializer = index.serializer
        self.machine: ServerMachine = ServerMachine(
            options.routes.find, options.max_topics, options.refresh is not None
        )
        self.user: Any = user
        self.id: str | None = id
        self.actors: dict[TopicJoin, ChannelActor] = {}
        """The actors that are joining, and those whose ``terminate`` has not run."""
        self.reservation: Reservation | None = None
        """Keeps the hub subscribed to the id until the connection is open."""
        self.closes_later: bool = False
        """Whether :meth:`close_later` was called."""
        self.frame_size: int = 0
        """The size of the frame that is being handled."""
        self.waiting_size: int = 0
        """The total size of the frames whose messages wait for hooks of channels."""
        self._options = options
        self._decode = index.serializer.decode_parts
        # The mock server replaces it, so that all messages are passed to receive().
        self._receive_push: Callable[[str | None, str | None, str, str], TopicJoin | None] = (
            self.machine.receive_push
        )
        self._messages = TokenBucket(options.message_rate)
        self._joins = TokenBucket(options.join_rate)
        self._expires_at = expires_at
        self._expiry: ExpiryTimer | None = None
        self._refresher: TokenRefresher | None = None
        # Topics whose earlier join is still ending, each with the function that starts the next
        # join.
        self._ending: dict[str, Callable[[], object]] = {}
        self._hub_is_open = True
        self._is_limited = False  # the log contains a message about it
        self._is_closing = False  # no more messages are handled
        # The turn of the scheduler in which this client has broadcast, and when it should end.
        self._fanout = Fanout.current()
        self._turn = -1
        self._turn_ends = 0.0

    # Hooks.

    def init_stream(self, info: ConnectionInfo) -> None:
        hub = self.hub
        self.connection = info.connection
        self.outgoing = OutgoingFrames(info.connection, hub.max_queue, hub.max_queue_bytes)
        self._start_expiry()
        if self.id is not None:
            try:
                self._options.ids.add(self.id, self)
            except UsageError:
                self._hub_is_open = False
        if self.reservation is not None:
            self.reservation.release()

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:  # noqa: ARG002
        if not self._hub_is_open:
            return Close(TRY_AGAIN_LATER, "the hub is closed"), None
        return None, None

    def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:  # noqa: ARG002
        if self._is_closing:
            return None, None
        decode = self._decode
        try:
            join_ref, ref, topic, event, payload = parts = decode(frame)
        except ValueError as error:
            return self._refuse(error), None
        messages = self._messages
        if messages.left:
            messages.left -= 1
        elif not messages.take() and (event != LEAVE or messages.is_overdrawn):
            # A leave also counts, but is handled: otherwise the client would continue to receive
            # events.
            return self._exceed(PhoenixMessage(*parts), messages, "messages")
        self.frame_size = len(frame)
        receive_push = self._receive_push
        join = receive_push(join_ref, ref, topic, event)
        if join is not None:
            self.actors[join].handle_in(ref, event, payload)
        elif self._take_join(event):
            self.receive(PhoenixMessage(*parts))
        else:
            return self._exceed(PhoenixMessage(*parts), self._joins, "joins")
        outgoing = self.outgoing
        if not outgoing.replied:
            return None, None
        send_queue = outgoing.send_queue
        if outgoing.needs_turn or send_queue.size >= send_queue.threshold:
            self._hold()
        outgoing.replied = False
        return REPLIED, None

    def _take_join(self, event: str) -> bool:
        """Return whether ``join_rate`` allows a message with this event."""
        if event != JOIN and (event != ACCESS_TOKEN or self._options.refresh is None):
            return True
        if self._joins.left:
            self._joins.left -= 1
            return True
        return self._joins.take()

    async def terminate(self, reason: Disconnect, state: None) -> None:  # noqa: ARG002
        self.machine.close()
        self._stop_expiry()
        if self.id is not None:
            self._options.ids.remove(self.id, self)
        for actor in list(self.actors.values()):
            if not (actor.has_joined and actor.hooks.terminate_is_async):
                actor.end_now(reason)
        try:
            if self.actors:
                async with trio.open_nursery() as nursery:
                    for actor in list(self.actors.values()):
                        nursery.start_soon(actor.end_with_connection, reason)
        finally:
            del self.connection, self.outgoing  # they refer to this object

    # Messages.

    def _refuse(self, error: ValueError) -> Close:
        self._is_closing = True
        _logger.info("%s: closed because of a malformed message: %s", self.connection.name, error)
        return MALFORMED

    def _exceed(self, message: PhoenixMessage, bucket: TokenBucket, kind: str) -> tuple[Any, None]:
        """Refuse a message that exceeds a limit, or close the connection."""
        if not self._is_limited:
            self._is_limited = True
            _logger.warning(
                "%s sends too many %s, which are refused: they exceed the %s of Channels",
                self.connection.name,
                kind,
                "message_rate" if bucket is self._messages else "join_rate",
            )
        if bucket.is_overdrawn:
            self._is_closing = True
            return Close(1008, f"too many {kind}"), None
        self._run(self.machine.exceeded(message, f"too many {kind}"))
        self._hold()
        self.outgoing.replied = False
        return REPLIED, None

    def _hold(self) -> None:
        """Delay the next message if other tasks should run or the client should read.

        Many small messages can arrive at once and cause much larger replies.
        """
        outgoing = self.outgoing
        if outgoing.needs_turn or not outgoing.has_space:
            outgoing.needs_turn = False
            self.connection._actor.hold(self._wait_turn)  # noqa: SLF001 - the same package

    async def _wait_turn(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.outgoing.wait_space()

    def end_broadcast(self) -> None:
        """Let other tasks run soon if the broadcasts of this client take a long time."""
        now = perf_counter()
        if self._fanout.turns != self._turn:
            self._turn, self._turn_ends = self._fanout.turns, now + SECONDS_PER_TURN
        elif now > self._turn_ends:
            self._turn = -1
            self.outgoing.needs_turn = self.outgoing.replied = True

    def receive(self, message: PhoenixMessage) -> None:
        """Handle a message of the client."""
        for output in self.machine.receive(message):
            self._run(output)

    def _run(self, output: Output) -> None:
        match output:
            case PhoenixMessage():
                self.outgoing.reply(self.serializer.encode(output))
            case CallHandleIn(join, ref, event, payload):
                self.actors[join].handle_in(ref, event, payload)
            case CallLeave(join, ref):
                self.actors[join].leave(ref)
            case CallJoin(join, payload, kind):
                self._join(join, payload, kind)
            case CallRefresh(join_or_none, ref, payload):
                self._refresh(join_or_none, ref, payload)
            case CallEnd(join, reason):
                if join in self.actors:
                    self._end_before_next(self.actors[join], reason)

    def _join(self, join: TopicJoin, payload: Any, kind: type[Channel[Any]]) -> None:
        topic = join.topic
        actor = self.actors[join] = ChannelActor(self, join, hook_table(kind))
        if topic in self._ending:
            self._ending[topic] = partial(actor.begin, kind, payload)
        else:
            actor.begin(kind, payload)

    def _end_before_next(self, actor: ChannelActor, reason: EndReason) -> None:
        """End the join of a topic that the client joins again."""
        topic = actor.join.topic
        if topic in self._ending:
            actor.end_now(reason)  # the join has not begun
        elif not actor.end_soon(reason, partial(self._begin_next, topic)):
            self._ending[topic] = ignore

    def _begin_next(self, topic: str) -> None:
        self._ending.pop(topic)()

    # Credentials.

    def _refresh(self, join: TopicJoin | None, ref: str | None, payload: Any) -> None:
        options = self._options
        if self._refresher is None:
            assert options.refresh is not None
            self._refresher = TokenRefresher(
                self, options.refresh, options.identify, options.max_topics
            )
        self._refresher.receive(join, ref, payload)

    def answer_refresh(self, join: TopicJoin | None, ref: str | None, error: Any) -> None:
        """Answer the push of a token; None accepts it."""
        message = self.machine.answer_refresh(join, ref, error)
        if message is not None:
            self._run(message)

    def set_credentials(self, user: Any, expires_at: float) -> None:
        """Replace the user and the time at which the connection ends."""
        self.user, self._expires_at = user, expires_at
        self._stop_expiry()
        if not self._is_closing:
            self._start_expiry()

    def _start_expiry(self) -> None:
        if self._expires_at < math.inf:
            self._expiry = ExpiryTimer(self._expires_at, self._expire)

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.stop()
            self._expiry = None

    def _expire(self) -> None:
        self._is_closing = True
        _logger.info("%s: closed because its credentials have expired", self.connection.name)
        self.disconnect(EXPIRED)

    # The end.

    def remove(self, actor: ChannelActor) -> None:
        """Remove an actor that was refused, or whose ``terminate`` is starting."""
        self.actors.pop(actor.join, None)

    def close_later(self, deadline: float) -> None:
        """Close the connection with 1001 at a time of trio's clock."""
        self.closes_later = True
        with suppress(ConnectionClosed):
            self.connection.start_soon(self._close_at, deadline)

    async def _close_at(self, deadline: float) -> None:
        await trio.sleep_until(deadline)
        self.disconnect(Close(1001))

    def disconnect(self, frame: Close) -> None:
        """Close the connection, from any task."""
        close_connection(self.connection, frame)
