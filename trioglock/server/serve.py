"""``serve()``: a server for the time of an ``async with`` block."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import trio

from ..errors import InvalidOption
from ..options import FlowOptions, MessageHeartbeat, Overflow, check_seconds
from ..transports import (
    NativeTransport,
    Origins,
    SelectSubprotocol,
    ServerTransport,
    UpgradeOptions,
)
from .bind import choose_place
from .connections import ConnectionRegistry
from .handshake import HandshakeHandler, HandshakeOptions, ProcessRequest
from .runner import ConnectionRunner, Target
from .scope import running
from .server import Server

__all__ = ["ServeOptions", "serve", "serve_forever"]


class ServeOptions(TypedDict, total=False):
    """The keyword arguments of :func:`serve`, for functions that pass them on."""

    unix_path: str | os.PathLike[str] | None
    listeners: Sequence[trio.abc.Listener[Any]] | None
    backlog: int | None
    reuse_port: bool
    ssl_context: ssl.SSLContext | None
    origins: Origins | None
    subprotocols: Sequence[str] | None
    select_subprotocol: SelectSubprotocol | None
    compression: Literal["deflate"] | None
    process_request: ProcessRequest | None
    max_connections: int | None
    max_handshakes: int | None
    max_header_size: int
    open_timeout: float | None
    close_timeout: float | None
    shutdown_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    write_timeout: float | None
    heartbeat: MessageHeartbeat | None
    max_size: int | None
    max_queue: int | None
    write_limit: int
    overflow: Overflow
    transport: ServerTransport | None
    trace: bool


def serve(
    target: Target,
    host: str | None = None,
    port: int | None = None,
    *,
    unix_path: str | os.PathLike[str] | None = None,
    listeners: Sequence[trio.abc.Listener[Any]] | None = None,
    backlog: int | None = None,
    reuse_port: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    origins: Origins | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Literal["deflate"] | None = "deflate",
    process_request: ProcessRequest | None = None,
    max_connections: int | None = None,
    max_handshakes: int | None = 2**12,
    max_header_size: int = 2**15,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    shutdown_timeout: float | None = 30,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    write_timeout: float | None = 60,
    heartbeat: MessageHeartbeat | None = None,
    max_size: int | None = 2**20,
    max_queue: int | None = 16,
    write_limit: int = 2**16,
    overflow: Overflow = "wait",
    transport: ServerTransport | None = None,
    trace: bool = False,
) -> AbstractAsyncContextManager[Server]:
    """Serve WebSockets for the time of an ``async with`` block.

    ::

        async with serve(Echo, "127.0.0.1", 8765) as server:
            await server.wait_closed()

    On entering the block the server listens already. Leaving it shuts down as
    :meth:`Server.close` does, also by an exception; being cancelled drops everything on the spot.
    What a target raises is logged by the logger ``trioglock.server``, and concerns its own
    connection alone.

    Args:
        target: a :class:`Socket` class, or a function that makes a Socket, called for each
            connection; or ``async def handler(conn)``, whose connection closes when it returns.
        host: an address or name to listen on; None for every interface.
        port: 0 for one that is free, see :attr:`Server.port`.
        unix_path: listen on a Unix socket there instead.
        listeners: listen on these trio listeners instead; they are closed at the end.
        backlog: how many clients may wait to be accepted; None for the system's maximum.
        reuse_port: let other processes listen on the same port (SO_REUSEPORT).
        ssl_context: serve ``wss://``.
        origins: the origins whose pages may connect, such as ``"https://example.org"``: exact
            ones, compiled patterns, None for clients that send none. Others get 403. By default
            anyone may (RFC 6455, section 10.2).
        subprotocols: in the order of preference; a client that offers none of them gets 400.
        select_subprotocol: chooses instead, from the request and what the client offers; may
            return None.
        compression: ``"deflate"`` agrees to permessage-deflate (RFC 7692), None does not.
        process_request: a function, plain or async, that gets every :class:`Request`, and
            returns a :class:`Response` to answer it in plain HTTP, or None to go on.
        max_connections: beyond it clients get 503 with Retry-After (RFC 9110, section 10.2.3); None
            for any number.
        max_handshakes: so many may be in their opening handshake at the same time; beyond it the
            one that began first is dropped. None for any number.
        max_header_size: the most bytes of a request's headers; beyond it clients get 431 (RFC 6585,
            section 5).
        open_timeout: seconds for TLS and the opening handshake, ``process_request`` included.
        close_timeout: seconds for everything between the decision to close a connection and its
            end.
        shutdown_timeout: seconds from the decision to close the server until whatever has not
            ended is cancelled; None for ever, as above.
        ping_interval: seconds between pings; None for no pings.
        ping_timeout: seconds after a ping without any received byte; None never expires.
        write_timeout: seconds without any progress of a write.
        heartbeat: messages instead of ping frames, see :class:`MessageHeartbeat`.
        max_size: the most bytes of one message, inflated; None for any number.
        max_queue: messages that may wait to be received before reading stops; None for any
            number.
        write_limit: bytes that may wait to be written before ``send`` waits, and before a
            broadcast passes the connection over.
        overflow: what happens at ``max_queue``: ``"wait"`` stops reading, ``"drop_oldest"`` and
            ``"drop_newest"`` lose messages and count them, ``"close"`` closes with 1008.
        transport: :class:`NativeTransport`, or :class:`TrioWebsocketTransport`.
        trace: write a line for each step of every connection, see :mod:`trioglock.telemetry`.

    Returns:
        An async context manager that gives the :class:`Server`.

    Raises:
        InvalidOption: at once, at this call.
        OSError: on entering the block: the address cannot be listened on.
    """
    transport = _check_transport(transport)
    flow = FlowOptions(
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        write_timeout=write_timeout,
        heartbeat=heartbeat,
        max_queue=max_queue,
        write_limit=write_limit,
        overflow=overflow,
    )
    upgrades = UpgradeOptions(
        origins=origins,
        subprotocols=subprotocols,
        select_subprotocol=select_subprotocol,
        compression=compression,
        max_size=max_size,
    )
    if not transport.compresses:
        upgrades = replace(upgrades, compression=None)
    options = HandshakeOptions(
        ssl_context=ssl_context,
        process_request=process_request,
        open_timeout=open_timeout,
        max_header_size=max_header_size,
        max_connections=max_connections,
        max_handshakes=max_handshakes,
    )
    check_seconds("shutdown_timeout", shutdown_timeout)
    place = choose_place(host, port, unix_path, listeners, backlog=backlog, reuse_port=reuse_port)
    reception = HandshakeHandler(transport, upgrades, options)
    roster = ConnectionRegistry()
    program = ConnectionRunner(target, flow, roster, trace=trace)
    make = partial(
        Server,
        reception=reception,
        program=program,
        roster=roster,
        shutdown_timeout=shutdown_timeout,
    )
    return running(place, make)


async def serve_forever(
    target: Target,
    host: str | None = None,
    port: int | None = None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve as a task, until somebody calls :meth:`Server.close`.

    ``nursery.start`` gives the :class:`Server` once it listens::

        server = await nursery.start(partial(serve_forever, Echo, "127.0.0.1", 8765))

    Args:
        target: as for :func:`serve`.
        host: as for :func:`serve`.
        port: as for :func:`serve`.
        task_status: of ``nursery.start``.
        options: the keyword arguments of :func:`serve`.

    Raises:
        InvalidOption, OSError: as :func:`serve`.
    """
    async with serve(target, host, port, **options) as server:
        task_status.started(server)
        await server.wait_closed()


def _check_transport(transport: ServerTransport | None) -> ServerTransport:
    if transport is None:
        return NativeTransport()
    if not isinstance(transport, ServerTransport):
        raise InvalidOption(f"transport is a ServerTransport, not {transport!r}")
    return transport
