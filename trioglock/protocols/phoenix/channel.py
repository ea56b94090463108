"""A joined topic: push to it, iterate over it, leave it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import trio

from ...errors import ConnectionClosedOK, InvalidOption
from ...options import check_seconds, check_whole
from .errors import ChannelClosed, ChannelOverflow, Disconnected, InvalidMessage
from .message import PhoenixMessage, PushReply, check_event
from .presence import Presence

if TYPE_CHECKING:
    from .hooks import ChannelHooks

__all__ = ["Channel", "ChannelQueue", "ChannelStatus", "Overflow", "Payload", "copy_payload"]

Payload: TypeAlias = Any
"""A JSON value, or a bytes-like object for a binary message."""

Overflow: TypeAlias = Literal["close", "drop_oldest", "drop_newest"]
"""What happens when the queue is full. Waiting is impossible: channels share a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatus:
    """The status of a channel, from :meth:`Channel.watch`.

    Args:
        joined: whether the channel is joined.
        join_count: the number of joins. If it has increased, messages may have been missed.
        response: the server's response to the latest join.
        error: why the channel is not joined, or why it has ended; None if it is joined, was left,
            or was closed by the server.
        ended: whether this is the last status.
    """

    joined: bool
    join_count: int
    response: Any
    error: Exception | None
    ended: bool


