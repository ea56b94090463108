"""``connect()``: a connection for the duration of an ``async with`` block."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Unpack

import trio

from .._hints import checks_keywords, describe_value
from .._redact import without_user_info
from .._text import as_text, seconds_text
from .._types import DecodedT_co, MessageT_co, StateT
from ..connection import (
    Connection,
    ConnectionScope,
    Session,
    Subscriptions,
    check_subscriptions,
)
from ..errors import InvalidOption
from ..frames import Codec
from ..hooks import Socket, check_socket, overrides, refuse_subscriptions
from ..options import (
    DEFLATE,
    Compression,
    DialOptions,
    FlowKeywords,
    FlowOptions,
    Rate,
    StreamSource,
    accepts_options,
    aim,
    check_headers,
    deflate_settings,
    take_options,
)
from ..retry import Backoff
from ..telemetry import EventEmitter
from ..transports import NativeTransport, Transport, check_proxy, check_url
from .dialer import HEADERS, Dialer, HeadersSource, URLSource
from .sources import check_not_called

__all__ = ["ConnectOptions", "connect"]


class ConnectOptions(FlowKeywords, Generic[DecodedT_co], total=False):
    """The keyword arguments of :func:`connect`, for functions that pass them on.

    Args:
        additional_headers: headers sent with the opening handshake; or a function, plain or async,
            that returns them and is called before every attempt, for example to fetch a fresh
            token.
        subprotocols: the names to offer, in order of preference (RFC 6455, section 1.9).
        origin: the ``Origin`` header (RFC 6454).
        user_agent_header: the ``User-Agent`` header, or None to send none.
        compression: ``"deflate"`` offers permessage-deflate (RFC 7692), a :class:`Deflate` offers
            it with other settings, and None disables it.
        proxy: the URL of a proxy (``http``, ``https``, ``socks5``, ``socks5h``, ``socks4``,
            ``socks4a``). True uses the first of these environment variables that is set:
            ``ws_proxy`` (for ``wss://``, ``wss_proxy``), ``socks_proxy``, ``https_proxy``,
            ``http_proxy`` (only for ``ws://``), ``all_proxy``; if ``no_proxy`` excludes the host,
            no proxy is used. If none of the variables is set, the system's settings apply. None
            connects directly.
        ssl_context: the TLS configuration for ``wss://``; by default the system's certificates are
            trusted. A client certificate in it is sent to every server that requests one, even
            after a redirect to another origin; prevent that with ``max_redirects=0``.
        server_hostname: the host name that the certificate must match; by default that of the URL.
        stream: an open trio stream to use instead of connecting, such as a Unix socket, or an
            async function that opens one; an OSError that it raises counts as a network failure.
        max_redirects: number of redirects to follow (RFC 9110, section 15.4); 0 follows none.
            Credentials in the URL, in headers and among the subprotocols are not sent to another
            origin.
        open_timeout: seconds for connecting and the opening handshake; None for no limit.
        max_header_size: maximum size in bytes of the headers of the server's or a proxy's response.
        max_size: maximum size of one decompressed message in bytes; None for no limit.
        reconnect: True or a :class:`Backoff` reconnects after the connection is lost or an attempt
            fails, including the first one. The state, the receive queue and the queued messages
            are kept.
        send_rate: a :class:`Rate` that limits the rate of the messages sent over all links of the
            connection, regardless of whether the program, hooks, subscriptions or message
            heartbeats send them. Control frames are exempt. None for no limit.
        transport: opens the network connections; by default :class:`NativeTransport`.
        subscriptions: describes the feeds of the server, for :meth:`Connection.subscribe`.
        codec: encodes and decodes the messages, such as :class:`trioglock.codecs.JSON`; see
            :class:`trioglock.codecs.Codec`. By default messages are ``str`` and ``bytes``.
        name: the name of the connection in logs; by default its host and a number.
        trace: write a line for each step to the ``trioglock.trace`` logger.
    """

    additional_headers: HeadersSource
    subprotocols: Sequence[str] | None
    origin: str | None
    user_agent_header: str | None
    compression: Compression
    proxy: str | Literal[True] | None
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    stream: StreamSource | None
    max_redirects: int
    open_timeout: float | None
    max_header_size: int
    max_size: int | None
    reconnect: bool | Backoff
    send_rate: Rate | None
    transport: Transport | None
    subscriptions: Subscriptions[Any, Any] | None
    codec: Codec[DecodedT_co] | None
    name: str | None
    trace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Client options that apply to all attempts: keyword arguments of :func:`connect`."""

    additional_headers: HeadersSource = None
    reconnect: bool | Backoff = False
    send_rate: Rate | None = None
    transport: Transport | None = None
    subscriptions: Subscriptions[Any, Any] | None = None
    name: str | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        if not callable(self.additional_headers):
            check_not_called("additional_headers", self.additional_headers, HEADERS)
            check_headers("additional_headers", self.additional_headers)
        if not isinstance(self.reconnect, bool | Backoff):
            raise InvalidOption(
                f"reconnect must be True, False or a Backoff, not {describe_value(self.reconnect)}"
            )
        if not isinstance(self.send_rate, Rate | None):
            raise InvalidOption(
                "send_rate must be a Rate, such as Rate(5, per=1.0), or None, "
                f"not {describe_value(self.send_rate)}"
            )
        if self.transport is not None and not isinstance(self.transport, Transport):
            raise InvalidOption(
                f"transport must be a trioglock Transport, not {describe_value(self.transport)}"
            )
        check_subscriptions(self.subscriptions)
        if not (self.name is None or isinstance(self.name, str)):
            raise InvalidOption(f"name must be a str, not {self.name!r}")
        if self.name is not None:
            object.__setattr__(self, "name", as_text(self.name))

    @property
    def backoff(self) -> Backoff | None:
        """The reconnect policy, or None."""
        return self.reconnect if isinstance(self.reconnect, Backoff) else _BACKOFFS[self.reconnect]


_NATIVE = NativeTransport()  # has no state

_BACKOFFS = {True: Backoff(), False: None}


@checks_keywords("connect")
@accepts_options([ConnectOptions, FlowKeywords], [ClientOptions, DialOptions, FlowOptions])
def connect(
    url: URLSource,
    socket: Socket[StateT, MessageT_co] | None = None,
    **options: Unpack[ConnectOptions[MessageT_co]],
) -> AbstractAsyncContextManager[Connection[StateT, MessageT_co]]:
    """Connect to a WebSocket server for the duration of an ``async with`` block.

    ::

        async with connect("wss://example.org/feed", MySocket()) as conn:
            await conn.send("hello")
            async for message in conn:
                ...

    The body runs once the connection is open and ``init_stream`` and ``handle_connect`` have
    returned. Leaving the block closes the connection with 1000, or with 1011 after an
    exception. Cancellation drops the connection immediately. No task or socket outlives the block.

    Args:
        url: ``ws://`` or ``wss://``; a user name and password in it are sent as basic
            authentication (RFC 7617). Non-ASCII characters are encoded, those in the host according
            to IDNA 2008 (RFC 5891). You can also pass a function, plain or async, that returns the
            URL and is called before every attempt.
        socket: the hooks; by default messages are sent and delivered unchanged.
        options: the keys of :class:`ConnectOptions`.

    Returns:
        An async context manager that yields the :class:`Connection`.

    Raises:
        InvalidURL, InvalidOption: immediately, by the call itself.
        TypeError: an option does not exist; also immediately.
        ConnectError: on entering the block; one of its subclasses.
        BadHookResult, Exception: raised by a hook or a background task; on leaving the block, or on
            entering it if ``init_stream`` or the first ``handle_connect`` fails.
    """
    check_not_called("url", url, "a str")
    given: dict[str, Any] = {**options}
    client = take_options(ClientOptions, given)
    flow = take_options(FlowOptions, given)
    dial = take_options(DialOptions, given)
    transport = client.transport or _NATIVE
    if flow.fragments:
        if client.subscriptions is not None:
            raise InvalidOption(
                "subscriptions need whole messages: use them without fragments=True"
            )
        _check_fragments(transport, socket)
        dial = replace(dial, fragments=True)
    if client.backoff is not None and isinstance(dial.stream, trio.abc.Stream):
        raise InvalidOption("reconnecting requires stream to be a function that opens a new stream")
    if client.transport is not None:
        _check_compresses(client.transport, dial)
    _check_heartbeat_rate(client.send_rate, flow)
    check_proxy(dial.proxy)
    # The URLs that a function returns are checked before each attempt.
    host = "client" if callable(url) else check_url(aim(dial, url, dial.additional_headers))
    shown = "" if callable(url) else without_user_info(url)
    dialer = Dialer(transport, dial, url, client.additional_headers, client.backoff)
    emitter = EventEmitter(client.name, of=host, url=shown, traced=client.trace)
    socket = check_socket(socket, codec=flow.codec)
    if client.subscriptions is not None:
        refuse_subscriptions(socket)
    session = Session(
        dialer,
        flow,
        socket,
        emitter,
        max_size=dial.max_size,
        send_rate=client.send_rate,
        subscriptions=client.subscriptions,
    )
    return ConnectionScope(session, Connection(session, shown))


def _check_heartbeat_rate(rate: Rate | None, flow: FlowOptions) -> None:
    """Raise InvalidOption if heartbeat messages alone would use up the send rate."""
    if rate is None or flow.heartbeat is None or flow.ping_interval is None:
        return
    if flow.ping_interval * rate.messages <= rate.window:
        raise InvalidOption(
            f"a heartbeat message every {seconds_text(flow.ping_interval)} (ping_interval) uses up "
            f"send_rate={rate}"
        )


def _check_fragments(transport: Transport, socket: Socket[Any, Any] | None) -> None:
    """Raise InvalidOption if fragments cannot be received."""
    if not transport.capabilities.fragments:
        raise InvalidOption(
            f"{type(transport).__name__} cannot receive fragments: with fragments=True use "
            "NativeTransport"
        )
    if isinstance(socket, Socket) and overrides(socket, Socket, "handle_receive"):
        raise InvalidOption(
            f"{type(socket).__name__}.handle_receive needs whole messages: with fragments=True use "
            "a Socket without it, and conn.receive_fragments()"
        )


def _check_compresses(transport: Transport, dial: DialOptions) -> None:
    settings = deflate_settings(dial.compression)
    if not (transport.capabilities.compression or settings is None or settings == DEFLATE):
        raise InvalidOption(
            f"{type(transport).__name__} has no compression, so it cannot use {settings}; "
            "use NativeTransport or leave out the compression option"
        )
