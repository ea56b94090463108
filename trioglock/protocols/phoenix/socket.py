"""The awaitable face: a socket that joins topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ...connection import Connection
from ...errors import ConnectionClosed, InvalidOption
from ...options import check_seconds
from .alarm import Request
from .channel import Channel
from .effects import Effect
from .errors import JoinTimeout, PushTimeout
from .feed import Feed, Overflow, Payload, QueueOptions
from .membership import Phase
from .message import JOIN, PushReply, check_event, check_topic
from .presence import Presence
from .wire import Waiter, Wire

__all__ = ["PhoenixSocket", "PhoenixStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoenixStatistics:
    """What a socket has to do, and what it did not understand.

    Args:
        channels: that have not ended.
        pending: pushes and leaves without an outcome.
        ignored: messages for nobody: late, duplicate, of an earlier join, of an unknown topic.
        invalid: frames that are no messages of this protocol.
    """

    channels: int
    pending: int
    ignored: int
    invalid: int


class PhoenixSocket:
    """A connection to a Phoenix endpoint; what ``async with phoenix.connect(...)`` gives.

    Args:
        connection: beneath.
        wire: its hooks.
        timeout: seconds, for channels that are given none.
    """

    def __init__(self, connection: Connection[None], wire: Wire, timeout: float) -> None:
        self.connection: Connection[None] = connection
        """For its status, its latency, its statistics and its end."""
        self._wire = wire
        self._machine = wire.machine
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<PhoenixSocket on {self.connection!r}>"

    # Joining.

    async def join(
        self,
        topic: str,
        payload: Payload | Callable[[], Payload | Awaitable[Payload]] = None,
        *,
        timeout: float | None = None,
        max_queue: int | None = 10_000,
        overflow: Overflow = "close",
        presence: Presence | None = None,
    ) -> Channel:
        """Join a topic and wait for the server's answer.

        During an outage it waits for the connection. A channel that was let in once is joined
        again after every loss of the connection, and after a crash; if that is refused, again and
        again. A call that fails or is cancelled leaves nothing behind.

        Args:
            topic: such as ``"room:1"``.
            payload: what the server's ``join/3`` gets. Or a function, plain or async, that is
                asked before every join: for fresh tokens. An async one runs beside the rest, and is
                cancelled when its attempt is over.
            timeout: seconds, an outage included; also for pushes, and for each later join.
            max_queue: messages that may wait to be taken; None for any number.
            overflow: what happens then: ``"close"`` leaves the topic, and
                :exc:`ChannelOverflow` comes after what waits; ``"drop_oldest"`` and
                ``"drop_newest"`` lose messages and count them.
            presence: to be kept up to date; its messages are not queued.

        Raises:
            AlreadyJoined: this socket has that topic already.
            JoinRefused: the server does not want it.
            JoinTimeout: it did not answer in time.
            ChannelClosed, ChannelCrashed: it ended the channel instead.
            InvalidOption, InvalidMessage, EncodeError: an argument cannot be used.
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
        )
        try:
            await channel.wait_joined()
        except BaseException:
            if not channel.closed:
                self._abandon(channel)
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
    ) -> Channel:
        """As :meth:`join`, without waiting for the answer: see :meth:`Channel.wait_joined`.

        Pushes may be made at once; they wait for the channel to be joined.
        """
        check_topic(topic)
        if not (presence is None or isinstance(presence, Presence)):
            raise InvalidOption(f"presence is a Presence or None, not {presence!r}")
        check_seconds("timeout", timeout)
        seconds = self._timeout if timeout is None else timeout
        deadline = trio.current_time() + seconds
        payload = _plain(payload)
        feed = Feed(topic, payload, QueueOptions(max_queue=max_queue, overflow=overflow), presence)
        if not callable(payload):
            self._wire.check(topic, JOIN, {} if payload is None else payload)
        channel = Channel(self, topic, seconds, feed)

        def request() -> list[Effect]:
            channel.id, effects = self._machine.join(topic, seconds, deadline)
            self._wire.members[channel.id] = feed
            return effects

        await self._ask(request, deadline, JoinTimeout)
        return channel

    def _abandon(self, channel: Channel) -> None:
        """Leave, and wait for nothing."""

        def request() -> list[Effect]:
            if self._machine.phase(channel.id) is None:
                return []
            deadline = trio.current_time() + channel.timeout
            return self._machine.leave(channel.id, deadline)[1]

        self._wire.cast(request)

    # What channels ask for.

    def is_joined(self, channel: int) -> bool:
        """Whether a channel is joined; see :attr:`Channel.joined`.

        Args:
            channel: its number.
        """
        return self._machine.phase(channel) is Phase.JOINED

    async def push(
        self, channel: Channel, event: str, payload: Payload, timeout: float, *, wants_reply: bool
    ) -> PushReply:
        """See :meth:`Channel.push`.

        Args:
            channel: that pushes.
            event: its name.
            payload: as there.
            timeout: seconds for all of it.
            wants_reply: False returns when it is on its way.
        """
        check_event(event)
        check_seconds("timeout", timeout)
        payload = {} if payload is None else _plain(payload)
        machine, wire = self._machine, self._wire
        deadline = trio.current_time() + timeout
        waiter = Waiter()

        def request() -> list[Effect]:
            if machine.phase(channel.id) is not Phase.JOINED:
                # It has to wait, and what is wrong with it is better told now.
                wire.check(channel.topic, event, payload)
            waiter.id, effects = machine.push(
                channel.id, event, payload, deadline, wants_reply=wants_reply
            )
            wire.waiters[waiter.id] = waiter
            return effects

        await self._ask(request, deadline, PushTimeout)
        try:
            return await waiter.wait()
        except BaseException:
            wire.forget(waiter)
            raise

    async def leave(self, channel: Channel, timeout: float) -> None:
        """See :meth:`Channel.leave`.

        Args:
            channel: that is left.
            timeout: seconds to wait for the server's answer.
        """
        check_seconds("timeout", timeout)
        deadline = trio.current_time() + timeout
        machine, wire = self._machine, self._wire
        waiter = Waiter()

        def request() -> list[Effect]:
            if machine.phase(channel.id) is None:
                waiter.resolve(PushReply("ok", {}))
                return []
            waiter.id, effects = machine.leave(channel.id, deadline)
            wire.waiters[waiter.id] = waiter
            return effects

        try:
            await self._ask(request, deadline, PushTimeout)
            await waiter.wait()
        except ConnectionClosed:
            return  # and every channel has ended with it
        except BaseException:
            self._abandon(channel)
            raise

    def closed_error(self) -> ConnectionClosed | None:
        """How the connection ended; None if it has not."""
        try:
            self.connection.receive_nowait()
        except trio.WouldBlock:
            return None
        except ConnectionClosed as error:
            return error
        raise AssertionError("the hooks of this socket deliver nothing")

    async def _ask(self, request: Request, deadline: float, late: type[Exception]) -> None:
        """Carry a request out at once, or as soon as there is room to send."""
        try:
            self.connection.send_nowait(request)
        except trio.WouldBlock:
            pass
        else:
            return
        with trio.CancelScope(deadline=deadline):
            await self.connection.send(request)
            return
        raise late("the server has read nothing for too long: there is no room to send")

    # The connection.

    @property
    def channels(self) -> int:
        """How many channels have not ended."""
        return len(self._wire.members)

    def statistics(self) -> PhoenixStatistics:
        """How the socket stands; of the connection there is ``connection.statistics()``."""
        return PhoenixStatistics(
            channels=len(self._wire.members),
            pending=self._machine.pending,
            ignored=self._machine.ignored,
            invalid=self._wire.invalid.count,
        )

    async def aclose(self) -> None:
        """Close the connection; every channel ends."""
        await self.connection.aclose()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended for good."""
        await self.connection.wait_closed()


def _plain(payload: Any) -> Any:
    """A copy of a buffer that may change before it is sent."""
    return bytes(payload) if isinstance(payload, bytearray | memoryview) else payload
