"""Channels that have not ended: how they are joined, joined again, and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .errors import Disconnected, JoinRefused, JoinTimeout, NotJoined
from .message import JOIN, LEAVE, PhoenixMessage, PushReply
from .pushes import Pushes, Timers
from .state import (
    ChannelEnded,
    ChannelInterrupted,
    ChannelJoined,
    ChannelPhase,
    Effect,
    GetPayload,
    Membership,
    SendMessage,
)

__all__ = ["Joins"]


class Joins:
    """At most one channel per topic, and at most one current join per channel.

    Args:
        timers: for the deadlines of joins and of the pauses between them.
        new_ref: returns a ref that was never used.
        pushes: end with their channel.
        delays: seconds before each attempt to join again; empty to end a channel instead.
    """

    def __init__(
        self,
        timers: Timers[int],
        new_ref: Callable[[], str],
        pushes: Pushes,
        delays: Iterable[float],
    ) -> None:
        self.topics: dict[str, Membership] = {}
        """Channels by topic."""
        self.numbers: dict[int, Membership] = {}
        """The same channels by number."""
        self._timers = timers
        self._new_ref = new_ref
        self._pushes = pushes
        self._delays = tuple(delays)

    def get(self, number: int) -> Membership:
        """Return a channel.

        Raises:
            NotJoined: it has ended.
        """
        channel = self.numbers.get(number)
        if channel is None:
            raise NotJoined("the channel has ended; join the topic again")
        return channel

    def add(self, channel: Membership, deadline: float) -> None:
        """Add a channel that must be joined before ``deadline``."""
        self.topics[channel.topic] = self.numbers[channel.id] = channel
        self._timers.set(channel.id, deadline)

    def ask(self, channel: Membership, now: float) -> GetPayload:
        """Begin an attempt to join."""
        channel.enter(ChannelPhase.ASKING)
        channel.attempt += 1
        if channel.joined_once:
            # The first join has one deadline for all of its attempts.
            self._timers.set(channel.id, now + channel.timeout)
        return GetPayload(channel.id, channel.attempt)

    def payload(self, number: int, attempt: int, payload: Any) -> list[Effect]:
        """Send the join, unless the attempt is over."""
        channel = self.numbers.get(number)
        if (
            channel is None
            or channel.attempt != attempt
            or channel.phase is not ChannelPhase.ASKING
        ):
            return []
        ref = self._new_ref()
        channel.enter(ChannelPhase.JOINING)
        channel.join_ref = ref
        return [SendMessage(PhoenixMessage(ref, ref, channel.topic, JOIN, payload))]

    def answered(self, channel: Membership, reply: PushReply, now: float) -> list[Effect]:
        """Handle the server's answer to a join."""
        if not reply.ok:
            return self.fail_attempt(channel, JoinRefused(channel.topic, reply.response), now)
        again = channel.joined_once
        channel.enter(ChannelPhase.JOINED)
        channel.joined_once, channel.failed_rejoins = True, 0
        self._timers.cancel(channel.id)
        return [ChannelJoined(channel.id, reply.response, again), *self._pushes.flush(channel)]

    def fail_attempt(
        self, channel: Membership, cause: Exception, now: float, payload: Any = None
    ) -> list[Effect]:
        """End a channel that was never joined; pause one that was."""
        delays = self._delays
        if not (channel.joined_once and delays):
            return self.end(channel, cause, payload=payload)
        self._timers.set(channel.id, now + delays[min(channel.failed_rejoins, len(delays) - 1)])
        channel.failed_rejoins += 1
        channel.enter(ChannelPhase.PAUSED)
        channel.join_ref = None
        return [ChannelInterrupted(channel.id, cause)]

    def expired(self, number: int, now: float) -> list[Effect]:
        """Handle the end of a join's deadline or of a pause."""
        channel = self.numbers[number]
        if channel.phase is ChannelPhase.PAUSED:
            return [self.ask(channel, now)]
        # The server may still accept the join, so the leave is needed.
        leave = self.leave_silently(channel)
        late = JoinTimeout(f"no answer to joining {channel.topic!r} in time")
        return [*leave, *self.fail_attempt(channel, late, now)]

    def leave_silently(self, channel: Membership) -> list[Effect]:
        """Send a leave whose answer is ignored, if a join was sent."""
        if channel.join_ref is None:
            return []
        return [
            SendMessage(PhoenixMessage(channel.join_ref, self._new_ref(), channel.topic, LEAVE, {}))
        ]

    def disconnected(self) -> list[Effect]:
        """Let every channel wait for the next connection, or end it if there are no delays."""
        effects: list[Effect] = []
        lost = "the connection was lost"
        for channel in list(self.numbers.values()):
            effects += self._pushes.lose(channel, Disconnected, lost)
            was_joined = channel.phase is ChannelPhase.JOINED
            channel.enter(ChannelPhase.WAITING)
            channel.join_ref = None
            if not self._delays:
                effects += self.end(channel, Disconnected(lost))
            elif channel.joined_once:
                self._timers.cancel(channel.id)
                channel.failed_rejoins = 0
                if was_joined:
                    effects.append(ChannelInterrupted(channel.id, Disconnected(lost)))
        return effects

    def end(
        self, channel: Membership, cause: Exception | None, text: str = "", payload: Any = None
    ) -> list[Effect]:
        """End a channel, after its pushes."""
        effects = self._pushes.end(channel, text or f"the channel has ended: {cause}")
        channel.enter(ChannelPhase.ENDED)
        del self.topics[channel.topic], self.numbers[channel.id]
        self._timers.cancel(channel.id)
        return [*effects, ChannelEnded(channel.id, cause, payload)]
