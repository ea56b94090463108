"""Pushes and leaves without an outcome, and the deadlines of the state machine."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from .errors import BufferFull, ChannelClosed, PushTimeout
from .message import LEAVE, PhoenixMessage, PushReply
from .state import Effect, Membership, Push, ResolvePush, SendMessage

__all__ = ["LEFT", "Pushes", "Timers"]

KeyT = TypeVar("KeyT", bound=Hashable)

SPARE_ENTRIES = 64

SENT = PushReply("sent", None)
"""The outcome of a push that does not expect a reply."""

LEFT = PushReply("ok", {})
"""The outcome of a leave that the server does not have to answer."""


class Timers(Generic[KeyT]):
    """Deadlines by key, in a heap that may contain cancelled entries.

    Most deadlines are cancelled because the reply arrives first, so cancelling only removes a key
    from a dict. The heap is rebuilt when more than half of its entries are cancelled.
    """

    def __init__(self) -> None:
        self._due: dict[KeyT, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: KeyT, when: float) -> None:
        """Let ``key`` expire at ``when``, replacing its deadline; infinity means never."""
        self.cancel(key)
        if when == math.inf:
            return
        entry = (when, next(self._order))
        self._due[key] = entry
        heapq.heappush(self._heap, (*entry, key))
        if len(self._heap) > 2 * len(self._due) + SPARE_ENTRIES:
            self._heap = [(*due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: KeyT) -> None:
        """Remove the deadline of ``key``, if there is one."""
        self._due.pop(key, None)

    @property
    def next(self) -> float:
        """The earliest deadline; infinity if there is none."""
        heap = self._heap
        while heap:
            when, order, key = heap[0]
            if self._due.get(key) == (when, order):
                return when
            heapq.heappop(heap)
        return math.inf

    def expired(self, now: float) -> KeyT | None:
        """Remove and return the key with the earliest deadline, or None if none has passed."""
        if self.next > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key


class Pushes:
    """Sends pushes and leaves, and resolves each of them once.

    Args:
        timers: the timers for their deadlines.
        new_ref: returns a ref that was never used.
        max_buffer: the number of pushes per channel that may wait to be sent.
    """

    def __init__(self, timers: Timers[int], new_ref: Callable[[], str], max_buffer: int) -> None:
        self._timers = timers
        self._new_ref = new_ref
        self._max_buffer = max_buffer
        self._pushes: dict[int, Push] = {}
        self._leaves: dict[str, Push] = {}

    def __len__(self) -> int:
        return len(self._pushes)

    # Pushes.

    def buffer(self, push: Push, deadline: float) -> None:
        """Keep a push until :meth:`flush`.

        Raises:
            BufferFull: ``max_buffer`` pushes of the channel are already waiting.
        """
        channel = push.membership
        if len(channel.buffer) >= self._max_buffer:
            raise BufferFull(
                f"{self._max_buffer} pushes are already waiting for {channel.topic!r} to be joined"
            )
        channel.buffer[push.id] = push
        self._pushes[push.id] = push
        self._timers.set(push.id, deadline)

    def send(self, push: Push, deadline: float) -> list[Effect]:
        """Send a push now."""
        if push.wants_reply:
            self._pushes[push.id] = push
            self._timers.set(push.id, deadline)
        return self._send(push)

    def flush(self, channel: Membership) -> list[Effect]:
        """Send all buffered pushes of a channel, oldest first."""
        effects: list[Effect] = []
        waiting = list(channel.buffer.values())
        channel.buffer.clear()
        for push in waiting:
            effects += self._send(push)
            if not push.wants_reply:
                self._forget(push)
        return effects

    def _send(self, push: Push) -> list[Effect]:
        # A push gets its ref only here; a buffered push has none.
        push.ref = ref = self._new_ref()
        channel = push.membership
        message = PhoenixMessage(channel.join_ref, ref, channel.topic, push.event, push.payload)
        if push.wants_reply:
            channel.sent[ref] = push
            return [SendMessage(message, push.id)]
        return [SendMessage(message, push.id), ResolvePush(push.id, SENT)]

    def withdraw(self, number: int) -> None:
        """Withdraw a push: it will not be sent, and its reply is ignored."""
        push = self._pushes.get(number)
        if push is not None:
            self._forget(push)

    def replied(self, channel: Membership, ref: str, reply: PushReply) -> list[Effect]:
        """Resolve the push that ``ref`` belongs to; no effects if there is none."""
        push = channel.sent.get(ref)
        return [] if push is None else [self._resolve(push, reply)]

    # Leaves.

    def leave(self, leave: Push, deadline: float) -> list[Effect]:
        """Send a leave, which is resolved like a push."""
        effects = self.send(leave, deadline)
        assert leave.ref is not None
        self._leaves[leave.ref] = leave
        return effects

    def left(self, topic: str, ref: str, reply: PushReply) -> list[Effect]:
        """Resolve the leave that ``ref`` belongs to; no effects if there is none."""
        leave = self._leaves.get(ref)
        if leave is None or leave.membership.topic != topic:
            return []
        return [self._resolve(leave, reply)]

    def closed(self, topic: str, join_ref: str | None) -> list[Effect]:
        """Resolve the leave that is confirmed by the end of this ``join_ref``, if any."""
        for leave in self._leaves.values():
            if (leave.membership.topic, leave.membership.join_ref) == (topic, join_ref):
                return [self._resolve(leave, LEFT)]
        return []

    def disconnected(self) -> list[Effect]:
        """Resolve all leaves: the server keeps no channel of a lost connection."""
        return [self._resolve(leave, LEFT) for leave in list(self._leaves.values())]

    # Failures.

    def expired(self, number: int) -> list[Effect] | None:
        """Resolve a push or leave whose deadline has passed; None if no such request exists."""
        push = self._pushes.get(number)
        if push is None:
            return None
        if push.event == LEAVE:
            text = f"no reply to leaving {push.membership.topic!r}"
        elif push.ref:
            text = f"no reply to {push.event!r}"
        else:
            text = f"the channel was not joined in time for {push.event!r}"
        return [self._resolve(push, PushTimeout(text))]

    def lose(self, channel: Membership, error: Callable[[], Exception]) -> list[Effect]:
        """Fail all pushes of a channel that were sent; buffered pushes keep waiting."""
        return [self._resolve(push, error()) for push in list(channel.sent.values())]

    def end(self, channel: Membership, text: str) -> list[Effect]:
        """Fail all pushes of a channel."""
        waiting = [*channel.sent.values(), *channel.buffer.values()]
        return [self._resolve(push, ChannelClosed(text)) for push in waiting]

    def _resolve(self, push: Push, outcome: PushReply | Exception) -> ResolvePush:
        self._forget(push)
        return ResolvePush(push.id, outcome)

    def _forget(self, push: Push) -> None:
        self._pushes.pop(push.id, None)
        self._timers.cancel(push.id)
        push.membership.buffer.pop(push.id, None)
        if push.ref is not None:
            push.membership.sent.pop(push.ref, None)
            self._leaves.pop(push.ref, None)
