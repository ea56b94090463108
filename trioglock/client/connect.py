"""``connect()``: a connection for the time of an ``async with`` block."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import trio

from .._redact import without_user_info
from ..backoff import Backoff
from ..connection import Connection, Session, open_connection
from ..errors import InvalidOption
from ..hooks import Socket, check_socket
from ..options import (
    USER_AGENT,
    DialOptions,
    FlowOptions,
    MessageHeartbeat,
    Overflow,
    StreamSource,
    check_headers,
    check_subprotocols,
)
from ..telemetry import EventEmitter
from ..transports import (
    NativeTransport,
    Transport,
    check_proxy,
    check_url,
)
from .dialer import Dialer, HeadersSource, URLSource

__all__ = ["ConnectOptions", "connect"]

StateT = TypeVar("StateT")


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of :func:`connect`, for functions that pass them on."""

    additional_headers: HeadersSource
    subprotocols: Sequence[str] | None
    origin: str | None
    user_agent_header: str | None
    compression: Literal["deflate"] | None
    proxy: str | Literal[True] | None
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    stream: StreamSource | None
    max_redirects: int
    open_timeout: float | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    write_timeout: float | None
    heartbeat: MessageHeartbeat | None
    max_size: int | None
    max_queue: int | None
    write_limit: int
    overflow: Overflow
    reconnect: bool | Backoff
    transport: Transport | None
    name: str | None
    trace: bool


@overload
def connect(
    url: URLSource, socket: None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[Connection[None]]: ...


@overload
def connect(
    url: URLSource, socket: Socket[StateT], **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[Connection[StateT]]: ...


def connect(
    url: URLSource,
    socket: Socket[Any] | None = None,
    *,
    additional_headers: HeadersSource = None,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    user_agent_header: str | None = USER_AGENT,
    compression: Literal["deflate"] | None = "deflate",
    proxy: str | Literal[True] | None = True,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    stream: StreamSource | None = None,
    max_redirects: int = 10,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    write_timeout: float | None = 60,
    heartbeat: MessageHeartbeat | None = None,
    max_size: int | None = 2**20,
    max_queue: int | None = 16,
    write_limit: int = 2**16,
    overflow: Overflow = "wait",
    reconnect: bool | Backoff = False,
    transport: Transport | None = None,
    name: str | None = None,
    trace: bool = False,
) -> AbstractAsyncContextManager[Connection[Any]]:
    """Connect to a WebSocket server for the time of an ``async with`` block.

    ::

        async with connect("wss://example.org/feed", MySocket()) as conn:
            await conn.send("hello")
            async for message in conn:
                ...

    The body runs once the connection is open and ``init_stream`` and ``handle_connect`` have
    returned. Leaving the block closes with 1000, leaving it by an exception with 1011, and
    being cancelled drops the connection on the spot; no task and no socket remains.

    Args:
        url: ``ws://`` or ``wss://``; user and password in it become basic authentication
            (RFC 7617). Or a function, plain or async, that is asked before every attempt.
        socket: the hooks; by default messages go out and come in as they are.
        additional_headers: sent with the opening handshake. Or a function, plain or async, that
            is asked before every attempt: for fresh tokens.
        subprotocols: in the order of preference (RFC 6455, section 1.9).
        origin: the ``Origin`` header (RFC 6454).
        user_agent_header: the ``User-Agent`` header, or None for none.
        compression: ``"deflate"`` offers permessage-deflate (RFC 7692), None does not.
        proxy: the URL of a proxy (``http``, ``https``, ``socks5``, ``socks5h``, ``socks4``,
            ``socks4a``); True reads the environment (``https_proxy`` and so on), None uses none.
        ssl_context: for ``wss://``; by default the system's certificates are trusted. A client
            certificate in it is shown to whoever asks, also after a redirect to another origin:
            follow none with ``max_redirects=0``.
        server_hostname: the name that the certificate must have, if not the URL's.
        stream: an open trio stream to use instead of dialling, such as a Unix socket, or a
            function that opens one; an OSError of it counts as the network's failure.
        max_redirects: how many redirects are followed (RFC 9110, section 15.4); 0 for none.
            Another origin gets neither user, password nor credentials in headers, but see
            ``ssl_context``.
        open_timeout: seconds for dialling and the opening handshake; None for ever, as below.
        close_timeout: seconds for everything between the decision to close and the end.
        ping_interval: seconds between pings; None for no pings.
        ping_timeout: seconds after a ping without any received byte; None never expires.
        write_timeout: seconds without any progress of a write.
        heartbeat: messages instead of ping frames, see :class:`MessageHeartbeat`.
        max_size: the most bytes of one message, inflated; None for any number.
        max_queue: messages that may wait to be received before reading stops; None for any
            number.
        write_limit: bytes that may wait to be written before ``send`` waits.
        overflow: what happens at ``max_queue``: ``"wait"`` stops reading, ``"drop_oldest"`` and
            ``"drop_newest"`` lose messages and count them, ``"close"`` closes with 1008.
        reconnect: True or a :class:`Backoff` connects again after a loss or a failed attempt,
            the first one included. State, receive queue and queued messages survive.
        transport: the plug to the network, by default :class:`NativeTransport`.
        name: what logs call this connection; by default the host and a number.
        trace: write a line for each step to the logger ``trioglock.trace``.

    Returns:
        An async context manager that gives the :class:`Connection`.

    Raises:
        InvalidURL, InvalidOption: at once, at this call.
        ConnectError: on entering the block; its subclasses say what was wrong.
        BadHookResult, Exception: out of the block: what a hook or a background task raised.
    """
    dial = DialOptions(
        subprotocols=check_subprotocols(subprotocols),
        origin=origin,
        user_agent_header=user_agent_header,
        compression=compression,
        proxy=proxy,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        stream=stream,
        open_timeout=open_timeout,
        max_size=max_size,
        max_redirects=max_redirects,
    )
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
    dialer = Dialer(
        check_transport(transport), dial, url, additional_headers, check_reconnect(reconnect, dial)
    )
    check_proxy(proxy)
    # A function's answers are checked when it gives them.
    host = "client" if callable(url) else check_url(replace(dial, url=url))
    shown = "" if callable(url) else without_user_info(url)
    if not callable(additional_headers):
        check_headers("additional_headers", additional_headers)
    if not (name is None or isinstance(name, str)):
        raise InvalidOption(f"name is a str, not {name!r}")
    emitter = EventEmitter(name, of=host, url=shown, traced=trace)
    session = Session(dialer, flow, check_socket(socket), emitter)
    return open_connection(session, Connection(session, shown))


def check_transport(transport: Transport | None) -> Transport:
    """The transport to use; the native one for None."""
    if transport is None:
        return NativeTransport()
    if not isinstance(transport, Transport):
        raise InvalidOption(f"transport is a trioglock Transport, not {transport!r}")
    return transport


def check_reconnect(reconnect: bool | Backoff, dial: DialOptions) -> Backoff | None:
    """The policy for what the user gave."""
    if not isinstance(reconnect, bool | Backoff):
        raise InvalidOption(f"reconnect is True, False or a Backoff, not {reconnect!r}")
    if reconnect and isinstance(dial.stream, trio.abc.Stream):
        raise InvalidOption("to reconnect, stream must be a function that opens a new stream")
    if isinstance(reconnect, Backoff):
        return reconnect
    return Backoff() if reconnect else None
