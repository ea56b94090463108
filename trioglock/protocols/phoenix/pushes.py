"""Pushes without an outcome: those that wait to be sent, and those that wait for their reply."""

from __future__ import annotations

from collections.abc import Callable

from .effects import Effect, Resolve, Send
from .errors import BufferFull, ChannelClosed, PushTimeout
from .membership import Leave, Membership, Push
from .message import LEAVE, Message, PushReply
from .timers import Timers

__all__ = ["Pushes"]

SENT = PushReply("sent", None)
"""The outcome of a push that wants no reply."""


class Pushes:
    """Resolves each push and each leave once.

    Args:
        timers: get their deadlines.
        new_ref: makes a ref that was never used.
        max_buffer: pushes of one channel that may wait to be sent.
    """

    def __init__(self, timers: Timers[int], new_ref: Callable[[], str], max_buffer: int) -> None:
        self._timers = timers
        self._new_ref = new_ref
        self._max_buffer = max_buffer
        self._pushes: dict[int, Push] = {}
        self._leaves: dict[int, Leave] = {}
        self._leave_refs: dict[str, Leave] = {}

    def __len__(self) -> int:
        return len(self._pushes) + len(self._leaves)

    # Pushing.

    def buffer(self, push: Push, deadline: float) -> None:
        """Keep a push until :meth:`flush`.

        Raises:
            BufferFull: too many wait already.
        """
        channel = push.membership
        if len(channel.buffer) >= self._max_buffer:
            raise BufferFull(
                f"{self._max_buffer} pushes wait for {channel.topic!r} to be joined already"
            )
        channel.buffer[push.id] = push
        self._pushes[push.id] = push
        self._timers.set(push.id, deadline)

    def send(self, push: Push, deadline: float) -> list[Effect]:
        """Send a push."""
        if push.wants_reply:
            self._pushes[push.id] = push
            self._timers.set(push.id, deadline)
        return self._send(push)

    def flush(self, channel: Membership) -> list[Effect]:
        """Send all that waits, oldest first: the channel is joined."""
        effects: list[Effect] = []
        waiting = list(channel.buffer.values())
        channel.buffer.clear()
        for push in waiting:
            effects += self._send(push)
            if not push.wants_reply:
                self._forget(push)
        return effects

    def _send(self, push: Push) -> list[Effect]:
        # The ref is made here and nowhere else: a push that has waited has had none.
        push.ref = ref = self._new_ref()
        channel = push.membership
        message = Message(channel.join_ref, ref, channel.topic, push.event, push.payload)
        if push.wants_reply:
            channel.sent[ref] = push
            return [Send(message, push.id)]
        return [Send(message, push.id), Resolve(push.id, SENT)]

    def withdraw(self, number: int) -> None:
        """Nobody waits for a push, or it cannot be sent: whatever comes for it is ignored."""
        push = self._pushes.get(number)
        if push is not None:
            self._forget(push)

    def replied(self, channel: Membership, ref: str, reply: PushReply) -> list[Effect]:
        """A reply has come; nothing if none of the channel's pushes waits for it."""
        push = channel.sent.get(ref)
        if push is None:
            return []
        self._forget(push)
        return [Resolve(push.id, reply)]

    # Leaving.

    def leave(self, number: int, topic: str, join_ref: str, deadline: float) -> Send:
        """Send a leave, which has an outcome as a push has."""
        ref = self._new_ref()
        self._leaves[number] = self._leave_refs[ref] = Leave(number, topic, join_ref, ref)
        self._timers.set(number, deadline)
        return Send(Message(join_ref, ref, topic, LEAVE, {}), number)

    def left(self, topic: str, ref: str | None, reply: PushReply) -> list[Effect]:
        """The answer to a leave has come; nothing if it is none."""
        leave = None if ref is None else self._leave_refs.get(ref)
        return [] if leave is None or leave.topic != topic else self._resolve(leave, reply)

    def closed(self, topic: str, join_ref: str | None) -> list[Effect]:
        """A ``phx_close`` confirms the leave that has its ``join_ref``, too."""
        for leave in self._leaves.values():
            if (leave.topic, leave.join_ref) == (topic, join_ref):
                return self._resolve(leave, PushReply("ok", {}))
        return []

    def disconnected(self) -> list[Effect]:
        """A server has no channels without a connection: everything has been left."""
        effects: list[Effect] = []
        for leave in list(self._leaves.values()):
            effects += self._resolve(leave, PushReply("ok", {}))
        return effects

    def _resolve(self, leave: Leave, outcome: PushReply | Exception) -> list[Effect]:
        del self._leaves[leave.id], self._leave_refs[leave.ref]
        self._timers.cancel(leave.id)
        return [Resolve(leave.id, outcome)]

    # Ends without a reply.

    def expired(self, number: int) -> list[Effect] | None:
        """A deadline has come; None if it was none of ours."""
        push = self._pushes.get(number)
        if push is not None:
            self._forget(push)
            what = "no reply to" if push.ref else "the channel was not joined in time for"
            return [Resolve(number, PushTimeout(f"{what} {push.event!r}"))]
        leave = self._leaves.get(number)
        if leave is not None:
            late = PushTimeout(f"no answer to leaving {leave.topic!r}")
            return self._resolve(leave, late)
        return None

    def lose(self, channel: Membership, kind: type[Exception], text: str) -> list[Effect]:
        """What has been sent will have no reply; what waits goes on waiting."""
        effects: list[Effect] = []
        for push in list(channel.sent.values()):
            self._forget(push)
            effects.append(Resolve(push.id, kind(text)))
        return effects

    def end(self, channel: Membership, text: str) -> list[Effect]:
        """The channel has ended, and with it all of its pushes."""
        effects = self.lose(channel, ChannelClosed, text)
        for push in list(channel.buffer.values()):
            self._forget(push)
            effects.append(Resolve(push.id, ChannelClosed(text)))
        return effects

    def _forget(self, push: Push) -> None:
        self._pushes.pop(push.id, None)
        self._timers.cancel(push.id)
        push.membership.buffer.pop(push.id, None)
        if push.ref is not None:
            push.membership.sent.pop(push.ref, None)
