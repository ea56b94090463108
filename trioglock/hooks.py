"""What users write: the hooks of a connection, their defaults, and the values that they return."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast

from ._redact import redact_repr
from .disconnect import Disconnect
from .errors import InvalidOption, UsageError
from .frames import Frame
from .headers import Headers, HeadersLike
from .options import check_headers, check_seconds

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["ConnectionInfo", "Deliver", "Reconnect", "Reply", "Socket", "Stop"]

StateT = TypeVar("StateT")
ResultT = TypeVar("ResultT")

MaybeAwaitable: TypeAlias = ResultT | Awaitable[ResultT]
"""Every hook may be ``def`` or ``async def``."""

NOTHING: Any = object()


class Reply:
    """Send frames, as they are, past ``handle_send``.

    Args:
        frames: what to send, in order: ``str``, bytes-like, ``Ping``, ``Pong`` or ``Close``.
        deliver: handed on as well, as :class:`Deliver` does; nothing by default.
    """

    __slots__ = ("deliver", "frames")

    def __init__(self, *frames: Frame, deliver: Any = NOTHING) -> None:
        self.frames: tuple[Frame, ...] = frames
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
    """Hand ``value`` on to whoever iterates the connection, also when it is ``None``."""

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reconnect:
    """Decision of ``handle_disconnect``: try again, whatever the policy says.

    Args:
        url: another address, from now on; by default the same.
        additional_headers: other headers, from now on; by default the same.
        delay: seconds to wait before the attempt; by default what the policy says.

    Raises:
        InvalidOption: one of these is of the wrong type or out of range.
    """

    url: str | None = None
    additional_headers: HeadersLike | None = None
    delay: float | None = None

    def __post_init__(self) -> None:
        if not (self.url is None or isinstance(self.url, str)):
            raise InvalidOption(f"url is a str, not {type(self.url).__name__}")
        if self.delay:
            check_seconds("delay", self.delay)
        if self.additional_headers is not None:
            checked = check_headers("additional_headers", self.additional_headers)
            # Checked headers hide what is secret when they are shown.
            object.__setattr__(self, "additional_headers", checked)

    def __repr__(self) -> str:
        return redact_repr(self)


@dataclass(frozen=True, slots=True)
class Stop:
    """Decision of ``handle_disconnect``: do not reconnect, whatever the policy says."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectionInfo:
    """The upgraded connection, as ``init_stream`` and ``handle_connect`` see it.

    Args:
        url: the address that was reached, after redirects, without user information.
        subprotocol: the negotiated one, or None.
        request_headers: of the opening handshake, as sent.
        response_headers: of the opening handshake, as received.
        peer: the other end, such as ``"127.0.0.1:8765"``; "" where it has no address.
        attempt: the number of this upgrade, counted from 1 over the life of the connection.
        connection: to cast, to start background tasks, to abort.
    """

    url: str
    subprotocol: str | None
    request_headers: Headers
    response_headers: Headers
    peer: str
    attempt: int
    connection: Connection[Any]

    def __repr__(self) -> str:
        return redact_repr(self)


