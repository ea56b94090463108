"""The hooks of a connection, and the values that hooks return."""

from __future__ import annotations

import difflib
import ssl
import warnings
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from ._hints import describe_value
from ._redact import redact_repr
from ._types import MessageT_co, StateT
from .disconnect import Disconnect
from .errors import DecodeError, InvalidOption, UsageError
from .frames import Close
from .headers import Headers, HeadersLike
from .http import Request
from .options import check_headers, check_seconds, check_ssl_context

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["ConnectionInfo", "Deliver", "Reconnect", "Reply", "Socket", "Stop"]

ResultT = TypeVar("ResultT")

MaybeAwaitable: TypeAlias = ResultT | Awaitable[ResultT]
"""The result of a hook, which may be ``def`` or ``async def``."""

NOTHING: Any = object()


class Reply:
    """Send frames without passing them through ``handle_send``.

    Args:
        frames: the frames, in order: ``str``, bytes-like, ``Ping``, ``Pong`` or ``Close``. If the
            connection has a codec, it encodes everything, including ``str`` and bytes, except
            ``Ping``, ``Pong``, ``Close`` and :class:`PreparedMessage`.
        deliver: a value to deliver as well, as with :class:`Deliver`; by default, nothing is
            delivered.
    """

    __slots__ = ("deliver", "frames")

    def __init__(self, *frames: Any, deliver: Any = NOTHING) -> None:
        self.frames: tuple[Any, ...] = frames
        self.deliver: Any = deliver

    def __repr__(self) -> str:
        shown = [repr(frame) for frame in self.frames]
        if self.deliver is not NOTHING:
            shown.append(f"deliver={self.deliver!r}")
        return f"Reply({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        return (self.frames, self.deliver) == (other.frames, other.deliver)

    __hash__: ClassVar[None]  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Deliver ``value`` to the receivers of the connection, even if it is ``None``."""

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reconnect:
    """Decision of ``handle_disconnect``: reconnect, regardless of the policy.

    Args:
        url: the URL for this and later attempts; by default unchanged.
        additional_headers: the headers for this and later attempts; by default unchanged.
        delay: seconds before the attempt; by default the delay of the policy.
        ssl_context: the TLS configuration for this and later attempts; by default unchanged.
        open_timeout: seconds for this and each later attempt, by default unchanged; ``math.inf``
            for no limit.

    Raises:
        InvalidOption: an argument has the wrong type or is out of range.
    """

    url: str | None = None
    additional_headers: HeadersLike | None = None
    delay: float | None = None
    ssl_context: ssl.SSLContext | None = None
    open_timeout: float | None = None

    def __post_init__(self) -> None:
        if not (self.url is None or isinstance(self.url, str)):
            raise InvalidOption(f"url must be a str, not {type(self.url).__name__}")
        if self.delay:
            check_seconds("delay", self.delay)
        check_ssl_context(self.ssl_context)
        check_seconds("open_timeout", self.open_timeout)
        if self.additional_headers is not None:
            checked = check_headers("additional_headers", self.additional_headers)
            # The repr of Headers hides secrets.
            object.__setattr__(self, "additional_headers", checked)

    def __repr__(self) -> str:
        return redact_repr(self)


@dataclass(frozen=True, slots=True)
class Stop:
    """Decision of ``handle_disconnect``: do not reconnect, regardless of the policy."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectionInfo:
    """The argument of ``init_stream`` and ``handle_connect``: the result of the opening handshake.

    Args:
        url: the URL after redirects, without user information.
        subprotocol: the negotiated subprotocol, or None.
        request_headers: the headers of the request.
        response_headers: the headers of the response.
        peer: the peer's address, such as ``"127.0.0.1:8765"``; "" if the peer has none.
        attempt: the number of this link (network connection), counted from 1 over the life of the
            connection. Failed attempts do not count.
        connection: the connection, to ``cast``, to start background tasks or to ``abort``.
    """

    url: str
    subprotocol: str | None
    request_headers: Headers
    response_headers: Headers
    peer: str
    attempt: int
    connection: Connection[Any, Any]

    def __repr__(self) -> str:
        return redact_repr(self)

    @property
    def http_request(self) -> Request:
        """See :attr:`Connection.http_request`."""
        return self.connection.http_request


