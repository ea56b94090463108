"""The hooks of one WebSocket connection, which carries the topics of one client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from ..connection import Connection
from ..connection._sync import ignore
from ..disconnect import Disconnect
from ..errors import UsageError
from ..frames import Close, Data
from ..hooks import ConnectionInfo, Reply, Socket
from ..protocols.phoenix.message import PhoenixMessage
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Hub
from .actor import ChannelActor
from .channel import hook_table
from .machine import CallEnd, CallHandleIn, CallJoin, CallLeave, Output, ServerMachine, TopicJoin
from .outgoing import TRY_AGAIN_LATER, OutgoingFrames, close_connection
from .results import EndReason
from .routes import ChannelRoutes
from .topics import TopicIndex

__all__ = ["ChannelsSocket"]

_logger = logging.getLogger("trioglock.channels")

MALFORMED = Close(1011)
"""What Phoenix sends, because its process crashes."""

REPLIED = Reply()
"""Lets the connection stop reading from a client that does not read its replies."""


class ChannelsSocket(Socket[None, Any]):
    """One client.

    Plain hooks of channels run inside ``handle_receive``; the actor of a topic runs its async hooks
    in a task. An async hook of the connection would delay its end.

    Args:
        routes: the channel classes.
        index: the topics of this process.
        max_topics: maximum number of topics that the client may have joined.
        user: the user of the client.
        id: the id of the connection, if it has one.
    """

    connection: Connection[Any, Any]
    outgoing: OutgoingFrames

    def __init__(
        self,
        routes: ChannelRoutes,
        index: TopicIndex,
        max_topics: int,
        user: Any,
        id: str | None,  # noqa: A002 - the term of Phoenix
    ) -> None:
        self.hub: Hub = index.hub
        self.index: TopicIndex = index
        self.serializer: V2ServerSerializer = index.serializer
        self.machine: ServerMachine = ServerMachine(routes.has_topic, max_topics)
        self.user: Any = user
        self.id: str | None = id
        self.actors: dict[TopicJoin, ChannelActor] = {}
        """The actors that are joining, and those whose ``terminate`` has not run."""
        self._find = routes.find
        self._decode = index.serializer.decode
        # Topics whose earlier join is still ending, and what begins the next one.
        self._ending: dict[str, Callable[[], object]] = {}
        self._hub_is_open = True
        self._refused = False  # a malformed message, after which Phoenix handles no others

    # Hooks.

    def init_stream(self, info: ConnectionInfo) -> None:
        hub = self.hub
        self.connection = info.connection
        self.outgoing = OutgoingFrames(info.connection, hub.max_queue, hub.max_queue_bytes)
        if self.id is not None:
            try:
                self.index.add_id(self.id, self)
            except UsageError:
                self._hub_is_open = False

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:  # noqa: ARG002
        if not self._hub_is_open:
            return Close(TRY_AGAIN_LATER, "the hub is closed"), None
        return None, None

    def handle_receive(self, frame: Data, state: None) -> tuple[Any, None]:  # noqa: ARG002
        if self._refused:
            return None, None
        try:
            message = self._decode(frame)
        except ValueError as error:
            return self._refuse(error), None
        self.receive(message)
        if not self.outgoing.replied:
            return None, None
        self.outgoing.replied = False
        return REPLIED, None

    async def terminate(self, reason: Disconnect, state: None) -> None:  # noqa: ARG002
        self.machine.close(reason)
        if self.id is not None:
            self.index.remove_id(self.id, self)
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
        self._refused = True
        _logger.info("%s: closed because of a malformed message: %s", self.connection.name, error)
        return MALFORMED

    def receive(self, message: PhoenixMessage) -> None:
        """Handle a message of the client."""
        for output in self.machine.receive(message):
            self._run(output)

    def _run(self, output: Output) -> None:
        if isinstance(output, CallHandleIn):  # the usual case; a match would cost more
            self.actors[output.join].handle_in(output.ref, output.event, output.payload)
            return
        match output:
            case PhoenixMessage():
                self.outgoing.reply(self.serializer.encode(output))
            case CallLeave(join, ref):
                self.actors[join].leave(ref)
            case CallJoin(join, payload):
                self._join(join, payload)
            case CallEnd(join, reason):
                if join in self.actors:
                    self._end_before_next(self.actors[join], reason)

    def _join(self, join: TopicJoin, payload: Any) -> None:
        kind, topic = self._find(join.topic), join.topic
        assert kind is not None
        actor = self.actors[join] = ChannelActor(self, join, hook_table(kind))
        if topic in self._ending:
            self._ending[topic] = partial(actor.begin, kind, payload)
        else:
            actor.begin(kind, payload)

    def _end_before_next(self, actor: ChannelActor, reason: EndReason) -> None:
        """End the join of a topic that the client joins again."""
        topic = actor.join.topic
        if topic in self._ending:
            actor.end_now(reason)  # it has not begun
        elif not actor.end_soon(reason, partial(self._begin_next, topic)):
            self._ending[topic] = ignore

    def _begin_next(self, topic: str) -> None:
        self._ending.pop(topic)()

    def remove(self, actor: ChannelActor) -> None:
        """Forget an actor that was refused, or whose ``terminate`` begins."""
        self.actors.pop(actor.join, None)

    def disconnect(self, frame: Close) -> None:
        """Close the connection, from any task."""
        close_connection(self.connection, frame)
