"""trioglock: WebSocket applications for trio.

A connection is an actor: you write its hooks, they thread its state, and the framework owns the
socket, the tasks, the clock and the failures. See :func:`connect` and :class:`Socket`.
"""

from .backoff import Backoff, is_transient
from .client import ConnectOptions, Service, connect, run, supervise
from .connection import Connection, Statistics, Status
from .errors import (
    BadHookResult,
    CallTimeout,
    ConnectError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    GaveUp,
    HandshakeRefused,
    InvalidFrame,
    InvalidHandshake,
    InvalidOption,
    InvalidURL,
    OpenTimeout,
    ProxyFailed,
    RedirectFailed,
    RestartLimit,
    ServiceReturned,
    TLSFailed,
    TrioglockError,
    UsageError,
)
from .frames import Close, Ping, Pong
from .headers import Headers
from .options import Beat
from .reasons import (
    Aborted,
    Crashed,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    LocalClose,
    Lost,
    RemoteClose,
    Violated,
)
from .socket import Deliver, Reconnect, Reply, Socket, Stop, Stream
from .transports import (
    Handshake,
    MemoryTransport,
    NativeTransport,
    Transport,
    TrioWebsocketTransport,
)
from .version import __version__

__all__ = [
    "Aborted",
    "Backoff",
    "BadHookResult",
    "Beat",
    "CallTimeout",
    "Close",
    "ConnectError",
    "ConnectFailed",
    "ConnectOptions",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Crashed",
    "Deliver",
    "Disconnect",
    "GaveUp",
    "Handshake",
    "HandshakeFailed",
    "HandshakeRefused",
    "Headers",
    "HeartbeatTimeout",
    "InvalidFrame",
    "InvalidHandshake",
    "InvalidOption",
    "InvalidURL",
    "LocalClose",
    "Lost",
    "MemoryTransport",
    "NativeTransport",
    "OpenTimeout",
    "Ping",
    "Pong",
    "ProxyFailed",
    "Reconnect",
    "RedirectFailed",
    "RemoteClose",
    "Reply",
    "RestartLimit",
    "Service",
    "ServiceReturned",
    "Socket",
    "Statistics",
    "Status",
    "Stop",
    "Stream",
    "TLSFailed",
    "Transport",
    "TrioWebsocketTransport",
    "TrioglockError",
    "UsageError",
    "Violated",
    "__version__",
    "connect",
    "is_transient",
    "run",
    "supervise",
]
