"""The Phoenix client as a state machine without I/O.

Its methods are called for each event: calls by the user, messages from the server, connections that
open or end, and time. They return a list of effects to apply; see :mod:`.state`. The machine has no
clock: ``now`` is in seconds of any clock, and :attr:`Machine.next_deadline` is the time at which
to call :meth:`Machine.tick`. Two invariants hold:

* A topic has at most one current join, and only messages with its ``join_ref``, or with none, are
  accepted. A late ``phx_close`` of an earlier join has no effect.
* A push is resolved once: by its reply, its deadline, or the loss of its channel or connection.
  Later replies, and replies to a withdrawn push, are ignored and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ...disconnect import Disconnect, HandshakeFailed
from ...retry import is_transient
from .errors import (
    AlreadyJoined,
    ChannelCrashed,
    Disconnected,
    JoinRefused,
    JoinTimeout,
    NotJoined,
)
from .message import (
    CLOSE,
    ERROR,
    JOIN,
    LEAVE,
    REPLY,
    PhoenixHeartbeat,
    PhoenixMessage,
    PushReply,
)
from .pushes import LEFT, Pushes, Timers
from .state import (
    ChannelEnded,
    ChannelInterrupted,
    ChannelJoined,
    ChannelPhase,
    DeliverMessage,
    Effect,
    GetPayload,
    Membership,
    Push,
    ResolvePush,
    SendMessage,
)

__all__ = ["REJOIN_DELAYS", "Machine"]

MAX_LEFT = 1000
"""Maximum number of left joins whose ``phx_close`` is expected."""

REJOIN_DELAYS = (1.0, 2.0, 5.0, 10.0)
"""Seconds before each rejoin; the last value is repeated, as in the JavaScript client."""


class Machine:
    """All channels of one socket.

    Args:
        rejoin_delays: seconds before each rejoin after a crash or a refusal. If it is empty, a
            channel ends in these cases and when the connection is lost.
        max_buffer: the number of pushes per channel that may wait to be sent.
    """

    def __init__(
        self, *, rejoin_delays: Sequence[float] = REJOIN_DELAYS, max_buffer: int = 1000
    ) -> None:
        self.connected: bool = False
        self.ignored: int = 0
        """The number of ignored messages: late, duplicate, from an earlier join, or unknown."""
        self._left: dict[str, str] = {}
        """The topic of each join that was left and whose end the server has not confirmed yet."""
        self._lost: Disconnect | None = None
        self._ids = itertools.count(1)
        self._refs = itertools.count(1)
        self._timers: Timers[int] = Timers()
        self._pushes = Pushes(self._timers, self._ref, max_buffer)
        self._delays = tuple(rejoin_delays)
        self._topics: dict[str, Membership] = {}
        self._channels: dict[int, Membership] = {}
        self.heartbeat: PhoenixHeartbeat = PhoenixHeartbeat(self._ref)

    # State.

    @property
    def next_deadline(self) -> float:
        """The time at which to call :meth:`tick`; infinity for never."""
        return self._timers.next

    @property
    def pending(self) -> int:
        """The number of pushes and leaves without an outcome."""
        return len(self._pushes)

    def phase(self, channel: int) -> ChannelPhase | None:
        """Return the phase of the channel with the number ``channel``, or None if it has ended."""
        membership = self._channels.get(channel)
        return None if membership is None else membership.phase

    def join_ref(self, channel: int) -> str | None:
        """Return the ref of the current join of ``channel``, or None if there is none."""
        membership = self._channels.get(channel)
        return None if membership is None else membership.join_ref

    def channel(self, topic: str) -> int | None:
        """Return the number of the channel of ``topic``, or None if there is none."""
        membership = self._topics.get(topic)
        return None if membership is None else membership.id

    # The connection.

    def connect(self, now: float) -> list[Effect]:
        """Handle a new connection at ``now``, in seconds: every channel joins or rejoins."""
        self.connected, self._lost = True, None
        self.heartbeat.forget()
        return [self._ask(channel, now) for channel in self._channels.values()]

    def disconnect(self, reason: Disconnect | None = None) -> list[Effect]:
        """Handle the loss of the connection: pending pushes and joins will not be answered.

        Args:
            reason: why the connection was lost, for the errors.
        """
        self.connected, self._lost = False, reason
        self.heartbeat.forget()
        self._left.clear()
        effects = self._pushes.disconnected()
        for channel in list(self._channels.values()):
            effects += self._pushes.lose(channel, lambda: Disconnected("disconnected", reason))
            channel.enter(ChannelPhase.WAITING)
            channel.join_ref = None
            lost = Disconnected("disconnected", reason)
            if not self._delays:
                effects += self._end(channel, lost)
                continue
            if channel.joined_once:
                self._timers.cancel(channel.id)
                channel.failed_rejoins = 0
            effects.append(ChannelInterrupted(channel.id, lost))
        return effects

    def connect_failed(self, reason: Disconnect) -> list[Effect]:
        """Handle an attempt to connect that has failed because of ``reason``."""
        self._lost = reason
        return [
            ChannelInterrupted(channel, Disconnected("not connected", reason))
            for channel in self._channels
        ]

    def close(self, reason: Disconnect | None = None) -> list[Effect]:
        """Handle the end of the last connection: every channel ends because of ``reason``."""
        effects = self.disconnect(reason)
        for channel in list(self._channels.values()):
            effects += self._end(channel, Disconnected("the connection has ended", reason))
        return effects

    # Joining and leaving.

    def join(
        self, topic: str, timeout: float, deadline: float, *, offline: bool = True
    ) -> tuple[int, list[Effect]]:
        """Join a topic.

        Args:
            topic: the topic to join.
            timeout: seconds for each later join.
            deadline: the deadline for the first join, including outages, on the caller's clock.
            offline: whether the join may wait for a connection.

        Returns:
            The number of the channel, and the effects.

        Raises:
            AlreadyJoined: the topic already has a channel.
            Disconnected: there is no connection, and ``offline`` is False.
        """
        if topic in self._topics:
            raise AlreadyJoined(f"{topic!r} is already joined, or being joined, on this socket")
        if not offline:
            self.check_connected(topic)
        channel = Membership(next(self._ids), topic, timeout)
        self._topics[topic] = self._channels[channel.id] = channel
        self._timers.set(channel.id, deadline)
        # The timeout is used only by later joins.
        return channel.id, [self._ask(channel, 0)] if self.connected else []

    def payload(self, number: int, attempt: int, payload: Any) -> list[Effect]:
        """Join with ``payload``, the result of :class:`GetPayload` with ``attempt``.

        The result of an attempt that has ended is ignored. ``number`` is the number of the channel.
        """
        channel = self._asking(number, attempt)
        if channel is None:
            return []
        ref = self._ref()
        channel.enter(ChannelPhase.JOINING)
        channel.join_ref = ref
        return [SendMessage(PhoenixMessage(ref, ref, channel.topic, JOIN, payload))]

    def payload_failed(
        self, number: int, attempt: int, error: Exception, now: float
    ) -> list[Effect]:
        """Handle an exception raised in place of the result of :class:`GetPayload`.

        As with a function that returns the URL, an OSError is temporary: a rejoin is repeated
        later. After any other exception, and in the first join, the channel ends.

        Args:
            number: the number of the channel.
            attempt: the attempt of :class:`GetPayload`; an attempt that has ended is ignored.
            error: the exception.
            now: the time in seconds.
        """
        channel = self._asking(number, attempt)
        if channel is None:
            return []
        if is_transient(HandshakeFailed(error=error)):
            return self._fail_attempt(channel, error, now)
        return self._end(channel, error)

    def _asking(self, number: int, attempt: int) -> Membership | None:
        """Return the channel with this ``number`` if ``attempt`` has not ended."""
        channel = self._channels.get(number)
        if channel is None or channel.attempt != attempt:
            return None
        return channel if channel.phase is ChannelPhase.ASKING else None

    def fail(self, number: int, error: Exception) -> list[Effect]:
        """End the channel with this ``number`` because of a local ``error``."""
        channel = self._channels.get(number)
        if channel is None:
            return []
        leave = self._leave_silently(channel)
        return [*self._end(channel, error), *leave]

    def leave(self, number: int, deadline: float, payload: Any = None) -> tuple[int, list[Effect]]:
        """Leave a channel in any phase; its topic may be joined again immediately.

        Args:
            number: the number of the channel.
            deadline: the deadline for the answer, on the caller's clock. After it, the leave is
                resolved with :exc:`PushTimeout`.
            payload: the payload of the message; by default ``{}``.

        Returns:
            The number of the leave, which is resolved like a push, and the effects.

        Raises:
            NotJoined: the channel has ended.
        """
        channel = self._get(number)
        payload = {} if payload is None else payload
        leave = Push(next(self._ids), LEAVE, payload, wants_reply=True, membership=channel)
        effects = self._end(channel, None, "the channel was left")
        if channel.join_ref is None:
            return leave.id, [*effects, ResolvePush(leave.id, LEFT)]
        self._expect_close(channel)
        return leave.id, [*effects, *self._pushes.leave(leave, deadline)]

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
            number: the number of the channel.
            event: the name of the event.
            payload: the payload of the message.
            deadline: the deadline for the reply, on the caller's clock. After it, the push is
                resolved with :exc:`PushTimeout`.
            wants_reply: False resolves the push with ``PushReply("sent", None)`` when it is sent.
            buffered: whether the push may wait for the channel to be joined.

        Returns:
            The number of the push, and the effects.

        Raises:
            NotJoined: the channel has ended, or is not joined and ``buffered`` is False.
            Disconnected: there is no connection, and ``buffered`` is False.
            BufferFull: too many pushes are already waiting.
        """
        channel = self._get(number)
        push = Push(next(self._ids), event, payload, wants_reply, channel)
        if channel.phase is ChannelPhase.JOINED:
            return push.id, self._pushes.send(push, deadline)
        if buffered:
            self._pushes.buffer(push, deadline)
            return push.id, []
        self.check_connected(channel.topic)
        raise NotJoined(f"{channel.topic!r} is not joined yet")

    def check_connected(self, topic: str) -> None:
        """Raise Disconnected if there is no connection on which ``topic`` can be used."""
        if not self.connected:
            raise Disconnected(f"not connected, so {topic!r} cannot be used", self._lost)

    def withdraw(self, number: int) -> None:
        """Withdraw the push with this ``number``: it is not sent, and its reply is ignored."""
        self._pushes.withdraw(number)

    # The server.

    def received(self, message: PhoenixMessage, now: float) -> list[Effect]:
        """Handle a ``message`` from the server at ``now``, in seconds."""
        if message.event == REPLY:
            return self._replied(message, now)
        channel = self._topics.get(message.topic)
        if channel is None or not channel.accepts(message.join_ref):
            return self._unmatched(message)
        if message.event == CLOSE:
            text = "the server closed the channel"
            return self._end(channel, None, text, message.payload)
        if message.event == ERROR:
            return self._crashed(channel, message.payload, now)
        return [DeliverMessage(channel.id, message)]

    def _unmatched(self, message: PhoenixMessage) -> list[Effect]:
        effects: list[Effect] = []
        if message.event in (CLOSE, ERROR):
            # If the channel has just crashed, Phoenix answers its leave only with phx_error.
            effects = self._pushes.closed(message.topic, message.join_ref)
        if not (effects or self._was_left(message)):
            self.ignored += 1
        if message.event in (CLOSE, ERROR) and message.join_ref is not None:
            self._left.pop(message.join_ref, None)
        return effects

    def _was_left(self, message: PhoenixMessage) -> bool:
        """Whether a message was in transit when its channel was left; this is normal."""
        if message.join_ref is None:
            return message.topic in self._left.values()
        return self._left.get(message.join_ref) == message.topic

    def _expect_close(self, channel: Membership) -> None:
        if channel.join_ref is not None:
            self._left[channel.join_ref] = channel.topic
            if len(self._left) > MAX_LEFT:
                del self._left[next(iter(self._left))]

    def _replied(self, message: PhoenixMessage, now: float) -> list[Effect]:
        payload, ref = message.payload, message.ref
        effects: list[Effect] = []
        if ref is not None and isinstance(payload, dict) and isinstance(payload.get("status"), str):
            reply = PushReply(payload["status"], payload.get("response"))
            channel = self._topics.get(message.topic)
            if channel is not None and channel.accepts(message.join_ref):
                if ref == channel.join_ref and channel.phase is ChannelPhase.JOINING:
                    return self._join_answered(channel, reply, now)
                effects = self._pushes.replied(channel, ref, reply)
            effects = effects or self._pushes.left(message.topic, ref, reply)
        if not (effects or self._was_left(message)):
            self.ignored += 1
        return effects

    def _crashed(self, channel: Membership, payload: Any, now: float) -> list[Effect]:
        text = f"the channel {channel.topic!r} crashed on the server: {payload!r}"
        lost = self._pushes.lose(channel, lambda: ChannelCrashed(text))
        return [*lost, *self._fail_attempt(channel, ChannelCrashed(text), now, payload)]

    # Time.

    def tick(self, now: float) -> list[Effect]:
        """Handle every deadline that has passed at ``now``, in seconds."""
        effects: list[Effect] = []
        while (number := self._timers.expired(now)) is not None:
            ended = self._pushes.expired(number)
            effects += self._join_expired(number, now) if ended is None else ended
        return effects

    def _ref(self) -> str:
        return str(next(self._refs))

    # The lifecycle of a channel.

    def _get(self, number: int) -> Membership:
        channel = self._channels.get(number)
        if channel is None:
            raise NotJoined("the channel has ended; join the topic again")
        return channel

    def _ask(self, channel: Membership, now: float) -> GetPayload:
        """Begin an attempt to join."""
        channel.enter(ChannelPhase.ASKING)
        channel.attempt += 1
        if channel.joined_once:
            # The first join has one deadline for all of its attempts.
            self._timers.set(channel.id, now + channel.timeout)
        return GetPayload(channel.id, channel.attempt)

    def _join_answered(self, channel: Membership, reply: PushReply, now: float) -> list[Effect]:
        if not reply.ok:
            return self._fail_attempt(channel, JoinRefused(channel.topic, reply.response), now)
        again = channel.joined_once
        channel.enter(ChannelPhase.JOINED)
        channel.joined_once, channel.failed_rejoins = True, 0
        self._timers.cancel(channel.id)
        joined = ChannelJoined(channel.id, reply.response, again, channel.topic)
        return [joined, *self._pushes.flush(channel)]

    def _join_expired(self, number: int, now: float) -> list[Effect]:
        channel = self._channels[number]
        if channel.phase is ChannelPhase.PAUSED:
            return [self._ask(channel, now)]
        # The server may still accept the join, so the leave is needed.
        leave = self._leave_silently(channel)
        text = f"joining {channel.topic!r} timed out"
        late = JoinTimeout(text if self._lost is None else f"{text}: {self._lost}")
        return [*leave, *self._fail_attempt(channel, late, now)]

    def _fail_attempt(
        self, channel: Membership, cause: Exception, now: float, payload: Any = None
    ) -> list[Effect]:
        """End a channel that was never joined; pause any other channel."""
        delays = self._delays
        if not (channel.joined_once and delays):
            return self._end(channel, cause, payload=payload)
        self._timers.set(channel.id, now + delays[min(channel.failed_rejoins, len(delays) - 1)])
        channel.failed_rejoins += 1
        channel.enter(ChannelPhase.PAUSED)
        channel.join_ref = None
        return [ChannelInterrupted(channel.id, cause)]

    def _leave_silently(self, channel: Membership) -> list[Effect]:
        """Send a leave whose answer is ignored, if a join was sent."""
        if channel.join_ref is None:
            return []
        self._expect_close(channel)
        leave = PhoenixMessage(channel.join_ref, self._ref(), channel.topic, LEAVE, {})
        return [SendMessage(leave)]

    def _end(
        self, channel: Membership, cause: Exception | None, text: str = "", payload: Any = None
    ) -> list[Effect]:
        """End a channel, after its pushes."""
        effects = self._pushes.end(channel, text or f"the channel has ended: {cause}")
        channel.enter(ChannelPhase.ENDED)
        del self._topics[channel.topic], self._channels[channel.id]
        self._timers.cancel(channel.id)
        return [*effects, ChannelEnded(channel.id, cause, payload, channel.topic)]
