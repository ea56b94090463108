"""The server: accepts clients, runs a program for each, and ends in good order."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import trio

from ..connection import Connection
from ..errors import InvalidOption
from ..frames import Close, Frame
from ..transports import address_of, port_of
from .connections import ConnectionRegistry
from .handshake import HandshakeHandler
from .runner import ConnectionRunner

__all__ = ["Server"]

ACCEPT_PAUSE = 0.1
"""Seconds before another attempt, when the system has no sockets, or no memory, left."""

_logger = logging.getLogger("trioglock.server")


class Server:
    """A running server; what ``async with serve(...) as server`` gives."""

    def __init__(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        reception: HandshakeHandler,
        program: ConnectionRunner,
        roster: ConnectionRegistry,
        shutdown_timeout: float | None,
    ) -> None:
        self._listeners = listeners
        self._reception = reception
        self._program = program
        self._roster = roster
        self._shutdown_timeout = math.inf if shutdown_timeout is None else shutdown_timeout
        self._addresses = tuple(filter(None, map(address_of, listeners)))
        self._port = port_of(listeners)
        self._nursery: trio.Nursery
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._closing = False
        self._closed = trio.Event()

    def __repr__(self) -> str:
        return f"<Server on {', '.join(self._addresses)}, {len(self.connections)} connections>"

    # What is known.

    @property
    def connections(self) -> frozenset[Connection[Any]]:
        """The connections that are open now: upgraded, and ``handle_connect`` has returned."""
        return self._roster.connections

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, such as ``("127.0.0.1:8765", "[::1]:8765")``, or a path."""
        return self._addresses

    @property
    def port(self) -> int | None:
        """The TCP port it listens on, or None if there is none."""
        return self._port

    # What it does.

    def broadcast(self, frame: Frame) -> int:
        """Queue a frame, as it is, for every connection; past ``handle_send``.

        It never waits. A client that is too slow, so that its ``write_limit`` is reached, does
        not get this one.

        Args:
            frame: ``str``, bytes-like, ``Ping`` or ``Pong``.

        Returns:
            For how many it was queued.

        Raises:
            InvalidFrame: it is none of these.
        """
        return self._roster.broadcast(frame)

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Begin to shut down: accept nobody, close all connections, let their handlers finish.

        What has not ended after ``shutdown_timeout`` is cancelled, ``terminate`` hooks included.
        The first close wins.

        Args:
            code: of the Close frames; 1001 says that the server goes away, 1012 that it restarts.
            reason: their text.

        Raises:
            InvalidOption: the code or reason may not be sent.
        """
        try:
            frame = Close(code, reason)
        except ValueError as error:
            raise InvalidOption(str(error)) from None
        if self._closing:
            return
        self._closing = True
        self._reception.close()
        self._accepting.cancel()
        deadline = trio.current_time() + self._shutdown_timeout
        self._everything.deadline = deadline
        self._roster.close(frame, deadline)

    def abort(self) -> None:
        """Drop everything on the spot; only ``terminate`` hooks have their time."""
        self.close()
        self._everything.cancel()

    async def wait_closed(self) -> None:
        """Wait until the server has shut down and all handlers have ended."""
        await self._closed.wait()

    # Its tasks.

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
                    stream = await listener.accept()
                except OSError as error:
                    if not failing:
                        _logger.error("cannot accept connections, will try again: %s", error)  # noqa: TRY400 - the system's failure, not the code's
                    failing = True
                    await trio.sleep(ACCEPT_PAUSE)
                except trio.ClosedResourceError:
                    _logger.error("a listener was closed behind the server's back")  # noqa: TRY400
                    return
                else:
                    failing = False
                    self._nursery.start_soon(self._host, stream)

    async def _host(self, stream: trio.abc.Stream) -> None:
        """One client, from the first byte to the last."""
        try:
            link = await self._reception.receive(stream, self._nursery)
            if link is not None:
                try:
                    await self._program.run(link)
                finally:
                    self._reception.leave()
        finally:
            await _free(stream)


async def _free(stream: trio.abc.Stream) -> None:
    """Close it; what a stream of somebody else's listener raises then is no reason to end."""
    try:
        await trio.aclose_forcefully(stream)
    except Exception:
        _logger.exception("the stream of a client cannot be closed")