class ChannelQueue:
    """The received messages of a channel, its presence, and the result of its joins."""

    def __init__(
        self,
        topic: str,
        payload: Payload | Callable[[], Payload | Awaitable[Payload]],
        max_queue: int | None,
        overflow: Overflow,
        presence: Presence | None,
        id_field: str | None,
    ) -> None:
        if not (id_field is None or isinstance(id_field, str)):
            raise InvalidOption(f"id_field must be a str or None, not {id_field!r}")
        check_whole("max_queue", max_queue, least=1)
        if overflow not in get_args(Overflow):
            raise InvalidOption(
                f"overflow must be 'close', 'drop_oldest' or 'drop_newest', not {overflow!r}"
            )
        self.items: deque[tuple[str, Any]] = deque()
        self.response: Any = None
        self.join_count: int = 0
        self.dropped: int = 0
        self.ended: bool = False
        self.cause: Exception | None = None
        """Why the channel ended; None if it was left or closed."""
        self.last_error: Exception | None = None
        self._topic = topic
        self._payload = payload
        self._max_queue = max_queue
        self._overflow = overflow
        self._presence = presence
        self._id_field = id_field
        self._last_id: Any = None
        self._answered = trio.Event()
        self._receivers = trio.lowlevel.ParkingLot()
        self.changes: int = 0
        """The number of changes of the status."""
        self.watchers: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def status(self) -> ChannelStatus:
        """Return the current status."""
        error = self.cause if self.ended else self.last_error
        joined = self.join_count > 0 and error is None and not self.ended
        return ChannelStatus(
            joined=joined,
            join_count=self.join_count,
            response=self.response,
            error=error,
            ended=self.ended,
        )

    def _changed(self) -> None:
        self.changes += 1
        self.watchers.unpark_all()

    async def wait_joined(self) -> Any:
        """Wait for the first join and return its response, or raise its error."""
        await self._answered.wait()
        if not self.join_count:
            raise self.cause or ChannelClosed(
                f"{self._topic!r} was left or closed before it was joined"
            )
        return self.response

    async def wait(self) -> bool:
        """Wait for an item and return True, or False if the channel has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.items:
            if self.ended:
                return False
            await self._receivers.park()
        return True

    def get_payload(self) -> Any:
        """Return the payload of the next join, or an awaitable that returns it."""
        return self._payload() if callable(self._payload) else self._payload

    def add_last_id(self, payload: Any) -> Any:
        """Return the payload of a join with the id of the newest event, if there is one.

        Raises:
            InvalidMessage: the payload is not a JSON object.
        """
        if self._last_id is None:
            return payload
        if not isinstance(payload, dict):
            raise InvalidMessage("with id_field, the payload of a join must be a dict")
        return {**payload, "after": self._last_id}

    def on_joined(self, response: Any) -> None:
        """Record an accepted join."""
        self.response, self.last_error = response, None
        self.join_count += 1
        self._answered.set()
        self._changed()

    def on_interrupted(self, cause: Exception) -> None:
        """Record that the channel is not joined at the moment, but will be joined again."""
        self.last_error = cause
        self._changed()

    def on_ended(self, cause: Exception | None) -> None:
        """Record the end and wake up every waiting task."""
        self.ended, self.cause = True, cause
        self._answered.set()
        self._receivers.unpark_all()
        self._changed()

    def on_message(self, message: PhoenixMessage, join_ref: str | None) -> Exception | None:
        """Queue a message; return an error if the queue is full and the channel must end."""
        event, payload = message.event, message.payload
        if self._presence is not None and self._presence.receive(event, payload, join_ref):
            return None
        if self._id_field is not None and isinstance(payload, dict):
            event_id = payload.get(self._id_field)
            if isinstance(event_id, str):  # the keys of presence_state are names of any kind
                self._last_id = event_id
        items = self.items
        limit = self._max_queue
        if limit is not None and len(items) >= limit:
            self.dropped += 1
            match self._overflow:
                case "close":
                    return ChannelOverflow(
                        f"left {self._topic!r} because its queue was full (max_queue={limit})"
                    )
                case "drop_newest":
                    return None
                case "drop_oldest":
                    items.popleft()
        items.append((event, payload))
        if self._receivers:
            self._receivers.unpark()
        return None


class _Statuses(AsyncIterator[ChannelStatus]):
    """See :meth:`Channel.watch`. Unlike an async generator, it needs no cleanup."""

    def __init__(self, queue: ChannelQueue) -> None:
        self._queue = queue
        self._seen = -1
        self._ended = False

    async def __anext__(self) -> ChannelStatus:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended:
            raise StopAsyncIteration
        while self._seen == self._queue.changes:
            await self._queue.watchers.park()
        self._seen = self._queue.changes
        status = self._queue.status()
        self._ended = status.ended
        return status


class Channel:
    """A topic joined on a socket, as returned by :meth:`PhoenixSocket.join`.

    Iterate over it to receive pushes and broadcasts from the server::

        async for event, payload in channel: ...

    The loop continues across crashes and outages, after which the topic is joined again. It ends
    when you leave, when the server closes the channel, or when the connection closes with 1000,
    1001 or no code.
    """

    def __init__(
        self, hooks: ChannelHooks, topic: str, timeout: float, queue: ChannelQueue
    ) -> None:
        self.topic: str = topic
        self.timeout: float = timeout
        """Default timeout of each join, push and leave request, in seconds."""
        self.id: int = 0
        """The number of the channel in the state machine, unique on its socket."""
        self._hooks = hooks
        self._queue = queue
        self._items = queue.items

    def __repr__(self) -> str:
        state = "closed" if self.closed else "joined" if self.joined else "not joined"
        return f"<Channel {self.topic!r}, {state}>"

    # State.

    @property
    def joined(self) -> bool:
        """Whether the channel is joined now. While it is not, pushes wait."""
        return self._hooks.is_joined(self.id)

    @property
    def closed(self) -> bool:
        """Whether the channel has ended. Messages received before then can still be read."""
        return self._queue.ended

    @property
    def response(self) -> Any:
        """The server's response to the latest join."""
        return self._queue.response

    @property
    def join_count(self) -> int:
        """The number of joins. If it increases, messages may have been missed."""
        return self._queue.join_count

    @property
    def last_error(self) -> Exception | None:
        """Why the channel is not joined at the moment: a crash, a refusal or a lost connection."""
        return self._queue.last_error

    def watch(self) -> AsyncIterator[ChannelStatus]:
        """Iterate over the status of the channel, to notice outages and rejoins.

        ::

            async for status in channel.watch():
                if status.joined:
                    show(status.response)  # after every join; missed messages are not repeated
                else:
                    show_offline(status.error)

        The first status is the current one; then a status follows each change. A slow loop receives
        only the latest status. The loop ends after the status with ``ended``. It does not raise
        errors; :meth:`receive` does.
        """
        return _Statuses(self._queue)

    @property
    def dropped(self) -> int:
        """The number of messages dropped because the queue was full."""
        return self._queue.dropped

    # Sending.

    async def wait_joined(self) -> Any:
        """Wait until the server has answered the first join.

        Returns:
            The server's response.

        Raises:
            JoinRefused, JoinTimeout, ChannelCrashed: the join failed.
            ChannelClosed: the channel was left or closed first.
            Disconnected: the connection has ended.
            Exception: an exception raised by your payload function.
        """
        return await self._queue.wait_joined()

    async def push(
        self, event: str, payload: Payload = None, *, timeout: float | None = None
    ) -> PushReply:
        """Push an event and wait for the reply.

        While the channel is not joined because of a crash or an outage, the push waits.

        Args:
            event: the name of the event.
            payload: a JSON value or a bytes-like object; by default ``{}``.
            timeout: total seconds to wait; by default the channel's timeout.

        Returns:
            The reply, with any status.

        Raises:
            PushTimeout: no reply arrived in time. Not every event has a reply; see :meth:`send`.
            Disconnected: the connection was lost before the reply arrived.
            ChannelClosed: the channel ended or crashed before the reply arrived.
            NotJoined: the channel had ended before the call.
            BufferFull: too many pushes are waiting.
            InvalidMessage, EncodeError: the payload cannot be sent.
            InvalidOption: the event or the timeout is invalid.
            ConnectionClosed: the connection has ended.
            UsageError: called inside a callback.
        """
        checked = self._check_push(event, payload, timeout)
        return await self._hooks.push(self.id, *checked, wants_reply=True)

    async def send(
        self, event: str, payload: Payload = None, *, timeout: float | None = None
    ) -> None:
        """Push an event without waiting for a reply; return when it is queued for writing.

        Args:
            event: the name of the event.
            payload: as in :meth:`push`.
            timeout: seconds to wait for the channel to be joined.

        Raises:
            PushTimeout: the push was not sent in time and is discarded.
            PhoenixError, TrioglockError: as in :meth:`push`.
        """
        checked = self._check_push(event, payload, timeout)
        await self._hooks.push(self.id, *checked, wants_reply=False)

    def _check_push(
        self, event: str, payload: Payload, timeout: float | None
    ) -> tuple[str, str, Payload, float]:
        event = check_event(event)
        seconds = self.timeout if timeout is None else timeout
        check_seconds("timeout", seconds)
        return self.topic, event, {} if payload is None else copy_payload(payload), seconds

    async def leave(self, payload: Payload = None, *, timeout: float | None = None) -> None:
        """Leave the topic and wait for the server's answer. Does nothing if the channel has ended.

        Args:
            payload: a JSON value or a bytes-like object, which Phoenix itself ignores; by default
                ``{}``.
            timeout: seconds to wait; by default the channel's timeout.

        Raises:
            PushTimeout: no answer arrived in time. The channel has ended nevertheless.
            InvalidMessage, EncodeError: the payload cannot be sent; the channel is not left.
        """
        seconds = self.timeout if timeout is None else timeout
        check_seconds("timeout", seconds)
        payload = {} if payload is None else copy_payload(payload)
        await self._hooks.leave(self.id, self.topic, payload, seconds)

    # Receiving.

    async def receive(self) -> tuple[str, Any]:
        """Return the event and payload of the next message. A cancelled call loses no message.

        Raises:
            ChannelClosed: the channel has ended and no messages are left.
            ConnectionClosed: the connection has ended and no messages are left.
            Exception: an exception raised by your payload function for a later join.
        """
        if await self._queue.wait():
            return self._items.popleft()
        raise self._closed_error()

    def receive_nowait(self) -> tuple[str, Any]:
        """Return the next message without waiting.

        Raises:
            trio.WouldBlock: no message is available.
            ChannelClosed, ConnectionClosed, Exception: as in :meth:`receive`.
        """
        if self._items:
            return self._items.popleft()
        raise self._closed_error() if self.closed else trio.WouldBlock

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        if await self._queue.wait():
            return self._items.popleft()
        error = self._closed_error()
        if self._queue.cause is None or isinstance(error, ConnectionClosedOK):
            raise StopAsyncIteration
        raise error

    def _closed_error(self) -> Exception:
        cause = self._queue.cause
        if isinstance(cause, Disconnected):
            return self._hooks.closed_error() or cause
        return cause or ChannelClosed(f"{self.topic!r} was left, or closed by the server")


def copy_payload(payload: Any) -> Any:
    """Return a payload that cannot change before it is sent."""
    return bytes(payload) if isinstance(payload, bytearray | memoryview) else payload
