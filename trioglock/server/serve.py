"""``serve()``: a server for the duration of an ``async with`` block."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import trio

from .._hints import checks_keywords, describe_value
from .._scope import is_graceful, open_scope, scope_function
from ..errors import InvalidOption
from ..frames import Codec
from ..http import Response
from ..options import (
    DEFLATE,
    Compression,
    FlowKeywords,
    Rate,
    ServerFlowOptions,
    accepts_options,
    check_seconds,
    deflate_settings,
    take_options,
)
from ..transports import (
    NativeTransport,
    Origins,
    SelectSubprotocol,
    ServerTransport,
    UpgradeOptions,
)
from .admission import HandshakeHandler, HandshakeOptions, ProcessRequest
from .bind import BindOptions, OpenListeners, plan_listeners
from .client_address import Networks
from .connections import ConnectionRegistry, ConnectionRunner
from .descriptors import raise_descriptor_limit
from .forwarded import TrustedProxies
from .routes import Routes, ServeTargets
from .server import Server

__all__ = ["ServeOptions", "serve", "serve_forever"]


class ServeOptions(FlowKeywords, total=False):
    """The keyword arguments of :func:`serve`, for functions that pass them on.

    Args:
        unix_path: the path of a Unix socket to listen on, instead of host and port.
        listeners: trio listeners to use, instead of host and port; the server closes them.
        backlog: maximum number of connections waiting to be accepted; None for the system's
            maximum.
        reuse_port: let other processes listen on the same port (SO_REUSEPORT).
        ssl_context: the TLS configuration, to serve ``wss://``; by default ``ws://`` is served.
        origins: origins whose pages may connect, such as ``"https://example.org"``: strings,
            compiled patterns, or None for clients that send no origin. Strings are normalized to
            the form in which browsers send them. Other origins are rejected with 403. By default,
            any page may connect (RFC 6455, section 10.2).
        subprotocols: the supported names, in order of preference; a client that offers none
            of them is rejected with 400.
        select_subprotocol: a function that takes the request and the offered names and chooses the
            subprotocol instead; it may return None.
        compression: ``"deflate"`` accepts permessage-deflate (RFC 7692), a :class:`Deflate`
            accepts it with other settings, and None disables it.
        process_request: a function, plain or async, called with every :class:`Request`. It
            returns a :class:`Response` to answer with plain HTTP, or None to continue.
        max_connections: maximum number of connections; further clients get 503 and Retry-After
            (RFC 9110, section 10.2.3). None for no limit.
        max_connections_per_address: maximum number of connections from one IPv4 address or one
            IPv6 /64 network; further clients get 429 and Retry-After. None for no limit. Unix
            sockets are exempt.
        max_handshakes: maximum number of concurrent opening handshakes; above the limit, the oldest
            handshake from the address with the most handshakes is dropped. The limit cannot exceed
            half the number of files that the process may open; None uses that half.
        max_handshakes_per_address: maximum number of concurrent opening handshakes from one
            address; above the limit, its oldest handshake is dropped. None for no limit per
            address.
        forwarded: the number of proxies in front of the server, or their networks, such as
            ``"10.0.0.0/8"``. The client's address, ``request.secure`` and the host are then taken
            from the ``Forwarded`` header (RFC 7239), or from ``X-Forwarded-For``, ``-Proto`` and
            ``-Host``. By default, these headers have no effect.
        proxy_protocol: the networks of proxies that send a PROXY protocol header, version 1 or 2,
            at the start of each connection, before TLS, as HAProxy does with ``send-proxy`` or
            ``send-proxy-v2``. Connections from these networks, and those to a Unix socket, are
            dropped if they do not begin with such a header.
        max_header_size: maximum size of a request's headers in bytes; larger requests get 431
            (RFC 6585, section 5).
        open_timeout: seconds for TLS and the opening handshake, including ``process_request``. For
            a plain response, it is extended by a second per 64 KiB. None for no limit.
        drain: seconds over which the connections are closed when the server shuts down. They are
            closed one by one with code 1012 (service restart), so that clients do not all
            reconnect at once. With 0, they are all closed immediately, with 1001. See
            :meth:`Server.close`.
        shutdown_timeout: seconds between the moment when the server begins to close the last
            connection and the cancellation of all remaining tasks; None for no limit.
        message_rate: the limit on the messages, pings and pongs of each client, such as
            ``Rate(100, per=1)``. The server reads more slowly from a client that exceeds it. It
            closes the connection with 1008 once the total time for which it has slowed the client
            down exceeds the remaining time by ten periods (``per``). None for no limit.
        byte_rate: the same for the bytes that each client sends, including frame headers.
        max_size: maximum size of one decompressed message in bytes; None for no limit.
        transport: :class:`NativeTransport` or :class:`TrioWebsocketTransport`.
        codec: encodes and decodes the messages, such as :class:`trioglock.codecs.JSON`; see
            :class:`trioglock.codecs.Codec`. By default messages are ``str`` and ``bytes``.
        trace: write a line for each step of every connection; see :mod:`trioglock.telemetry`.
    """

    unix_path: str | os.PathLike[str] | None
    listeners: Sequence[trio.abc.Listener[Any]] | None
    backlog: int | None
    reuse_port: bool
    ssl_context: ssl.SSLContext | None
    origins: Origins | None
    subprotocols: Sequence[str] | None
    select_subprotocol: SelectSubprotocol | None
    compression: Compression
    process_request: ProcessRequest | None
    max_connections: int | None
    max_connections_per_address: int | None
    max_handshakes: int | None
    max_handshakes_per_address: int | None
    forwarded: TrustedProxies | None
    proxy_protocol: Networks | None
    max_header_size: int
    open_timeout: float | None
    drain: float
    shutdown_timeout: float | None
    message_rate: Rate | None
    byte_rate: Rate | None
    max_size: int | None
    transport: ServerTransport | None
    codec: Codec[Any] | None
    trace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of the server itself: keyword arguments of :func:`serve`."""

    drain: float = 0
    shutdown_timeout: float | None = 30
    transport: ServerTransport | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        if self.drain != 0:
            check_seconds("drain", self.drain, none=False)
        if self.drain == math.inf:
            raise InvalidOption("drain must be finite")
        check_seconds("shutdown_timeout", self.shutdown_timeout)
        if self.transport is not None and not isinstance(self.transport, ServerTransport):
            raise InvalidOption(
                f"transport must be a ServerTransport, not {describe_value(self.transport)}"
            )


