"""Runs a target on each connection of a server, and registers the open connections."""

from __future__ import annotations

import inspect
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames
from typing import Any, TypeAlias

import trio

from .._redact import label
from .._scope import raise_selected
from ..connection import Connection, ConnectionScope, Session
from ..connection.broadcast import broadcast_frame
from ..connection.scope import is_end
from ..connection.writer import Writer
from ..disconnect import Disconnect, ProtocolViolation
from ..errors import InvalidOption, UsageError
from ..frames import Close, Frame
from ..hooks import Socket, check_socket, refuse_codec
from ..http import Request
from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Link

__all__ = [
    "ConnectionHandler",
    "ConnectionRegistry",
    "ConnectionRunner",
    "HandshakeTarget",
    "ServeTarget",
]

ConnectionHandler: TypeAlias = Callable[[Connection[None, Any]], Awaitable[object]]
"""``async def handler(conn)``: the connection closes with 1000 when it returns."""


class HandshakeTarget(ABC):
    """A target that takes part in the opening handshake. Internal."""

    _codec_hint: str
    """Why its connections cannot have a codec."""

    @abstractmethod
    def _select_subprotocol(self, request: Request, offered: Sequence[str]) -> str | None:
        """Choose the subprotocol, unless the options of the server do."""

    @abstractmethod
    async def _admit(self, request: Request) -> object:
        """Decide about a client whose request is a valid opening handshake.

        Returns:
            A Response refuses the client. Anything else is passed to :meth:`_make_socket`.
        """

    @abstractmethod
    def _make_socket(self, admitted: object) -> Socket[Any, Any]:
        """Create the Socket of a client that was admitted."""


ServeTarget: TypeAlias = Callable[[], Socket[Any, Any]] | ConnectionHandler | HandshakeTarget
"""A Socket class, a function that creates a Socket for each connection, a handler, or the
``socket`` of :class:`trioglock.channels.Channels`."""

_logger = logging.getLogger("trioglock.server")


