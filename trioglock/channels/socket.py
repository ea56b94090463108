"""The hooks of one WebSocket connection, which carries the topics of one client."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import trio

from ..connection import Connection
from ..connection.mailbox import run_now
from ..disconnect import Disconnect
from ..errors import ConnectionClosed, UsageError
from ..frames import Close, Data
from ..hooks import ConnectionInfo, Reply, Socket
from ..protocols.phoenix.message import PhoenixMessage
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Hub
from .actor import ChannelActor
from .channel import hook_table, split_outcome
from .machine import CallEnd, CallHandleIn, CallJoin, CallLeave, Output, ServerMachine, TopicJoin
from .outgoing import TRY_AGAIN_LATER, OutgoingFrames, close_connection
from .results import JoinRefused
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

    Plain hooks of channels run inside ``handle_receive``. A join whose hook is async becomes a cast
    of the connection, as do the messages after it: the connection handles them in order, and stops
    reading if there are many.

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
        """The actors whose ``terminate`` has not run."""
        self._find = routes.find
        self._decode = index.serializer.decode
        self._deferred = 0  # casts that have not been handled
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
        if self._deferred:
            return self._defer(frame), None
        if self._refused:
            return None, None
        try:
            message = self._decode(frame)
        except ValueError as error:
            return self._refuse(error), None
        outputs = self.machine.receive(message)
        for at, output in enumerate(outputs):
            if self._has_to_wait(output):
                return self._defer(outputs[at:]), None
            if isinstance(output, CallJoin):
                run_now(self._join(output.join, output.payload))
            else:
                self._run_plain(output)
        return self._replied(), None

    async def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:  # noqa: ARG002
        try:
            if message.__class__ is tuple:
                outputs: Sequence[Output] = message
            elif self._refused:
                return None, None
            else:
                try:
                    decoded = self._decode(message)
                except ValueError as error:
                    return self._refuse(error), None
                outputs = self.machine.receive(decoded)
            for output in outputs:
                await self._run(output)
        finally:
            self._deferred -= 1
        return self._replied(), None

    async def terminate(self, reason: Disconnect, state: None) -> None:  # noqa: ARG002
        self.machine.close(reason)
        if self.id is not None:
            self.index.remove_id(self.id, self)
        actors = list(self.actors.values())
        for actor in actors:
            if not actor.hooks.terminate_is_async:
                actor.end_now(reason)
        if self.actors:
            async with trio.open_nursery() as nursery:
                for actor in list(self.actors.values()):
                    nursery.start_soon(actor.end_with_connection, reason)

    # Messages.

    def _replied(self) -> Reply | None:
        if not self.outgoing.replied:
            return None
        self.outgoing.replied = False
        return REPLIED

    def _refuse(self, error: ValueError) -> Close:
        self._refused = True
        _logger.info("%s: closed because of a malformed message: %s", self.connection.name, error)
        return MALFORMED

    def _defer(self, message: Data | Sequence[Output]) -> Close | None:
        """Handle a message after those that wait."""
        try:
            self.connection.cast(message)
        except trio.WouldBlock:
            return Close(TRY_AGAIN_LATER, "too many messages")
        except ConnectionClosed:
            return None
        self._deferred += 1
        return None

    def _has_to_wait(self, output: Output) -> bool:
        if isinstance(output, CallJoin):
            kind = self._find(output.join.topic)
            assert kind is not None
            return hook_table(kind).join_is_async
        if isinstance(output, CallEnd):
            actor = self.actors.get(output.join)
            return actor is not None and not actor.can_end_now
        return False

    def _run_plain(self, output: Output) -> None:
        match output:
            case CallHandleIn(join, ref, event, payload):
                self.actors[join].handle_in(ref, event, payload)
            case PhoenixMessage():
                self.outgoing.reply(self.serializer.encode(output))
            case CallLeave(join, ref):
                self.actors[join].leave(ref)
            case CallEnd(join, reason):
                if join in self.actors:
                    self.actors[join].end_now(reason)
            case CallJoin():
                raise AssertionError("a join may have to wait")

    async def _run(self, output: Output) -> None:
        match output:
            case CallJoin(join, payload):
                await self._join(join, payload)
            case CallEnd(join, reason):
                if join in self.actors:
                    await self.actors[join].end(reason)
            case _:
                self._run_plain(output)

    async def _join(self, join: TopicJoin, payload: Any) -> None:
        """Run ``join``. This does not suspend if the hook is plain."""
        kind = self._find(join.topic)
        assert kind is not None
        hooks, machine = hook_table(kind), self.machine
        try:
            channel = kind()
            actor = channel._actor = ChannelActor(self, join, channel)  # noqa: SLF001
            returned: Any = channel.join(join.topic, payload, self.user)
            if hooks.join_is_async:
                returned = await returned
            response, state = split_outcome(f"{hooks.name}.join", returned, "response")
            self.index.join(actor)
        except JoinRefused as refusal:
            self._send_all(join, machine.refused(join, refusal.response))
            return
        except Exception:
            _logger.exception(
                "%s: %s.join failed for topic %r", self.connection.name, hooks.name, join.topic
            )
            self._send_all(join, machine.refused(join))
            return
        except BaseException:
            machine.refused(join)  # the connection is ending
            raise
        self.actors[join] = actor
        if self._send_all(join, machine.joined(join, response)):
            actor.start(state)
        else:
            self.index.leave(actor)
            del self.actors[join]

    def _send_all(self, join: TopicJoin, outputs: Sequence[Output]) -> bool:
        """Send the messages after a join; return False if the response cannot be encoded."""
        sent = True
        for output in outputs:
            assert isinstance(output, PhoenixMessage)
            try:
                frame = self.serializer.encode(output)
            except ValueError:
                _logger.exception(
                    "%s: the response to a join of %r cannot be sent",
                    self.connection.name,
                    join.topic,
                )
                sent = False
                frame = self.serializer.encode(self.machine.join_crashed(join))
            self.outgoing.reply(frame)
        return sent

    def remove(self, actor: ChannelActor) -> None:
        """Forget an actor whose ``terminate`` begins."""
        self.actors.pop(actor.join, None)

    def disconnect(self, frame: Close) -> None:
        """Close the connection, from any task."""
        close_connection(self.connection, frame)
