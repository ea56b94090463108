"""The Phoenix client as a state machine that does no I/O.

What happens goes in: calls of the user, messages of the server, a connection that comes or goes,
and time. What is to be done comes out: a list of :mod:`.effects`. It has no clock: ``now`` is in
seconds of whichever one the caller uses, and :attr:`Machine.next_deadline` says when to call
:meth:`Machine.tick`. Two things always hold:

* a topic has at most one join that counts, and only what carries its ``join_ref``, or none, is
  heard: a late ``phx_close`` of an earlier join ends nothing;
* a push is resolved once: by its reply, its deadline, the loss of what would have brought the
  reply, or because it was withdrawn. What comes after that is ignored and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from .effects import Deliver, Effect, Resolve
from .errors import AlreadyJoined, ChannelCrashed, Disconnected, NotJoined
from .heartbeat import PhoenixHeartbeat
from .joins import Joins
from .membership import Membership, Phase, Push
from .message import CLOSE, ERROR, REPLY, Message, PushReply
from .pushes import Pushes
from .timers import Timers

__all__ = ["REJOIN_DELAYS", "Machine"]

REJOIN_DELAYS = (1.0, 2.0, 5.0, 10.0)
"""Seconds before each attempt to join again, the last one repeated, as in the JavaScript client."""


class Machine:
    """All channels of one socket.

    Args:
        rejoin_delays: seconds before each attempt to join again after a crash or a refusal. None
            of them at all: a channel ends there, and with the connection.
        max_buffer: pushes of one channel that may wait to be sent.
    """

    def __init__(
        self, *, rejoin_delays: Sequence[float] = REJOIN_DELAYS, max_buffer: int = 1000
    ) -> None:
        self.connected: bool = False
        self.ignored: int = 0
        """Messages that came for nobody: late, duplicate, of an earlier join, or unknown."""
        self._ids = itertools.count(1)
        self._refs = itertools.count(1)
        self._timers: Timers[int] = Timers()
        self._pushes = Pushes(self._timers, self._ref, max_buffer)
        self._joins = Joins(self._timers, self._ref, self._pushes, rejoin_delays)
        self.heartbeat: PhoenixHeartbeat = PhoenixHeartbeat(self._ref)

    # What is known.

    @property
    def next_deadline(self) -> float:
        """When to call :meth:`tick`; infinity for never."""
        return self._timers.next

    @property
    def pending(self) -> int:
        """Pushes and leaves without an outcome."""
        return len(self._pushes)

    def phase(self, channel: int) -> Phase | None:
        """Where a channel stands; None once it has ended.

        Args:
            channel: its number.
        """
        membership = self._joins.numbers.get(channel)
        return None if membership is None else membership.phase

    def join_ref(self, channel: int) -> str | None:
        """Of the join that counts, if there is one.

        Args:
            channel: its number.
        """
        membership = self._joins.numbers.get(channel)
        return None if membership is None else membership.join_ref

    def channel(self, topic: str) -> int | None:
        """The channel of a topic, if there is one.

        Args:
            topic: such as ``"room:1"``.
        """
        membership = self._joins.topics.get(topic)
        return None if membership is None else membership.id

    # The connection.

    def connect(self, now: float) -> list[Effect]:
        """A connection is there: every channel joins, or joins again.

        Args:
            now: in seconds, of the caller's clock.
        """
        self.connected = True
        self.heartbeat.forget()
        return [self._joins.ask(channel, now) for channel in self._joins.numbers.values()]

    def disconnect(self) -> list[Effect]:
        """The connection is gone: nothing that was under way on it will be answered."""
        self.connected = False
        self.heartbeat.forget()
        return [*self._pushes.disconnected(), *self._joins.disconnected()]

    def close(self) -> list[Effect]:
        """There will be no other connection: everything ends."""
        effects = self.disconnect()
        for channel in list(self._joins.numbers.values()):
            effects += self._joins.end(channel, Disconnected("the connection has ended"))
        return effects

    # Joining and leaving.

    def join(
        self, topic: str, timeout: float, deadline: float, *, offline: bool = True
    ) -> tuple[int, list[Effect]]:
        """Join a topic.

        Args:
            topic: to join.
            timeout: seconds for each later join.
            deadline: of the first one, an outage included, in seconds of the caller's clock.
            offline: whether that may wait for a connection.

        Returns:
            The number of the channel, and what to do.

        Raises:
            AlreadyJoined: the topic has a channel.
            Disconnected: there is no connection.
        """
        if topic in self._joins.topics:
            raise AlreadyJoined(f"{topic!r} is joined, or being joined, on this socket already")
        if not offline:
            self.check_connected(topic)
        channel = Membership(next(self._ids), topic, timeout)
        self._joins.add(channel, deadline)
        # The time matters to later joins only.
        return channel.id, [self._joins.ask(channel, 0)] if self.connected else []

    def payload(self, number: int, attempt: int, payload: Any) -> list[Effect]:
        """The answer to :class:`AskPayload`; one that is out of date is ignored.

        Args:
            number: of the channel.
            attempt: which one asked.
            payload: of the join.
        """
        return self._joins.payload(number, attempt, payload)

    def fail(self, number: int, error: Exception) -> list[Effect]:
        """The channel cannot go on, for a reason that is not the server's.

        Args:
            number: of the channel.
            error: why; the channel ends with it.
        """
        channel = self._joins.numbers.get(number)
        if channel is None:
            return []
        goodbye = self._joins.goodbye(channel)
        return [*self._joins.end(channel, error), *goodbye]

    def leave(self, number: int, deadline: float) -> tuple[int, list[Effect]]:
        """Leave a channel, wherever it stands; its topic may be joined again at once.

        Args:
            number: of the channel.
            deadline: for the answer, in seconds of the caller's clock; then it is resolved with
                :exc:`PushTimeout`.

        Returns:
            The number of the leave, which is resolved as a push is, and what to do.

        Raises:
            NotJoined: it has ended.
        """
        channel = self._joins.get(number)
        join_ref = channel.join_ref
        leave = next(self._ids)
        effects = self._joins.end(channel, None, "the channel was left")
        if not self.connected or join_ref is None:
            return leave, [*effects, Resolve(leave, PushReply("ok", {}))]
        send = self._pushes.leave(leave, channel.topic, join_ref, deadline)
        return leave, [*effects, send]

    # Pushing.

    def push(
        self,
        number: int,
        event: str,
        payload: Any,
        deadline: float,
        *,
        wants_reply: bool = True,
        buffered: bool = True,
    ) -> tuple[int, list[Effect]]:
        """Push an event, now or as soon as the channel is joined.

        Args:
            number: of the channel.
            event: its name.
            payload: of the message.
            deadline: for its reply, in seconds of the caller's clock; then it is resolved with
                :exc:`PushTimeout`.
            wants_reply: False resolves it with ``PushReply("sent", None)`` when it is sent.
            buffered: whether it may wait for the channel to be joined.

        Returns:
            The number of the push, and what to do.

        Raises:
            NotJoined: the channel has ended, or may not be waited for.
            Disconnected: there is no connection, and it may not be waited for.
            BufferFull: too many wait already.
        """
        channel = self._joins.get(number)
        push = Push(next(self._ids), event, payload, wants_reply, channel)
        if channel.phase is Phase.JOINED:
            return push.id, self._pushes.send(push, deadline)
        if buffered:
            self._pushes.buffer(push, deadline)
            return push.id, []
        self.check_connected(channel.topic)
        raise NotJoined(f"{channel.topic!r} is not joined yet")

    def check_connected(self, topic: str) -> None:
        """Refuse what needs a connection now.

        Args:
            topic: for the error's text.

        Raises:
            Disconnected: there is none.
        """
        if not self.connected:
            raise Disconnected(f"there is no connection, and so {topic!r} cannot be reached")

    def withdraw(self, number: int) -> None:
        """Nobody waits for a push, or it cannot be sent: whatever comes for it is ignored.

        Args:
            number: of the push.
        """
        self._pushes.withdraw(number)

    # The server.

    def received(self, message: Message, now: float) -> list[Effect]:
        """A message of the server's.

        Args:
            message: as it was decoded.
            now: in seconds, of the caller's clock.
        """
        if message.event == REPLY:
            return self._replied(message, now)
        channel = self._joins.topics.get(message.topic)
        if channel is None or not channel.accepts(message.join_ref):
            return self._stray(message)
        if message.event == CLOSE:
            text = "the server closed the channel"
            return self._joins.end(channel, None, text, message.payload)
        if message.event == ERROR:
            return self._crashed(channel, message.payload, now)
        return [Deliver(channel.id, message)]

    def _stray(self, message: Message) -> list[Effect]:
        if message.event == CLOSE:
            effects = self._pushes.closed(message.topic, message.join_ref)
            if effects:
                return effects
        self.ignored += 1
        return []

    def _replied(self, message: Message, now: float) -> list[Effect]:
        payload, ref = message.payload, message.ref
        effects: list[Effect] = []
        if ref is not None and isinstance(payload, dict) and isinstance(payload.get("status"), str):
            reply = PushReply(payload["status"], payload.get("response"))
            channel = self._joins.topics.get(message.topic)
            if channel is not None and channel.accepts(message.join_ref):
                if ref == channel.join_ref and channel.phase is Phase.JOINING:
                    return self._joins.answered(channel, reply, now)
                effects = self._pushes.replied(channel, ref, reply)
            effects = effects or self._pushes.left(message.topic, ref, reply)
        if not effects:
            self.ignored += 1
        return effects

    def _crashed(self, channel: Membership, payload: Any, now: float) -> list[Effect]:
        text = f"the channel {channel.topic!r} crashed on the server: {payload!r}"
        lost = self._pushes.lose(channel, ChannelCrashed, text)
        return [*lost, *self._joins.set_back(channel, ChannelCrashed(text), now, payload)]

    # Time.

    def tick(self, now: float) -> list[Effect]:
        """Everything whose time has come.

        Args:
            now: in seconds, of the caller's clock.
        """
        effects: list[Effect] = []
        while (number := self._timers.expired(now)) is not None:
            ended = self._pushes.expired(number)
            effects += self._joins.expired(number, now) if ended is None else ended
        return effects

    def _ref(self) -> str:
        return str(next(self._refs))