class ConnectionRegistry:
    """The open connections of a :class:`Server` or an ASGI application."""

    def __init__(self) -> None:
        self._sessions: dict[Connection[Any, Any], Session[Any]] = {}
        self._writers: dict[Connection[Any, Any], Writer] = {}  # a broadcast needs no sessions
        self._closing: Close | None = None
        self._deadline = math.inf
        self._limited: set[trio.CancelScope] = set()

    @property
    def connections(self) -> frozenset[Connection[Any, Any]]:
        """The open connections: ``init_stream`` has returned, and the handler has not."""
        return frozenset(self._sessions)

    def add(self, session: Session[Any], connection: Connection[Any, Any]) -> None:
        """Register an open connection."""
        self._sessions[connection] = session
        self._writers[connection] = session.writer

    def opened(self, session: Session[Any]) -> None:
        """Close a connection that has opened after :meth:`close`."""
        if self._closing is not None:
            session.close(self._closing)

    def remove(self, connection: Connection[Any, Any]) -> None:
        """Remove a connection that has ended, or whose handler has returned."""
        self._sessions.pop(connection, None)
        self._writers.pop(connection, None)

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Cancel the block at the deadline of :meth:`close`, even within a shielded scope."""
        with trio.CancelScope(deadline=self._deadline) as scope:
            self._limited.add(scope)
            try:
                yield
            finally:
                self._limited.remove(scope)

    def broadcast(self, frame: Frame) -> int:
        """See :meth:`Server.broadcast`."""
        return broadcast_frame(list(self._writers.values()), frame)

    def close(self, frame: Close, deadline: float) -> None:
        """Start closing all connections, including those that open later."""
        self._closing = frame
        self._deadline = deadline
        for scope in self._limited:
            scope.deadline = deadline
        for session in tuple(self._sessions.values()):
            if session.opened.is_set:
                session.close(frame)


class ConnectionRunner:
    """Runs one target on any number of links; ``registry`` registers the open connections.

    ``max_size`` is the maximum size of a message in bytes that is joined from fragments.
    """

    def __init__(
        self,
        target: ServeTarget,
        flow: FlowOptions,
        registry: ConnectionRegistry,
        *,
        trace: bool = False,
        max_size: int | None = None,
    ) -> None:
        check_target(target, flow)
        self._target = target
        self._is_handler = is_handler(target)
        self._flow = flow
        self._registry = registry
        self._trace = trace
        self._max_size = max_size

    async def run(self, link: Link, nursery: trio.Nursery) -> None:
        """Run the target until its connection has ended.

        An exception raised by the target is logged, and its client receives 1011. It does not
        affect other connections.

        Args:
            link: the link.
            nursery: runs the tasks of the connection, which end before this method returns.
        """
        handshake = link.handshake
        emitter = EventEmitter(
            None,
            of=handshake.peer or "a client",
            url=handshake.url,
            side="server",
            traced=self._trace,
        )
        socket, handler = self._prepare(handshake.admitted)
        session = Session(
            SingleLink(link), self._flow, socket, emitter, self._registry, max_size=self._max_size
        )
        connection = AcceptedConnection(session, handshake.url)
        terminate = session.actor.terminate_hook
        if terminate.is_async:
            terminate.call = partial(self._terminate, terminate.call)
        try:
            if handler is not None:
                await self._run_handler(handler, session, connection)
            else:
                # Without the task and the scopes of a handler, which would take 5 KB.
                leaked: BaseException | None = None
                try:
                    await session.run(connection, nursery)
                except BaseException as error:
                    leaked = error
                try:
                    raise_selected(None, session.failures, leaked)
                finally:
                    del leaked  # it refers to this frame
        except Exception as error:
            if not is_end(error, session):
                _logger.exception("%s: %s failed", emitter.name, label(self._target))
            # The session keeps the exception of a hook, whose traceback refers to the session.
            clear_frames(error.__traceback__)
        cause = session.close_state.cause
        if isinstance(cause, ProtocolViolation):
            _logger.info("%s: closed with %d: %s", emitter.name, cause.code, cause.reason)

    async def _run_handler(
        self, handler: ConnectionHandler, session: Session[Any], connection: Connection[Any, Any]
    ) -> None:
        try:
            async with ConnectionScope(session, connection):
                try:
                    await handler(connection)
                finally:
                    self._registry.remove(connection)
        finally:
            self._registry.remove(connection)  # the scope may raise before the handler has run

    async def _terminate(
        self, hook: Callable[..., Awaitable[object]], reason: Disconnect, state: object
    ) -> None:
        # The hook is shielded from cancellation, but not from the server's shutdown timeout.
        with self._registry.limited():
            await hook(reason, state)

    def _prepare(self, admitted: object) -> tuple[Socket[Any, Any], ConnectionHandler | None]:
        """Create the hooks, and the handler if any; if this raises, the connection fails."""
        if self._is_handler:
            return Socket(), self._target  # type: ignore[return-value]
        try:
            if isinstance(self._target, HandshakeTarget):
                socket = self._target._make_socket(admitted)  # noqa: SLF001 - the same package
            else:
                socket = self._target()  # type: ignore[call-arg,assignment]
            if not isinstance(socket, Socket):
                raise InvalidOption(f"{label(self._target)} must return a Socket, not {socket!r}")
            check_socket(socket, codec=self._flow.codec)
        except Exception as error:
            return Socket(), partial(_fail, error)
        return socket, None


class SingleLink:
    """The link source of a server's session: only the link that a client has opened."""

    __slots__ = ("_link",)

    final_error: Exception | None = None
    reconnects = False

    def __init__(self, link: Link) -> None:
        self._link: Link | None = link

    async def open(self, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the interface
        await trio.lowlevel.checkpoint()
        link, self._link = self._link, None
        assert link is not None
        return link

    def retries(self, reason: Disconnect) -> bool:  # noqa: ARG002 - the interface
        return False

    def next_delay(self, *_: Any, **__: Any) -> None:
        return None


class AcceptedConnection(Connection[Any, Any]):
    """The connection that hooks and handlers of a server receive."""

    __slots__ = ()

    async def reconnect(self) -> None:
        raise UsageError(
            "a server cannot reconnect: close the connection, so that its client can reconnect"
        )


def is_handler(target: ServeTarget) -> bool:
    """Whether ``target`` is an async function, or an object whose ``__call__`` is one."""
    if isinstance(target, type):
        return False
    call = getattr(target, "__call__", None)  # noqa: B004 - its kind matters, not that it exists
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call)


def check_target(target: ServeTarget, flow: FlowOptions) -> None:
    """Raise InvalidOption unless the target can be run."""
    if isinstance(target, Socket):
        kind = type(target).__name__
        raise InvalidOption(
            f"every connection needs its own Socket: write serve({kind}, ...), "
            f"or a function that creates one, such as lambda: {kind}(...)"
        )
    if isinstance(target, HandshakeTarget):
        if flow.codec is not None:
            raise InvalidOption(
                f"{label(target)} encodes its own messages, so the connection cannot have a codec: "
                f"{target._codec_hint}"  # noqa: SLF001 - the same package
            )
        return
    if not callable(target) or (isinstance(target, type) and not issubclass(target, Socket)):
        # A Hub has a method that creates Sockets.
        hint = "; pass its method, as in hub.socket" if hasattr(target, "socket") else ""
        raise InvalidOption(
            f"target must be a Socket class or an async handler, not {target!r}{hint}"
        )
    if flow.codec is not None and isinstance(target, type):
        refuse_codec(target)
    arguments = (object(),) if is_handler(target) else ()
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError:
        if {"scope", "receive", "send"} <= inspect.signature(target).parameters.keys():
            raise InvalidOption(
                f"{label(target)} is an ASGI application: run it with an ASGI server on trio, such "
                "as hypercorn --worker-class trio"
            ) from None
        raise InvalidOption(
            f"{label(target)} cannot be called: a handler is async def handler(conn), "
            "and a class or function that creates a Socket takes no arguments"
        ) from None
    except ValueError:
        pass  # a callable in C has no signature


async def _fail(error: Exception, connection: Connection[Any, Any]) -> None:  # noqa: ARG001 - a handler
    raise error
