"""Every channel that has not ended: how it is joined, joined again, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .effects import AskPayload, Effect, Ended, Interrupted, Joined, Send
from .errors import Disconnected, JoinRefused, JoinTimeout, NotJoined
from .membership import Membership, Phase
from .message import JOIN, LEAVE, Message, PushReply
from .pushes import Pushes
from .timers import Timers

__all__ = ["Joins"]


class Joins:
    """At most one channel for a topic, and one join of it that counts.

    Args:
        timers: get the deadlines of joins, and of the pauses between them.
        new_ref: makes a ref that was never used.
        pushes: end with their channel.
        delays: seconds before each attempt to join again; none of them: a channel ends instead.
    """

    def __init__(
        self,
        timers: Timers[int],
        new_ref: Callable[[], str],
        pushes: Pushes,
        delays: Iterable[float],
    ) -> None:
        self.topics: dict[str, Membership] = {}
        """By topic; what :attr:`numbers` has by number."""
        self.numbers: dict[int, Membership] = {}
        self._timers = timers
        self._new_ref = new_ref
        self._pushes = pushes
        self._delays = tuple(delays)

    def get(self, number: int) -> Membership:
        """A channel.

        Raises:
            NotJoined: it has ended.
        """
        channel = self.numbers.get(number)
        if channel is None:
            raise NotJoined("the channel has ended; join the topic again")
        return channel

    def add(self, channel: Membership, deadline: float) -> None:
        """A new channel, which is to be joined until ``deadline``."""
        self.topics[channel.topic] = self.numbers[channel.id] = channel
        self._timers.set(channel.id, deadline)

    # One attempt.

    def ask(self, channel: Membership, now: float) -> AskPayload:
        """Begin an attempt."""
        channel.enter(Phase.ASKING)
        channel.attempt += 1
        if channel.joined_once:
            # The deadline of a first join is one for all of its attempts.
            self._timers.set(channel.id, now + channel.timeout)
        return AskPayload(channel.id, channel.attempt)

    def payload(self, number: int, attempt: int, payload: Any) -> list[Effect]:
        """Send the join, unless the attempt is one that has been given up."""
        channel = self.numbers.get(number)
        if channel is None or channel.attempt != attempt or channel.phase is not Phase.ASKING:
            return []
        ref = self._new_ref()
        channel.enter(Phase.JOINING)
        channel.join_ref = ref
        return [Send(Message(ref, ref, channel.topic, JOIN, payload))]

    def answered(self, channel: Membership, reply: PushReply, now: float) -> list[Effect]:
        """The server lets us in, or not."""
        if not reply.ok:
            return self.set_back(channel, JoinRefused(channel.topic, reply.response), now)
        again = channel.joined_once
        channel.enter(Phase.JOINED)
        channel.joined_once, channel.setbacks = True, 0
        self._timers.cancel(channel.id)
        return [Joined(channel.id, reply.response, again), *self._pushes.flush(channel)]

    def set_back(
        self, channel: Membership, cause: Exception, now: float, payload: Any = None
    ) -> list[Effect]:
        """Not joined: the end of a first join, a pause for a channel that was joined before."""
        delays = self._delays
        if not (channel.joined_once and delays):
            return self.end(channel, cause, payload=payload)
        self._timers.set(channel.id, now + delays[min(channel.setbacks, len(delays) - 1)])
        channel.setbacks += 1
        channel.enter(Phase.PAUSED)
        channel.join_ref = None
        return [Interrupted(channel.id, cause)]

    def expired(self, number: int, now: float) -> list[Effect]:
        """A deadline, or a pause, is over."""
        channel = self.numbers[number]
        if channel.phase is Phase.PAUSED:
            return [self.ask(channel, now)]
        # The server may still answer, and would then think that we are in.
        goodbye = self.goodbye(channel)
        late = JoinTimeout(f"no answer to joining {channel.topic!r} in time")
        return [*goodbye, *self.set_back(channel, late, now)]

    def goodbye(self, channel: Membership) -> list[Effect]:
        """A leave whose answer is for nobody."""
        if channel.join_ref is None:
            return []
        return [Send(Message(channel.join_ref, self._new_ref(), channel.topic, LEAVE, {}))]

    # Ends.

    def disconnected(self) -> list[Effect]:
        """The connection is gone: every channel waits for another one."""
        effects: list[Effect] = []
        lost = "the connection was lost"
        for channel in list(self.numbers.values()):
            effects += self._pushes.lose(channel, Disconnected, lost)
            was_in = channel.phase is Phase.JOINED
            channel.enter(Phase.WAITING)
            channel.join_ref = None
            if not self._delays:
                effects += self.end(channel, Disconnected(lost))
            elif channel.joined_once:
                self._timers.cancel(channel.id)
                channel.setbacks = 0
                if was_in:
                    effects.append(Interrupted(channel.id, Disconnected(lost)))
        return effects

    def end(
        self, channel: Membership, cause: Exception | None, text: str = "", payload: Any = None
    ) -> list[Effect]:
        """The channel is over; its pushes learn it first."""
        effects = self._pushes.end(channel, text or f"the channel has ended: {cause}")
        channel.enter(Phase.ENDED)
        del self.topics[channel.topic], self.numbers[channel.id]
        self._timers.cancel(channel.id)
        return [*effects, Ended(channel.id, cause, payload)]
