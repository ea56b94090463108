"""A channel, as a program sees it: push to it, iterate it, leave it."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from ...errors import ConnectionClosedOK
from .errors import ChannelClosed, Disconnected
from .feed import Feed, Payload
from .message import PushReply

__all__ = ["Calls", "Channel"]


class Calls(Protocol):
    """What a channel asks of its socket."""

    def is_joined(self, channel: int) -> bool:
        """Whether it is joined at this moment."""

    async def push(
        self, channel: Channel, event: str, payload: Payload, timeout: float, *, wants_reply: bool
    ) -> PushReply:
        """See :meth:`Channel.push`."""

    async def leave(self, channel: Channel, timeout: float) -> None:
        """See :meth:`Channel.leave`."""

    def closed_error(self) -> Exception | None:
        """How the connection ended; None if it has not."""


class Channel:
    """One topic of a socket, made by :meth:`PhoenixSocket.join`.

    Iterate it for what the server pushes and broadcasts::

        async for event, payload in channel: ...

    The loop goes on over crashes, outages and the joins that follow them. It ends quietly when you
    leave, when the server closes the channel, and when the connection closes with 1000 or 1001.
    """

    def __init__(self, calls: Calls, topic: str, timeout: float, feed: Feed) -> None:
        self.topic: str = topic
        self.timeout: float = timeout
        """Seconds that a join, a push and a leave may take, where nothing else is said."""
        self.id: int = 0
        """What the state machine calls it; unique on its socket."""
        self._calls = calls
        self._feed = feed
        self._items = feed.items

    def __repr__(self) -> str:
        state = "closed" if self.closed else "joined" if self.joined else "not joined"
        return f"<Channel {self.topic!r}, {state}>"

    # What is known.

    @property
    def joined(self) -> bool:
        """Whether it is joined at this moment; where it is not, pushes wait for that."""
        return self._calls.is_joined(self.id)

    @property
    def closed(self) -> bool:
        """Whether it has ended. What came before can still be taken."""
        return self._feed.ended

    @property
    def response(self) -> Any:
        """What the server answered to the latest join."""
        return self._feed.response

    @property
    def join_count(self) -> int:
        """How often it was joined. If that grows, messages may have been missed between."""
        return self._feed.joins

    @property
    def last_error(self) -> Exception | None:
        """Why it is not joined for the time being: a crash, a refusal, a lost connection."""
        return self._feed.last_error

    @property
    def dropped(self) -> int:
        """Messages that a full queue has lost."""
        return self._feed.dropped

    # Pushing.

    async def wait_joined(self) -> Any:
        """Wait until the first join has been answered.

        Returns:
            The server's response.

        Raises:
            JoinRefused, JoinTimeout, ChannelCrashed: it was not let in.
            ChannelClosed: it was left, or closed, before.
            Disconnected: the connection has ended.
            Exception: whatever the function for the payload raised.
        """
        return await self._feed.wait_decided()

    async def push(
        self, event: str, payload: Payload = None, *, timeout: float | None = None
    ) -> PushReply:
        """Push an event and wait for the reply.

        While the channel is not joined, for a crash or an outage, the push waits for that.

        Args:
            event: its name.
            payload: what JSON can say, or bytes-like; ``{}`` by default.
            timeout: seconds for all of it; by default the channel's.

        Returns:
            The reply, whatever its status.

        Raises:
            PushTimeout: none came in time. Not every event has a reply: see :meth:`send`.
            Disconnected: the connection was lost, so no reply will come.
            ChannelClosed: the channel has ended, or crashed, meanwhile.
            NotJoined: it had ended before.
            BufferFull: too many pushes wait.
            InvalidMessage, EncodeError: the payload cannot be sent.
            InvalidOption: the timeout is none.
            ConnectionClosed: the connection has ended.
            UsageError: called inside a callback.
        """
        seconds = self.timeout if timeout is None else timeout
        return await self._calls.push(self, event, payload, seconds, wants_reply=True)

    async def send(
        self, event: str, payload: Payload = None, *, timeout: float | None = None
    ) -> None:
        """Push an event, and return when it is on its way: no reply is waited for.

        Args:
            event: its name.
            payload: as for :meth:`push`.
            timeout: seconds that it may wait for the channel to be joined.

        Raises:
            PushTimeout: it was not sent in time, and never will be.
            PhoenixError, TrioglockError: as :meth:`push`.
        """
        seconds = self.timeout if timeout is None else timeout
        await self._calls.push(self, event, payload, seconds, wants_reply=False)

    async def leave(self, *, timeout: float | None = None) -> None:
        """Leave the topic and wait for the server's answer; harmless if the channel has ended.

        Args:
            timeout: seconds to wait for it; by default the channel's.

        Raises:
            PushTimeout: there was none; the channel has ended all the same.
        """
        await self._calls.leave(self, self.timeout if timeout is None else timeout)

    # Receiving.

    async def receive(self) -> tuple[str, Any]:
        """The next message: its event and its payload. A cancelled call loses none.

        Raises:
            ChannelClosed: the channel has ended and everything was taken.
            ConnectionClosed: the connection has.
            Exception: whatever the function for the payload of a later join raised.
        """
        if await self._feed.wait():
            return self._items.popleft()
        raise self._error()

    def receive_nowait(self) -> tuple[str, Any]:
        """The next message, if there is one.

        Raises:
            trio.WouldBlock: there is none yet.
            ChannelClosed, ConnectionClosed, Exception: as :meth:`receive`.
        """
        if self._items:
            return self._items.popleft()
        raise self._error() if self.closed else trio.WouldBlock

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        if await self._feed.wait():
            return self._items.popleft()
        error = self._error()
        if self._feed.cause is None or isinstance(error, ConnectionClosedOK):
            raise StopAsyncIteration
        raise error

    def _error(self) -> Exception:
        cause = self._feed.cause
        if isinstance(cause, Disconnected):
            return self._calls.closed_error() or cause
        return cause or ChannelClosed(f"{self.topic!r} was left, or closed by the server")
