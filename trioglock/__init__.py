"""trioglock: WebSocket applications for trio.

A connection is an actor: you write hooks that take the state and return the next one, and the
framework handles the socket, tasks, timeouts and errors. See :func:`connect` and :class:`Socket`.
"""

from typing import TYPE_CHECKING

from ._version import __version__, version
from .client import ConnectOptions, Service, connect, run, supervise
from .connection import (
    BroadcastResult,
    Connection,
    Fragments,
    Statistics,
    Status,
    StatusReport,
    Subscriptions,
    Updates,
    broadcast,
)
from .disconnect import (
    Aborted,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    HookError,
    LocalClose,
    ProtocolViolation,
    RemoteClose,
    Stalled,
)
from .errors import (
    BadHookResult,
    BrokerError,
    BrokerUnavailable,
    CallTimeout,
    ConnectError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DecodeError,
    EncodeError,
    HandshakeRefused,
    InvalidFrame,
    InvalidHandshake,
    InvalidOption,
    InvalidURL,
    MessageInterrupted,
    OpenTimeout,
    ProxyFailed,
    ReconnectFailed,
    RedirectFailed,
    RequestFailed,
    RequestLost,
    RequestTimeout,
    RestartLimit,
    ServiceReturned,
    SlowConsumer,
    SubscriptionRefused,
    SubscriptionTimeout,
    TLSFailed,
    TrioglockError,
    UsageError,
)
from .frames import Close, Ping, Pong, PreparedMessage
from .gap import Gap
from .headers import Headers
from .hooks import ConnectionInfo, Deliver, Reconnect, Reply, Socket, Stop
from .http import Request, Response
from .options import Deflate, MessageHeartbeat, Rate, RequestFormat, StallTimeout
from .retry import Backoff, is_transient
from .server import ServeOptions, Server, serve, serve_forever
from .streams import WebSocketStream
from .transports import (
    Handshake,
    MemoryListener,
    MemoryTransport,
    NativeTransport,
    ServerTransport,
    Transport,
)

if TYPE_CHECKING:
    from .transports import TrioWebsocketTransport

__all__ = [
    "Aborted",
    "Backoff",
    "BadHookResult",
    "BroadcastResult",
    "BrokerError",
    "BrokerUnavailable",
    "CallTimeout",
    "Close",
    "ConnectError",
    "ConnectFailed",
    "ConnectOptions",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ConnectionInfo",
    "ConnectionLost",
    "DecodeError",
    "Deflate",
    "Deliver",
    "Disconnect",
    "EncodeError",
    "Fragments",
    "Gap",
    "Handshake",
    "HandshakeFailed",
    "HandshakeRefused",
    "Headers",
    "HeartbeatTimeout",
    "HookError",
    "InvalidFrame",
    "InvalidHandshake",
    "InvalidOption",
    "InvalidURL",
    "LocalClose",
    "MemoryListener",
    "MemoryTransport",
    "MessageHeartbeat",
    "MessageInterrupted",
    "NativeTransport",
    "OpenTimeout",
    "Ping",
    "Pong",
    "PreparedMessage",
    "ProtocolViolation",
    "ProxyFailed",
    "Rate",
    "Reconnect",
    "ReconnectFailed",
    "RedirectFailed",
    "RemoteClose",
    "Reply",
    "Request",
    "RequestFailed",
    "RequestFormat",
    "RequestLost",
    "RequestTimeout",
    "Response",
    "RestartLimit",
    "ServeOptions",
    "Server",
    "ServerTransport",
    "Service",
    "ServiceReturned",
    "SlowConsumer",
    "Socket",
    "StallTimeout",
    "Stalled",
    "Statistics",
    "Status",
    "StatusReport",
    "Stop",
    "SubscriptionRefused",
    "SubscriptionTimeout",
    "Subscriptions",
    "TLSFailed",
    "Transport",
    "TrioWebsocketTransport",
    "TrioglockError",
    "Updates",
    "UsageError",
    "WebSocketStream",
    "__version__",
    "broadcast",
    "connect",
    "is_transient",
    "run",
    "serve",
    "serve_forever",
    "supervise",
    "version",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import trio-websocket at its first use, because it takes a tenth of the import time."""
        if name != "TrioWebsocketTransport":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .transports import TrioWebsocketTransport  # noqa: PLC0415

        return TrioWebsocketTransport
