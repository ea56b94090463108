"""The server: accepts clients, runs the target on each connection, and shuts down."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Sequence
from typing import Any

import trio

from ..close_codes import GOING_AWAY, SERVICE_RESTART
from ..connection import Connection
from ..errors import InvalidOption
from ..frames import Close, Frame
from ..transports import address_of, port_of
from ..transports.listeners import accept_ready
from .admission import HandshakeHandler
from .connections import ConnectionRegistry, ConnectionRunner

__all__ = ["Server"]

ACCEPT_PAUSE = 0.1
"""Seconds to wait when the system has run out of file descriptors or memory."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)

_logger = logging.getLogger("trioglock.server")


class Server:
    """A running server, returned by ``async with serve(...) as server``."""

    def __init__(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        handshakes: HandshakeHandler,
        runner: ConnectionRunner,
        registry: ConnectionRegistry,
        shutdown_timeout: float | None,
        drain: float,
    ) -> None:
        self._listeners = listeners
        self._handshakes = handshakes
        self._runner = runner
        self._registry = registry
        self._shutdown_timeout = math.inf if shutdown_timeout is None else shutdown_timeout
        self._drain = drain
        self._addresses = tuple(filter(None, map(address_of, listeners)))
        self._port = port_of(listeners)
        self._nursery: trio.Nursery
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._closing = False
        self._draining = False
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<Server on {', '.join(self._addresses)}, {len(self.connections)} connections>"

    @property
    def connections(self) -> frozenset[Connection[Any, Any]]:
        """The open connections: ``init_stream`` has returned, and the handler has not.

        A connection is included before its client receives the response to the handshake.
        """
        return self._registry.connections

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses or paths of its listeners, such as ``("127.0.0.1:8765", "[::1]:8765")``."""
        return self._addresses

    @property
    def port(self) -> int | None:
        """The TCP port that the server listens on, or None."""
        return self._port

    @property
    def closing(self) -> bool:
        """Whether :meth:`close` has been called. A health check can use it."""
        return self._closing

    def broadcast(self, frame: Frame) -> int:
        """Queue a frame, unchanged, for every connection; ``handle_send`` is not called.

        Never waits. Slow clients, whose ``write_limit`` is reached, are skipped.

        Args:
            frame: ``str``, bytes-like, :class:`PreparedMessage`, ``Ping`` or ``Pong``.

        Returns:
            The number of connections for which the frame was queued.

        Raises:
            InvalidFrame: ``frame`` is none of these.
        """
        return self._registry.broadcast(frame)

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Start shutting down: stop accepting, close all connections, and let the handlers finish.

        With the ``drain`` option, the connections are closed one by one, evenly spread over this
        time; until then, each can still be used. A second call during this time closes the
        remaining connections immediately. In all other cases, further calls do nothing.

        Tasks that are still running ``shutdown_timeout`` seconds after the server began to close
        the last connection are cancelled, including ``terminate`` hooks.

        Args:
            code: the code of the Close frames; by default 1001 (going away), or 1012 (service
                restart) with ``drain``.
            reason: the reason of the Close frames.

        Raises:
            InvalidOption: the code or reason cannot be sent.
        """
        if code is None:
            code = SERVICE_RESTART if self._drain else GOING_AWAY
        try:
            frame = Close(code, reason)
        except ValueError as error:
            raise InvalidOption(str(error)) from None
        if not self._closing:
            self._closing = True
            self._handshakes.close()
            self._accepting.cancel()
            self._draining = self._drain > 0 and bool(self.connections)
            if self._draining:
                self._everything.deadline = (
                    trio.current_time() + self._drain + self._shutdown_timeout
                )
                self._nursery.start_soon(self._close_gradually, frame)
            else:
                self._close_all(frame)
        elif self._draining:
            self._close_all(frame)

    async def _close_gradually(self, frame: Close) -> None:
        await self._registry.drain(frame, self._drain)
        if self._draining:
            self._close_all(frame)

    def _close_all(self, frame: Close) -> None:
        self._draining = False
        deadline = trio.current_time() + self._shutdown_timeout
        self._everything.deadline = deadline
        self._registry.close(frame, deadline)

    def abort(self) -> None:
        """Drop all connections immediately; only ``terminate`` hooks may finish."""
        self.close()
        if self._draining:
            self.close()
        self._everything.cancel()

    async def wait_closed(self) -> None:
        """Wait until the server has shut down and all handlers have ended."""
        await self._closed.wait()

    async def run(self) -> None:
        """Serve until :meth:`close`."""
        try:
            with self._everything:
                async with trio.open_nursery() as self._nursery:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for listener in self._listeners:
                                accepting.start_soon(self._accept, listener)
        finally:
            self._closed.set()

    async def _accept(self, listener: trio.abc.Listener[Any]) -> None:
        failing = False
        async with listener:
            while True:
                try:
                    most = await self._handshakes.wait_capacity()
                    streams = await accept_ready(listener, most)
                except OSError as error:
                    if error.errno in _EXHAUSTED and await self._handshakes.drop_oldest():
                        continue
                    if not failing:
                        _logger.error("cannot accept connections, retrying: %s", error)  # noqa: TRY400 - the system's failure
                    failing = True
                    await trio.sleep(ACCEPT_PAUSE)
                except trio.ClosedResourceError:
                    _logger.error("a listener was closed by other code")  # noqa: TRY400
                    return
                else:
                    failing = False
                    for stream in streams:
                        self._nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        """Serve one client, from the opening handshake to the end."""
        try:
            accepted = await self._handshakes.run(stream, self._nursery)
            if accepted is not None:
                link, route, group = accepted
                try:
                    await self._runner.run(link, route, self._nursery)
                finally:
                    self._handshakes.release(group)
        finally:
            try:
                await trio.aclose_forcefully(stream)
            except Exception:  # an exception raised by a third-party stream must not end the server
                _logger.exception("the stream of a client cannot be closed")
