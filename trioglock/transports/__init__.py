"""How connections reach a network: two ports, their plugs, and the ways to and from it."""

from .addresses import check_url
from .base import Capabilities, Handshake, Link, LinkBroken, Transport
from .http_requests import Call, Refusal, answer, read_call
from .listeners import (
    MemoryListener,
    UnixListener,
    address_of,
    open_tcp,
    open_unix,
    port_of,
)
from .memory import MemoryLink, MemoryTransport, memory_link_pair
from .native import NativeLink, NativeTransport
from .negotiation import (
    Origins,
    SelectSubprotocol,
    ServerTransport,
    Upgrade,
    UpgradeOptions,
    negotiate,
)
from .proxies import check_proxy
from .tcp import describe_peer
from .trio_websocket import TrioWebsocketTransport

__all__ = [
    "Call",
    "Capabilities",
    "Handshake",
    "Link",
    "LinkBroken",
    "MemoryLink",
    "MemoryListener",
    "MemoryTransport",
    "NativeLink",
    "NativeTransport",
    "Origins",
    "Refusal",
    "SelectSubprotocol",
    "ServerTransport",
    "Transport",
    "TrioWebsocketTransport",
    "UnixListener",
    "Upgrade",
    "UpgradeOptions",
    "address_of",
    "answer",
    "check_proxy",
    "check_url",
    "describe_peer",
    "memory_link_pair",
    "negotiate",
    "open_tcp",
    "open_unix",
    "port_of",
    "read_call",
]