@checks_keywords("serve")
@accepts_options(
    [ServeOptions, FlowKeywords],
    [BindOptions, HandshakeOptions, UpgradeOptions, ServerOptions, ServerFlowOptions],
)
def serve(
    target: ServeTargets,
    host: str | None = None,
    port: int | None = None,
    **options: Unpack[ServeOptions],
) -> AbstractAsyncContextManager[Server]:
    """Serve WebSockets for the duration of an ``async with`` block.

    ::

        async with serve(Echo, "127.0.0.1", 8765) as server:
            await server.wait_closed()

    The server listens while the block runs. Leaving the block, even because of an exception, shuts
    the server down as :meth:`Server.close` does; cancellation drops all connections immediately. An
    exception raised by a target is logged by the ``trioglock.server`` logger and ends only the
    connection of that target.

    Every connection needs a file descriptor. On POSIX, entering the block therefore raises the
    process's soft limit on open files (RLIMIT_NOFILE) to the hard limit, but to no more than
    1,048,576.

    Args:
        target: a :class:`Socket` class or a function that returns a Socket, either of which is
            called for each connection; or ``async def handler(conn)``: the connection closes when
            the handler returns; or the ``socket`` of a :class:`.Hub` or of
            :class:`trioglock.channels.Channels`.
            To serve several targets, pass a mapping of paths to targets; a :class:`Response` in it
            answers plain HTTP. ``"/feed"`` matches only this path, and ``"/live/*"`` matches all
            paths that begin with ``/live/``, unless a longer pattern matches. Clients that request
            other paths get 404.
        host: an address or name to listen on; None for every interface.
        port: the port; 0 chooses a free one (see :attr:`Server.port`).
        options: the keys of :class:`ServeOptions`.

    Returns:
        An async context manager that returns the :class:`Server`.

    Raises:
        InvalidOption: an argument is invalid; raised by the call itself, before the block is
            entered.
        TypeError: an option does not exist; also raised by the call itself.
        OSError: on entering the block; the server cannot listen on the address.
    """
    given: dict[str, Any] = {**options}
    server = take_options(ServerOptions, given)
    bind = take_options(BindOptions, given)
    handshakes = take_options(HandshakeOptions, given)
    flow = take_options(ServerFlowOptions, given)
    upgrades = take_options(UpgradeOptions, given)
    transport = server.transport or NativeTransport()
    if flow.fragments:
        upgrades = replace(upgrades, fragments=True)
    if not transport.compresses:
        settings = deflate_settings(upgrades.compression)
        if not (settings is None or settings == DEFLATE):
            raise InvalidOption(
                f"{type(transport).__name__} has no compression, so it cannot use {settings}; "
                "use NativeTransport or leave out the compression option"
            )
        upgrades = replace(upgrades, compression=None)
    if flow.limits_rates and not transport.reports_pings:
        raise InvalidOption(
            f"{type(transport).__name__} answers pings itself, so it cannot limit them: with "
            "message_rate or byte_rate use NativeTransport"
        )
    open_listeners = plan_listeners(host, port, bind)
    routes = Routes(target, flow, upgrades)
    if flow.fragments:
        _check_fragments(transport, routes)
    registry = ConnectionRegistry()
    runner = ConnectionRunner(flow, registry, trace=server.trace, max_size=upgrades.max_size)

    def create(listeners: Sequence[trio.abc.Listener[Any]]) -> Server:
        handler = HandshakeHandler(transport, routes, handshakes)
        return Server(listeners, handler, runner, registry, server.shutdown_timeout, server.drain)

    return _serving(open_listeners, create)


