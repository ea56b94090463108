"""The program: what a server runs on each connection, whatever the connection came by."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from .._scope import leaves
from ..connection import Connection, Session, open_connection
from ..disconnect import Disconnect, ProtocolViolation
from ..errors import ConnectionClosed, InvalidOption
from ..hooks import Socket
from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Link
from .connections import ConnectionRegistry
from .single_link import AcceptedConnection, SingleLink

__all__ = ["ConnectionRunner", "Handler", "Target"]

Handler: TypeAlias = Callable[[Connection[None]], Awaitable[object]]
"""``async def handler(conn)``: the connection closes with 1000 when it returns."""

Target: TypeAlias = Callable[[], Socket[Any]] | Handler
"""A Socket class, or a function that makes a Socket for each connection; or a handler."""

_logger = logging.getLogger("trioglock.server")


class ConnectionRunner:
    """Runs one target on any number of links.

    Args:
        target: what to run.
        flow: time-outs and limits of each connection.
        roster: lists those that are open.
        trace: whether they write a trace.

    Raises:
        InvalidOption: the target cannot be run.
    """

    def __init__(
        self, target: Target, flow: FlowOptions, roster: ConnectionRegistry, *, trace: bool = False
    ) -> None:
        check_target(target)
        self._target = target
        self._flow = flow
        self._roster = roster
        self._trace = trace

    async def run(self, link: Link) -> None:
        """Run the target until its connection has ended.

        What it raises is logged, and its client sees 1011: it is nobody else's business.
        """
        handshake = link.handshake
        emitter = EventEmitter(
            None,
            of=handshake.peer or "a client",
            url=handshake.url,
            side="server",
            traced=self._trace,
        )
        name = emitter.name
        socket, handler = self._prepare()
        session = Session(SingleLink(link), self._flow, socket, emitter)
        connection = AcceptedConnection(session, handshake.url)
        terminate = session.actor.terminate_hook
        if terminate.is_async:
            terminate.call = partial(self._terminate, terminate.call)
        try:
            async with open_connection(session, connection):
                with self._roster.listed(session, connection):
                    await handler(connection)
        except Exception as error:
            if not _is_end(error, session):
                _logger.exception("%s: %s failed", name, _label(self._target))
        cause = session.close_state.cause
        if isinstance(cause, ProtocolViolation):
            _logger.info("%s: closed with %d: %s", name, cause.code, cause.reason)

    async def _terminate(
        self, hook: Callable[..., Awaitable[object]], reason: Disconnect, state: object
    ) -> None:
        """Run the hook, which is shielded: only so is it over when the server must be."""
        with self._roster.bounded():
            await hook(reason, state)

    def _prepare(self) -> tuple[Socket[Any], Handler]:
        """The hooks and the handler; a factory that fails is a connection that fails."""
        if is_handler(self._target):
            return Socket(), self._target  # type: ignore[return-value]
        try:
            socket = self._target()  # type: ignore[call-arg]
            if not isinstance(socket, Socket):
                raise InvalidOption(f"{_label(self._target)} gave {socket!r}, which is no Socket")
        except Exception as error:
            return Socket(), partial(_fail, error)
        return socket, _drain


def is_handler(target: Target) -> bool:
    """Whether it is an async function, or an object that is called like one."""
    return inspect.iscoroutinefunction(target) or (
        not isinstance(target, type) and inspect.iscoroutinefunction(getattr(target, "__call__"))  # noqa: B004, B009
    )


def check_target(target: Target) -> None:
    """Raise InvalidOption unless it can be run."""
    if isinstance(target, Socket):
        kind = type(target).__name__
        raise InvalidOption(
            f"each connection has its own Socket: write serve({kind}, ...), "
            f"or a function that makes one, such as lambda: {kind}(...)"
        )
    if isinstance(target, type) and not issubclass(target, Socket):
        raise InvalidOption(f"target is a Socket class or an async handler, not {target!r}")
    if not callable(target):
        raise InvalidOption(f"target is a Socket class or an async handler, not {target!r}")
    arguments = (object(),) if is_handler(target) else ()
    try:
        inspect.signature(target).bind(*arguments)
    except TypeError:
        raise InvalidOption(
            f"{_label(target)} cannot be called: a handler is async def handler(conn), "
            "a class or function that makes a Socket takes no arguments"
        ) from None
    except ValueError:
        pass  # a callable in C has no signature


async def _drain(connection: Connection[Any]) -> None:
    """For targets that are only hooks: what they deliver has no reader here and is forgotten."""
    async for _ in connection:
        pass


async def _fail(error: Exception, connection: Connection[Any]) -> None:  # noqa: ARG001 - a handler
    raise error


def _is_end(error: BaseException, session: Session[Any]) -> bool:
    """Whether it tells no more than the connection's end, also as a nursery hands it on."""
    return all(
        isinstance(leaf, ConnectionClosed) and leaf.origin is session for leaf in leaves(error)
    )


def _label(target: object) -> str:
    while isinstance(target, partial):
        target = target.func
    return str(getattr(target, "__qualname__", type(target).__name__))
