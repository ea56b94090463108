"""Replays: the events that one member of a topic has missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..connection.fanout import Fanout
from ..pubsub import Gap, Hub, Message
from ..pubsub.history import PAGE_BYTES, MessageHistory, id_before, parse_id, size_of
from ..pubsub.message import Event
from ..pubsub.patterns import ChannelFilter
from ..pubsub.queue import make_queue
from ..pubsub.queued_subscriber import QueuedSubscriber
from .history import EVERYTHING

if TYPE_CHECKING:
    from .actor import ChannelActor
    from .topics import TopicSubscriber

__all__ = ["Replay"]

EVENTS_PER_TURN = 64
"""Other tasks run after this many events."""

MAX_EARLY = 2**14
"""Maximum total size of events that are kept until they can be sent.

If there are more, they are read again later.
"""


class Replay(QueuedSubscriber):
    """Sends the events that one member has missed, and then newer ones.

    The topic passes it all new events until :meth:`take` returns False.

    Args:
        member: the member.
        topic: the topic.
        hub: the hub, whose broker keeps a history of the topic.
    """

    def __init__(self, member: ChannelActor, topic: TopicSubscriber, hub: Hub) -> None:
        max_bytes = min(hub.max_queue_bytes, PAGE_BYTES)
        queue = make_queue(hub.max_queue, "resume", max_bytes=max_bytes, gaps=True)
        channels = ChannelFilter(topic.channel, literal=True, everyone=False)
        history = hub._topic_history()  # noqa: SLF001 - a part of the package
        super().__init__(channels, queue, hub.counters, history)
        self._history: MessageHistory = history
        self._member = member
        self._topic = topic
        self._is_sending = True
        self._is_cancelled = False

    async def start(self, after: str | None) -> bool:
        """Read the first events.

        Args:
            after: the id of the last known event; ``EVERYTHING`` for all events that are kept,
                None for the latest one.

        Returns:
            Whether events after the last known one may be missing.

        Raises:
            BrokerUnavailable, BrokerError: the history cannot be read.
        """
        position = after
        if position is None:
            position = self._history.last_of(self._topic.channel)
            for latest in await self._history.latest(self.channels, 1):
                assert latest.id is not None
                position = id_before(latest.id)
        self.resume_after(position)
        await self.read_history(required=True)
        has_gap = bool(self._replay) and isinstance(self._replay[-1], Gap)
        if has_gap:
            position = self._replay.pop().id or position
        if size_of(self._replay) > MAX_EARLY:
            self._replay.clear()
            self._skip_until = None
            self.queue.discard(None)
            self.resume_after(position)
        return has_gap and after is not None and after != EVERYTHING

    def put(self, event: Event) -> None:
        self.take(event)

    def take(self, event: Event) -> bool:
        """Accept an event; return False if the member can receive it and later ones directly."""
        if self.resuming and not self.admits(event):
            return True
        if self._is_sending:
            self.enqueue(event)
        return self._is_sending

    def finish(self) -> bool:
        """Let the member receive the next events directly, if none are waiting; return whether."""
        if len(self) or self.is_behind:
            return False
        self._is_sending = False
        if not self._expects_duplicates:
            self._topic.replays.pop(self._member, None)
        return True

    async def send(self) -> None:
        """Send the events until none are waiting."""
        while not (self._is_cancelled or self.finish()):
            if len(self):
                await self._send_waiting()
                continue
            # The server does not keep a page for each topic of a client.
            async with self._member.outgoing.page_lock:
                await self._member.outgoing.wait_space()
                if not self._is_cancelled:
                    await self.read_history()
                    if not self._member.hooks.intercept:  # a hook may be slow
                        await self._send_waiting()

    async def _send_waiting(self) -> None:
        member, count = self._member, 0
        while len(self) and not self._is_cancelled:
            event = self.pop()
            if isinstance(event, Gap):
                member.lose_events(event)
                return
            self._deliver(event)
            count += 1
            if count % EVENTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            await member.outgoing.wait_space()
            if member.hooks.intercept:
                await member.wait_idle()

    @property
    def _expects_duplicates(self) -> bool:
        """Whether the hub has yet to receive some of the events that were read from the history."""
        until = self._skip_until
        return until is not None and parse_id(self._history.last_of(self._topic.channel)) < until

    def _deliver(self, message: Message) -> None:
        frame, origin = self._topic.read(message)
        if frame is not None and (origin is None or origin != self._member.origin):
            self._topic.deliver(frame, [self._member])
            Fanout.current().schedule()

    def end(self) -> None:
        self._is_cancelled = True
        self.clear()