def _check_fragments(transport: ServerTransport, routes: Routes) -> None:
    """Raise InvalidOption if fragments cannot be received."""
    if not transport.receives_fragments:
        raise InvalidOption(
            f"{type(transport).__name__} cannot receive fragments: with fragments=True use "
            "NativeTransport"
        )
    if not all(route.is_handler or isinstance(route.target, Response) for route in routes):
        raise InvalidOption(
            "the hooks of a Socket need whole messages: with fragments=True serve an async "
            "handler, and use conn.receive_fragments() in it"
        )


@scope_function("serve(...)")
async def _serving(
    open_listeners: OpenListeners,
    create: Callable[[Sequence[trio.abc.Listener[Any]]], Server],
) -> AsyncIterator[Server]:
    """Run a server while the body runs.

    A failed connection does not end the server, but KeyboardInterrupt does.
    """
    raise_descriptor_limit()
    server = create(await open_listeners())

    async def finish(body_error: BaseException | None) -> None:
        if body_error is None or is_graceful(body_error):
            if not server.closing:
                server.close()
            await server.wait_closed()

    async with open_scope(finish=finish, message="the body and the server both failed") as nursery:
        nursery.start_soon(server.run)
        yield server


@checks_keywords("serve_forever", ServeOptions)
async def serve_forever(
    target: ServeTargets,
    host: str | None = None,
    port: int | None = None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Run a server as a task, until :meth:`Server.close` is called.

    ``nursery.start`` returns the :class:`Server` once it is listening::

        server = await nursery.start(partial(serve_forever, Echo, "127.0.0.1", 8765))

    Args:
        target: as in :func:`serve`.
        host: as in :func:`serve`.
        port: as in :func:`serve`.
        task_status: passed by ``nursery.start``.
        options: the keyword arguments of :func:`serve`.

    Raises:
        InvalidOption, OSError: as in :func:`serve`.
    """
    async with serve(target, host, port, **options) as server:
        task_status.started(server)
        await server.wait_closed()