NOT_STATES: set[type] = {Close, Deliver, Reconnect, Reply, Stop}
"""The classes of results.

If a state is an instance of one of them, a hook has swapped the result and the state.
"""


class Socket(Generic[StateT, MessageT_co]):
    """The hooks of a connection. Override those you need, with ``def`` or ``async def``.

    The hooks of one connection run one at a time and in order. Each hook receives the state that
    the previous one returned. Do not share mutable objects between hooks and other tasks; return a
    new state instead.

    The *result* that most hooks return (``handle_connect``, ``handle_receive``, ``handle_invalid``,
    ``handle_ping``, ``handle_pong``, ``handle_cast``, and optionally ``handle_call``) is one of

    * ``None``: do nothing;
    * ``Reply(*frames, deliver=...)``: send the frames, without ``handle_send``; the connection's
      codec, if any, encodes them;
    * ``Close(code, reason)``: start the closing handshake;
    * ``Deliver(x)``: deliver ``x`` to the receivers of the connection, even if it is None;
    * any other value: deliver it.

    For type checkers, ``Socket[State, Message]`` declares the types of the state (by default None)
    and of the messages that receivers get (by default ``str | bytes``).

    An exception raised by ``handle_send`` or ``handle_call`` is raised by the call that caused it.
    An exception raised by any other hook ends the connection: it closes with 1011, ``terminate``
    runs, and ``async with`` raises the exception.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Warn about a method whose name resembles that of a hook."""
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("handle_") and not hasattr(Socket, name):
                meant = difflib.get_close_matches(name, vars(Socket), n=1, cutoff=0.85)
                if meant:
                    text = f"{cls.__name__}.{name} is not a hook; did you mean {meant[0]}?"
                    warnings.warn(text, stacklevel=2)

    _own_codec: ClassVar[str] = ""
    """For a socket that encodes its own messages: what to do instead of passing a codec; ""
    for all others."""

    def _attach(self, connection: Connection[Any, Any]) -> None:
        """Called before the first attempt.

        Override this method to use the connection before a link is open.
        """

    def _check(self) -> None:
        """Called before a connection uses the socket; raises if the socket cannot be used."""

    def init_stream(self, info: ConnectionInfo) -> MaybeAwaitable[StateT]:
        """Called once, after the first opening handshake.

        In a server it is called before the response: the handshake succeeds only after this hook
        has returned.

        Args:
            info: the result of the handshake.

        Returns:
            The initial state. Default: ``None``.
        """
        return cast("StateT", None)

    def handle_connect(
        self, info: ConnectionInfo, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called after every opening handshake, before any frame is received.

        Args:
            info: the result of the handshake.
            state: the current state.

        Returns:
            ``(result, state)``. Use ``Reply`` to log in or subscribe. Default: do nothing.
        """
        return None, state

    def handle_send(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each ``send``, ``send_nowait`` and ``request``; converts a message to a frame.

        Args:
            message: the argument of ``send``.
            state: the current state.

        Returns:
            ``(frame, state)``: a ``str`` is sent as text and a bytes-like object as binary. A
            tuple or list sends several frames, ``None`` sends nothing, and ``Close(...)`` starts
            the closing handshake. An async iterable, which ``send_nowait`` does not support, is
            sent in fragments after the hook has returned. Default: the message itself.

            If the connection has a codec, return one message, which the codec encodes. A tuple or
            list is one message, and ``None`` still sends nothing.
        """
        return message, state

    def handle_receive(self, frame: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each received message.

        Args:
            frame: ``str`` for text, ``bytes`` for binary; or the decoded message, if the
                connection has a codec.
            state: the current state.

        Returns:
            ``(result, state)``. Default: deliver the frame.
        """
        return Deliver(frame), state

    def handle_invalid(
        self, error: DecodeError, frame: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each received message that the codec cannot decode.

        Args:
            error: the problem with the message.
            frame: the message as received.
            state: the current state.

        Returns:
            ``(result, state)``; ``Close(1007)`` ends the connection. Default: the message is
            dropped and logged, at most once per second. In any case, it is counted in
            ``conn.statistics().invalid``.
        """
        return None, state

    def handle_ping(self, payload: bytes, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each received ping, after the pong has been queued.

        Args:
            payload: at most 125 bytes.
            state: the current state.

        Returns:
            ``(result, state)``. Default: do nothing.
        """
        return None, state

    def handle_pong(self, payload: bytes, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each received pong, including those that answer the heartbeat.

        Args:
            payload: at most 125 bytes.
            state: the current state.

        Returns:
            ``(result, state)``. Default: do nothing.
        """
        return None, state

    def handle_cast(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for ``conn.cast(message)`` and ``conn.cast_after(seconds, message)``.

        Args:
            message: the argument of ``cast``.
            state: the current state.

        Returns:
            ``(result, state)``. Without this hook, ``cast`` raises UsageError.
        """
        raise UsageError(f"{type(self).__name__} has no handle_cast")

    def handle_call(
        self, request: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT] | tuple[Any, Any, StateT]]:
        """Called for ``await conn.call(request)``.

        Args:
            request: the argument of ``call``.
            state: the current state.

        Returns:
            ``(reply, state)`` or ``(reply, result, state)``. Without this hook, ``call`` raises
            UsageError.
        """
        raise UsageError(f"{type(self).__name__} has no handle_call")

    def handle_disconnect(
        self, reason: Disconnect, state: StateT
    ) -> MaybeAwaitable[tuple[Reconnect | Stop | None, StateT]]:
        """Called after the connection is closed by either side, lost or refused.

        After a close by your own program, the decision is ignored. The hook is not called after
        ``abort()`` or an exception in a hook. Until it returns, the status is ``RECONNECTING`` if
        the policy reconnects, and ``DECIDING`` if it does not.

        Args:
            reason: why the link ended; see :mod:`trioglock.disconnect`.
            state: the current state; None if no attempt has succeeded, because ``init_stream`` has
                not run.

        Returns:
            ``(decision, state)``: ``None`` follows the policy; ``Reconnect(...)`` and ``Stop()``
            override it. Default: ``None``.
        """
        return None, state

    def terminate(self, reason: Disconnect, state: StateT) -> MaybeAwaitable[object]:
        """Called exactly once at the end, even after a cancellation or an exception in a hook.

        It must return within ``close_timeout`` seconds, and cannot use the connection. Its return
        value is ignored. It is not called if ``init_stream`` has not returned a state.

        Args:
            reason: why the connection ended; see :mod:`trioglock.disconnect`.
            state: the current state.
        """
        return None

    def format_status(self, state: StateT) -> Any:
        """Called for ``conn.status_report()`` to describe the state. It must not be ``async``.

        Override it to hide secrets or to shorten a large state. It may be called at any time, even
        while another hook is running, and cannot change the state.

        Args:
            state: the current state.

        Returns:
            A value whose repr is shown. Default: the state itself.
        """
        return state


def overrides(instance: object, base: type, name: str) -> bool:
    """Whether an instance of a subclass of ``base`` overrides a method."""
    return getattr(getattr(instance, name), "__func__", None) is not getattr(base, name)


def check_socket(
    socket: Socket[StateT, MessageT_co] | None, *, codec: object = None
) -> Socket[StateT, MessageT_co]:
    """Return ``socket``, or a default Socket for None.

    Raises:
        InvalidOption: ``socket`` is not a Socket, or it encodes its own messages and there is a
            codec.
    """
    if socket is None:
        return Socket()
    if not isinstance(socket, Socket):
        raise InvalidOption(f"socket must be a trioglock.Socket, not {describe_value(socket)}")
    if codec is not None:
        refuse_codec(type(socket))
    socket._check()  # noqa: SLF001 - a hook of the package's own layers
    return socket


def refuse_subscriptions(socket: Socket[Any, Any]) -> None:
    """Raise InvalidOption if the socket decodes messages itself."""
    kind = type(socket)
    if kind._own_codec:  # noqa: SLF001 - a hook of the package's own layers
        raise InvalidOption(
            f"{kind.__name__} decodes its own messages, so subscriptions cannot use them: leave "
            "out the subscriptions option and subscribe in handle_connect, or use a Socket "
            "without a codec of its own and connect(..., codec=JSON(), subscriptions=...)"
        )


def refuse_codec(kind: type[Socket[Any, Any]]) -> None:
    """Raise InvalidOption if sockets of this class encode their own messages."""
    if kind._own_codec:  # noqa: SLF001 - a hook of the package's own layers
        raise InvalidOption(
            f"{kind.__name__} encodes its own messages, so the connection cannot have a codec: "
            f"{kind._own_codec}"  # noqa: SLF001
        )
