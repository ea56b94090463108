"""The callback face: what happens is told to callbacks, and state is threaded through them.

In the manner of ``Phoenix.Channels.GenSocketClient`` (phoenix_gen_socket_client for Elixir):
nothing is done that a callback has not asked for. It decides when to connect, what to join, and
whether to join again.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

from ..._redact import HIDDEN, redact_url
from ...disconnect import Disconnect
from ...errors import InvalidOption, UsageError
from ...options import check_seconds
from .address import Params, Source
from .message import PushReply

__all__ = ["ChannelClient", "ChannelTransport", "Connect", "Result", "Stop"]

StateT = TypeVar("StateT")
ValueT = TypeVar("ValueT")

Maybe: TypeAlias = ValueT | Awaitable[ValueT]
"""Every callback may be ``def`` or ``async def``."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Connect:
    """Result of a callback: connect, or connect again. Nothing, where that is so or under way.

    Args:
        url: another address, from now on.
        params: other params, from now on.
        delay: seconds to wait before.

    Raises:
        InvalidOption: ``delay`` is no number of seconds.
    """

    url: Source[str] | None = None
    params: Source[Params] | None = None
    delay: float = 0

    def __repr__(self) -> str:
        # Params are credentials, more often than not, and functions may have some in them.
        url = repr(redact_url(self.url)) if isinstance(self.url, str) else _given(self.url)
        return f"Connect(url={url}, params={_given(self.params)}, delay={self.delay!r})"

    def __post_init__(self) -> None:
        if self.delay is None or self.delay != 0:
            check_seconds("delay", self.delay)
        if self.delay is None:
            raise InvalidOption("delay is a number of seconds, not None")


def _given(source: object) -> str:
    return "None" if source is None else HIDDEN


@dataclass(frozen=True, slots=True)
class Stop:
    """Result of a callback: close the connection and end; :func:`run` returns the state."""


Result: TypeAlias = Connect | Stop | None
"""What a callback may ask for; None for nothing."""


class ChannelTransport(Protocol):
    """What callbacks send with. Nothing here waits."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""

    def join(self, topic: str, payload: Any = None) -> None:
        """Ask to join; ``handle_joined`` or ``handle_join_error`` has the answer.

        Args:
            topic: such as ``"room:1"``.
            payload: what the server's ``join/3`` gets.

        Raises:
            Disconnected, AlreadyJoined, InvalidMessage, EncodeError, InvalidOption: see there.
        """

    def leave(self, topic: str) -> None:
        """Leave; ``handle_channel_closed`` has the answer.

        Args:
            topic: of a channel that has not ended.

        Raises:
            Disconnected, NotJoined: see there.
        """

    def push(self, topic: str, event: str, payload: Any = None) -> str:
        """Push an event.

        Args:
            topic: of a channel that is joined.
            event: its name.
            payload: what JSON can say, or bytes-like; ``{}`` by default.

        Returns:
            Its ref, which ``handle_reply`` or ``handle_timeout`` gets.

        Raises:
            Disconnected, NotJoined, InvalidMessage, EncodeError, InvalidOption: see there.
        """


class ChannelClient(Generic[StateT]):
    """Callbacks. Override what you need; each may be ``def`` or ``async def``.

    They run one at a time, in the order of what happened, and each gets the state that the one
    before has returned. Unless it says otherwise, a callback returns ``(result, state)``, where
    result is None, :class:`Connect` or :class:`Stop`. What a callback raises, ``handle_call``
    aside, ends the client and comes out of :func:`run`.
    """

    def init(self) -> Maybe[StateT]:
        """Called once, first; returns the first state. Default: None."""
        return cast("StateT", None)

    def handle_connected(
        self, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when a connection is there: join here.

        Args:
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_disconnected(
        self, reason: Disconnect, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when it was lost, or none came about: return ``Connect(delay=...)`` to try again.

        Every channel has ended; ``handle_channel_closed`` is not called for that.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
            state: as the callback before returned it.
        """
        return None, state

    def handle_joined(
        self, topic: str, response: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the server has let us in.

        Args:
            topic: that was asked for.
            response: what the server's ``join/3`` answered.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_join_error(
        self, topic: str, response: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the server has not let us in.

        Args:
            topic: that was asked for.
            response: why; ``{"reason": "timeout"}`` if it did not answer.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_channel_closed(
        self, topic: str, payload: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when the channel has ended: closed, crashed or left. It may be joined again.

        Args:
            topic: of the channel.
            payload: of the message that ended it.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_message(
        self, topic: str, event: str, payload: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for what the server pushes and broadcasts.

        Args:
            topic: of the channel.
            event: its name.
            payload: what JSON can say, or bytes.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_reply(
        self, topic: str, ref: str, reply: PushReply, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for the reply to a push.

        Args:
            topic: of the channel.
            ref: that the push got.
            reply: its status and response.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_timeout(
        self, topic: str, ref: str, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called when no reply came in time, which is no mistake where an event has none.

        Args:
            topic: of the channel.
            ref: that the push got.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        return None, state

    def handle_cast(
        self, message: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Result, StateT]]:
        """Called for ``client.cast(message)``. Without this callback, ``cast`` raises UsageError.

        Args:
            message: as it was given.
            transport: to join, leave and push with.
            state: as the callback before returned it.
        """
        raise UsageError(f"{type(self).__name__} has no handle_cast")

    def handle_call(
        self, request: Any, transport: ChannelTransport, state: StateT
    ) -> Maybe[tuple[Any, StateT] | tuple[Any, Result, StateT]]:
        """Called for ``await client.call(request)``; what it raises is raised there.

        Without this callback, ``call`` raises UsageError.

        Args:
            request: as it was given.
            transport: to join, leave and push with.
            state: as the callback before returned it.

        Returns:
            ``(reply, state)`` or ``(reply, result, state)``.
        """
        raise UsageError(f"{type(self).__name__} has no handle_call")
