"""Runs a target on each connection of a server, and registers the open connections."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames
from typing import Any

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
from ..hooks import Socket, check_socket
from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Link
from .routes import ConnectionHandler, HandshakeTarget, Route

__all__ = ["ConnectionRegistry", "ConnectionRunner"]

_logger = logging.getLogger("trioglock.server")


class ConnectionRegistry:
    """The open connections of a :class:`Server` or an ASGI application."""

    def __init__(self) -> None:
        self._sessions: dict[Connection[Any, Any], Session[Any]] = {}
        self._writers: dict[Connection[Any, Any], Writer] = {}  # a broadcast needs no sessions
        self._closing: Close | None = None
        self._open: dict[Session[Any], None] = {}  # while draining: not yet closed
        self._draining: trio.CancelScope | None = None
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
        elif self._draining is not None:
            self._open[session] = None

    def remove(self, connection: Connection[Any, Any]) -> None:
        """Remove a connection that has ended, or whose handler has returned."""
        session = self._sessions.pop(connection, None)
        self._writers.pop(connection, None)
        if self._draining is not None and session in self._open:
            del self._open[session]
            if not self._open:
                self._draining.cancel()

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

    async def drain(self, frame: Close, seconds: float) -> None:
        """Start closing the connections one by one, evenly spread over this time.

        Returns when all connections are being closed. It returns early if the connections end by
        themselves, or if :meth:`close` is called.
        """
        due = trio.current_time()
        end = due + seconds
        self._open = {session: None for session in self._sessions.values() if session.opened.is_set}
        with trio.CancelScope() as self._draining:
            while self._open:
                session = next(iter(self._open))
                del self._open[session]
                if not session.is_open:
                    continue  # its handler has not returned yet
                session.close(frame)
                # Relative to the previous due time, so that late wake-ups do not accumulate.
                due += (end - due) / (len(self._open) + 1)
                if self._open:
                    await trio.sleep_until(due)
        self._draining = None
        self._open = {}

    def close(self, frame: Close, deadline: float) -> None:
        """Start closing all connections, including those that open later."""
        if self._draining is not None:
            self._draining.cancel()
        self._closing = frame
        self._deadline = deadline
        for scope in self._limited:
            scope.deadline = deadline
        for session in tuple(self._sessions.values()):
            if session.opened.is_set:
                session.close(frame)


class ConnectionRunner:
    """Runs targets on any number of links; ``registry`` registers the open connections.

    ``max_size`` is the maximum size of a message in bytes that is joined from fragments.
    """

    def __init__(
        self,
        flow: FlowOptions,
        registry: ConnectionRegistry,
        *,
        trace: bool = False,
        max_size: int | None = None,
    ) -> None:
        self._flow = flow
        self._registry = registry
        self._trace = trace
        self._max_size = max_size

    async def run(self, link: Link, route: Route, nursery: trio.Nursery) -> None:
        """Run the target of a route until its connection has ended.

        An exception raised by the target is logged, and its client receives 1011. It does not
        affect other connections.

        Args:
            link: the link.
            route: the route of its request.
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
        socket, handler = self._prepare(route, handshake.admitted)
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
                # Without the task and scopes for a handler, which would take 5 KB.
                leaked: BaseException | None = None
                try:
                    await session.run(connection, nursery)
                except BaseException as error:
                    leaked = error
                try:
                    raise_selected(None, session.failures, leaked)
                finally:
                    del leaked  # the exception refers to this frame
        except Exception as error:
            if not is_end(error, session):
                _logger.exception("%s: %s failed", emitter.name, label(route.target))
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

    def _prepare(
        self, route: Route, admitted: object
    ) -> tuple[Socket[Any, Any], ConnectionHandler | None]:
        """Create the hooks, and the handler if there is one; an exception fails the connection."""
        target = route.target
        if route.is_handler:
            return Socket(), target  # type: ignore[return-value]
        try:
            if isinstance(target, HandshakeTarget):
                socket = target._make_socket(admitted)  # noqa: SLF001 - the same package
            else:
                socket = target()  # type: ignore[call-arg,assignment,operator]
            if not isinstance(socket, Socket):
                raise InvalidOption(f"{label(target)} must return a Socket, not {socket!r}")
            check_socket(socket, codec=self._flow.codec)
        except Exception as error:
            return Socket(), partial(_fail, error)
        return socket, None


class SingleLink:
    """The link source of a server's session: only the link that a client has opened."""

    __slots__ = ("_link",)

    final_error: Exception | None = None
    reconnects = is_endless = False

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


async def _fail(error: Exception, connection: Connection[Any, Any]) -> None:  # noqa: ARG001 - a handler
    raise error