class Socket(Generic[StateT]):
    """The hooks of a connection. Override what you need; each may be ``def`` or ``async def``.

    Hooks of one connection run one at a time, in the order in which things happened, and each
    gets the state that the previous one returned. Never share a mutable between hooks and tasks:
    return a new state instead.

    A *result* of a receiving hook (``handle_connect``, ``handle_receive``, ``handle_ping``,
    ``handle_pong``, ``handle_cast``, and the middle value of ``handle_call``) is one of

    * ``None``: nothing follows;
    * ``Reply(*frames, deliver=...)``: the frames are sent as they are;
    * ``Close(code, reason)``: the closing handshake starts;
    * ``Deliver(x)``: ``x`` is handed to whoever iterates the connection, also when it is None;
    * anything else: it is handed on.

    An error in ``handle_send`` or ``handle_call`` is raised at the call that brought it. Any
    other hook that raises ends the connection: 1011 to the peer, ``terminate``, and the exception
    comes out of ``async with``.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Warn of a name that is nearly that of a hook, and so is never called."""
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("handle_") and not hasattr(Socket, name):
                meant = difflib.get_close_matches(name, vars(Socket), n=1, cutoff=0.85)
                if meant:
                    text = f"{cls.__name__}.{name} is no hook: {meant[0]} is meant?"
                    warnings.warn(text, stacklevel=2)

    def _attach(self, connection: Connection[Any]) -> None:
        """Called before the first attempt, for layers that use the connection while it is down."""

    def init_stream(self, info: ConnectionInfo) -> MaybeAwaitable[StateT]:
        """Called once, after the first upgrade; returns the first state. Default: ``None``.

        Args:
            info: what is known of the connection, with a handle on it.
        """
        return cast("StateT", None)

    def handle_connect(
        self, info: ConnectionInfo, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called after every upgrade, the first and later ones, before any frame.

        Args:
            info: what is known of the connection, with a handle on it.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Log in or subscribe with ``Reply``. Default: nothing follows.
        """
        return None, state

    def handle_send(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each ``send`` and ``send_nowait``: a message in, a frame out.

        Args:
            message: as it was given.
            state: as the hook before returned it.

        Returns:
            ``(frame, state)``: ``str`` is sent as text, bytes-like as binary; a tuple or list
            sends several frames, ``None`` nothing, ``Close(...)`` closes. Default: the message
            itself.
        """
        return message, state

    def handle_receive(self, frame: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each whole message: ``str`` for text, ``bytes`` for binary.

        Args:
            frame: the whole message.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Default: the frame is handed on.
        """
        return Deliver(frame), state

    def handle_ping(self, payload: bytes, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each ping. The pong has been queued already.

        Args:
            payload: at most 125 bytes.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Default: nothing follows.
        """
        return None, state

    def handle_pong(self, payload: bytes, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for each pong, also those that answer the heartbeat.

        Args:
            payload: at most 125 bytes.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Default: nothing follows.
        """
        return None, state

    def handle_cast(self, message: Any, state: StateT) -> MaybeAwaitable[tuple[Any, StateT]]:
        """Called for ``conn.cast(message)`` and ``conn.cast_after(seconds, message)``.

        Args:
            message: as it was given.
            state: as the hook before returned it.

        Returns:
            ``(result, state)``. Without this hook, ``cast`` raises UsageError.
        """
        raise UsageError(f"{type(self).__name__} has no handle_cast")

    def handle_call(
        self, request: Any, state: StateT
    ) -> MaybeAwaitable[tuple[Any, StateT] | tuple[Any, Any, StateT]]:
        """Called for ``await conn.call(request)``.

        Args:
            request: as it was given.
            state: as the hook before returned it.

        Returns:
            ``(reply, state)`` or ``(reply, result, state)``. Without this hook, ``call`` raises
            UsageError.
        """
        raise UsageError(f"{type(self).__name__} has no handle_call")

    def handle_disconnect(
        self, reason: Disconnect, state: StateT
    ) -> MaybeAwaitable[tuple[Reconnect | Stop | None, StateT]]:
        """Called when the connection was closed, lost or refused; not after a crash or ``abort()``.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
            state: as the hook before returned it; None if the very first attempt was refused:
                ``init_stream`` has not run.

        Returns:
            ``(decision, state)``: ``None`` follows the policy, ``Reconnect(...)`` and ``Stop()``
            override it. Default: ``None``.
        """
        return None, state

    def terminate(self, reason: Disconnect, state: StateT) -> MaybeAwaitable[object]:
        """Called exactly once at the end, also when cancelled or when a hook raised.

        It has ``close_timeout`` seconds, and no part of the connection works any more. What it
        returns is ignored. It is not called if ``init_stream`` never returned a state.

        Args:
            reason: a typed value, see :mod:`trioglock.disconnect`.
            state: as the hook before returned it.
        """
        return None

    def format_status(self, state: StateT) -> Any:
        """Called for ``conn.status_report()``: what of the state may be shown. A plain function.

        Override it to leave out passwords and tokens, or what is too large to be read. It may be
        called at any time, also while another hook runs, and cannot change the state.

        Returns:
            Anything that has a repr. Default: the state itself.
        """
        return state


def check_socket(socket: Socket[StateT] | None) -> Socket[StateT]:
    """The Socket to use; the default one for None.

    Raises:
        InvalidOption: something else was given.
    """
    if socket is None:
        return Socket()
    if isinstance(socket, type) and issubclass(socket, Socket):
        raise InvalidOption(f"socket is an instance, not the class: write {socket.__name__}()")
    if not isinstance(socket, Socket):
        raise InvalidOption(f"socket is a trioglock.Socket, not {socket!r}")
    return socket
