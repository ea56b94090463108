"""The awaitable interface: a socket that joins topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..._hints import describe_value
from ...client.sources import check_not_called
from ...connection import Connection
from ...errors import InvalidOption
from ...options import check_seconds
from .channel import Channel, ChannelQueue, Overflow, Payload, copy_payload
from .errors import JoinTimeout
from .hooks import ChannelHooks
from .message import JOIN, check_topic
from .presence import Presence
from .state import Effect

__all__ = ["PhoenixSocket", "PhoenixStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixStatistics:
    """Counters of a :class:`PhoenixSocket`.

    Args:
        channels: channels that have not ended.
        pending: pushes and leave requests without an outcome.
        ignored: ignored messages: late, duplicate, from an earlier join, or for an unknown topic.
        invalid: frames that are not messages of this protocol.
    """

    channels: int
    pending: int
    ignored: int
    invalid: int


class PhoenixSocket:
    """A connection to a Phoenix endpoint, returned by ``async with phoenix.connect(...)``.

    Args:
        connection: the WebSocket connection.
        hooks: the hooks of that connection.
        timeout: default timeout of channels in seconds.
    """

    def __init__(
        self, connection: Connection[None, Any], hooks: ChannelHooks, timeout: float
    ) -> None:
        self.connection: Connection[None, Any] = connection
        """The WebSocket connection, for its status, latency and statistics."""
        self._hooks = hooks
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<PhoenixSocket on {self.connection!r}>"

    async def join(
        self,
        topic: str,
        payload: Payload | Callable[[], Payload | Awaitable[Payload]] = None,
        *,
        timeout: float | None = None,
        max_queue: int | None = 10_000,
        overflow: Overflow = "close",
        presence: Presence | None = None,
        id_field: str | None = None,
    ) -> Channel:
        """Join a topic and wait for the server's answer.

        During an outage the join waits for the connection. After every crash and every lost
        connection, the client rejoins the topic, and repeats the join until it succeeds. After a
        call that fails or is cancelled, the topic can be joined again.

        Args:
            topic: the topic, such as ``"room:1"``.
            payload: the argument of the server's ``join/3``, or a function, plain or async, that
                returns it and is called before every join, for example to fetch a fresh token. An
                async function runs in a background task and is cancelled when its attempt has
                ended.
            timeout: seconds for the join, including outages; also the default for pushes and the
                limit for each later join.
            max_queue: maximum number of messages waiting to be received; None for no limit.
            overflow: the policy when the queue is full. ``"close"`` leaves the topic and raises
                :exc:`ChannelOverflow` after the waiting messages have been received;
                ``"drop_oldest"`` and ``"drop_newest"`` drop messages and count them.
            presence: the presence to keep in sync; presence messages are not queued.
            id_field: the field with the ids of events, if the server keeps a history as
                :class:`trioglock.channels.History` does. A rejoin adds ``{"after": id}`` with the
                newest id to the payload, which must be a dict, so that the channel receives the
                events that it has missed. If some of them may be missing, :attr:`Channel.response`
                contains ``"gap"``.

        Raises:
            AlreadyJoined: the socket has already joined this topic.
            JoinRefused: the server refused the join.
            JoinTimeout: the server did not answer in time.
            ChannelClosed, ChannelCrashed: the channel ended before it was joined.
            InvalidOption, InvalidMessage, EncodeError: an argument is invalid.
            ConnectionClosed, Disconnected: the connection has ended.
            UsageError: called inside a callback.
        """
        channel = await self.join_soon(
            topic,
            payload,
            timeout=timeout,
            max_queue=max_queue,
            overflow=overflow,
            presence=presence,
            id_field=id_field,
        )
        try:
            await channel.wait_joined()
        except BaseException:
            self._hooks.abandon(channel.id, channel.timeout)
            raise
        return channel

    async def join_soon(
        self,
        topic: str,
        payload: Payload | Callable[[], Payload | Awaitable[Payload]] = None,
        *,
        timeout: float | None = None,
        max_queue: int | None = 10_000,
        overflow: Overflow = "close",
        presence: Presence | None = None,
        id_field: str | None = None,
    ) -> Channel:
        """Join a topic without waiting for the answer, with the arguments of :meth:`join`.

        You can push immediately; pushes wait until the channel is joined, as does
        :meth:`Channel.wait_joined`.
        """
        topic = check_topic(topic)
        if not (presence is None or isinstance(presence, Presence)):
            raise InvalidOption(
                f"presence must be a Presence or None, not {describe_value(presence)}"
            )
        check_seconds("timeout", timeout)
        seconds = self._timeout if timeout is None else timeout
        deadline = trio.current_time() + seconds
        check_not_called("payload", payload, "a JSON value")
        payload = copy_payload(payload)
        queue = ChannelQueue(topic, payload, max_queue, overflow, presence, id_field)
        hooks = self._hooks
        if not callable(payload):
            hooks.check(topic, JOIN, {} if payload is None else payload)
        channel = Channel(hooks, topic, seconds, queue)

        def request() -> list[Effect]:
            channel.id, effects = hooks.machine.join(topic, seconds, deadline)
            hooks.queues[channel.id] = queue
            return effects

        try:
            await hooks.request(request, deadline, JoinTimeout)
        except BaseException:
            hooks.abandon(channel.id, seconds)
            raise
        return channel

    @property
    def channels(self) -> int:
        """The number of channels that have not ended."""
        return len(self._hooks.queues)

    def statistics(self) -> PhoenixStatistics:
        """Return the counters of the socket; see also ``connection.statistics()``."""
        return PhoenixStatistics(
            channels=len(self._hooks.queues),
            pending=self._hooks.machine.pending,
            ignored=self._hooks.machine.ignored,
            invalid=self._hooks.invalid.count,
        )

    async def aclose(self) -> None:
        """Close the connection; every channel ends."""
        await self.connection.aclose()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and will not reconnect."""
        await self.connection.wait_closed()
