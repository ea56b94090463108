"""The hooks of one WebSocket connection, which carries the topics of one client."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio

from .._redact import shorten
from ..connection import Connection
from ..connection.mailbox import run_now
from ..disconnect import Disconnect
from ..errors import (
    BadHookResult,
    BrokerError,
    BrokerUnavailable,
    ConnectionClosed,
    EncodeError,
    InvalidOption,
    UsageError,
)
from ..frames import Close, Data
from ..hooks import ConnectionInfo, Reply, Socket
from ..protocols.phoenix.message import PhoenixMessage
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Hub
from .actor import ChannelActor
from .channel import hook_table, split_outcome
from .history import GAP
from .machine import CallEnd, CallHandleIn, CallJoin, CallLeave, Output, ServerMachine, TopicJoin
from .outgoing import TRY_AGAIN_LATER, OutgoingFrames, close_connection
from .results import JoinRefused
from .routes import ChannelRoutes
from .topics import TopicIndex

__all__ = ["ChannelsSocket"]

_logger = logging.getLogger("trioglock.channels")

MALFORMED = Close(1011)
"""What Phoenix sends, because its process crashes."""

UNAVAILABLE = {"reason": "history unavailable"}

MESSAGES_PER_TURN = 64
"""Number of messages after which other tasks run, if messages have waited for a join."""

REPLIED = Reply()
"""Lets the connection stop reading from a client that does not read its replies."""


class ChannelsSocket(Socket[None, Any]):
    """One client.

    Plain hooks of channels run inside ``handle_receive``. If a join has to wait for an async hook,
    a task runs it and then handles the messages that have arrived in the meantime; the connection
    stops reading if there are many. An async hook of the connection would delay its end.

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
        self._waiting: deque[Data] | None = None  # while a join waits
        self._hub_is_open = True
        self._refused = False  # a malformed message, after which Phoenix handles no others

    # Hooks.

    def init_stream(self, info: ConnectionInfo) -> None:
        hub = self.hub
        self.connection = info.connection
        self._connection_actor = info.connection._actor  # noqa: SLF001 - part of the package
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
        if self._waiting is not None:
            self._waiting.append(frame)
            self._connection_actor.add_backlog()
            return None, None
        try:
            outputs = self.machine.receive(self._decode(frame))
        except ValueError as error:
            return self._refuse(error), None
        for at, output in enumerate(outputs):
            if self._has_to_wait(output):
                self._run_later(outputs[at:])
                break
            if isinstance(output, CallJoin):
                run_now(self._join(output.join, output.payload))
            else:
                self._run_plain(output)
        if not self.outgoing.replied:
            return None, None
        self.outgoing.replied = False
        return REPLIED, None

    async def terminate(self, reason: Disconnect, state: None) -> None:  # noqa: ARG002
        self.machine.close(reason)
        if self.id is not None:
            self.index.remove_id(self.id, self)
        actors = list(self.actors.values())
        for actor in actors:
            if not actor.hooks.terminate_is_async:
                actor.end_now(reason)
        try:
            if self.actors:
                async with trio.open_nursery() as nursery:
                    for actor in list(self.actors.values()):
                        nursery.start_soon(actor.end_with_connection, reason)
        finally:
            del self.connection, self.outgoing, self._connection_actor  # they refer to this object

    # Messages.

    def _refuse(self, error: ValueError) -> Close:
        self._refused = True
        _logger.info("%s: closed because of a malformed message: %s", self.connection.name, error)
        return MALFORMED

    def _run_later(self, outputs: Sequence[Output]) -> None:
        """Run outputs in a task, and then the messages that arrive in the meantime."""
        waiting = self._waiting = deque()
        with suppress(ConnectionClosed):
            self.connection.start_soon(self._run_waiting, outputs, waiting)

    async def _run_waiting(self, outputs: Sequence[Output], waiting: deque[Data]) -> None:
        for output in outputs:
            await self._run(output)
        count = 0
        while waiting and not self._refused:
            try:
                outputs = self.machine.receive(self._decode(waiting.popleft()))
            except ValueError as error:
                with suppress(ConnectionClosed):
                    await self.connection.send_frame(self._refuse(error))
                return
            for output in outputs:
                await self._run(output)
            self._connection_actor.remove_backlog()
            count += 1
            if count % MESSAGES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
        self._waiting = None

    def _has_to_wait(self, output: Output) -> bool:
        if isinstance(output, CallJoin):
            kind = self._find(output.join.topic)
            assert kind is not None
            hooks = hook_table(kind)
            return hooks.join_is_async or (
                hooks.history is not None and hooks.history.is_wanted(output.payload)
            )
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
        """Run ``join``. This does not suspend if the hook is plain and no history is read."""
        kind = self._find(join.topic)
        assert kind is not None
        hooks, machine = hook_table(kind), self.machine
        history = hooks.history
        try:
            after = None if history is None else history.parse_join(payload)
        except InvalidOption as error:
            self._send_refusal(join, {"reason": str(error)})
            return
        try:
            channel = kind()
            actor = channel._actor = ChannelActor(self, join, channel)  # noqa: SLF001
            returned: Any = channel.join(join.topic, payload, self.user)
            if hooks.join_is_async:
                returned = await returned
            response, state = split_outcome(f"{hooks.name}.join", returned, "response")
            if history is not None and not isinstance(response, dict):
                raise BadHookResult(
                    f"{hooks.name}.join must return a dict as the response, because the class has "
                    f"a history, not {shorten(response)}"
                )
        except JoinRefused as refusal:
            self._send_refusal(join, refusal.response)
        except Exception:
            self._log_join(hooks.name, join)
            self._send_refusal(join, None)
        except BaseException:
            machine.refused(join)  # the connection is ending
            raise
        else:
            actor.accept(state)
            self.actors[join] = actor
            failure: Exception | None = None
            if history is not None and history.is_wanted(payload):
                try:
                    if await self.index.start_replay(actor, after):
                        response = {**response, GAP: True}
                except Exception as error:
                    failure = error
                except BaseException:
                    machine.refused(join)  # the connection is ending
                    raise
            self._start(actor, response, failure)

    def _start(self, actor: ChannelActor, response: Any, error: Exception | None) -> None:
        """Start a channel whose ``join`` has returned, unless there was an error afterwards."""
        join = actor.join
        reply, *others = self.machine.joined(join, response)
        assert isinstance(reply, PhoenixMessage)
        try:
            if error is not None:
                raise error
            self.index.join(actor)
            self.outgoing.reply(self.serializer.encode(reply))
        except (BrokerUnavailable, BrokerError) as failure:
            _logger.warning("the history of %r cannot be read: %s", join.topic, failure)
            self._run_plain(self.machine.join_crashed(join, UNAVAILABLE))
            self._run_all(others)
            actor.start(failure)
        except Exception as failure:
            self._log_join(actor.hooks.name, join)
            self._run_plain(self.machine.join_crashed(join))
            self._run_all(others)
            actor.start(failure)
        else:
            self._run_all(others)
            actor.start()
            self.index.send_replay(actor)

    def _send_refusal(self, join: TopicJoin, response: Any) -> None:
        messages = self.machine.refused(join, response)
        try:
            self._run_all(messages)
        except (EncodeError, ValueError):
            kind = self._find(join.topic)
            self._log_join("" if kind is None else kind.__qualname__, join)
            self._run_plain(self.machine.join_crashed(join))
            self._run_all(messages[1:])

    def _run_all(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._run_plain(output)

    def _log_join(self, name: str, join: TopicJoin) -> None:
        _logger.exception(  # noqa: LOG004 - called while an exception is handled
            "%s: %s.join failed for topic %r", self.connection.name, name, join.topic
        )

    def remove(self, actor: ChannelActor) -> None:
        """Forget an actor whose ``terminate`` begins."""
        self.actors.pop(actor.join, None)

    def disconnect(self, frame: Close) -> None:
        """Close the connection, from any task."""
        close_connection(self.connection, frame)
