"""How connections reach a network: one port, three plugs, and the way to a server."""

from .addresses import check_url, without_user_info
from .memory import MemoryLink, MemoryTransport, memory_link_pair
from .native import NativeLink, NativeTransport
from .port import Capabilities, Handshake, Link, LinkBroken, Transport
from .proxies import check_proxy
from .trio_websocket import TrioWebsocketTransport

__all__ = [
    "Capabilities",
    "Handshake",
    "Link",
    "LinkBroken",
    "MemoryLink",
    "MemoryTransport",
    "NativeLink",
    "NativeTransport",
    "Transport",
    "TrioWebsocketTransport",
    "check_proxy",
    "check_url",
    "memory_link_pair",
    "without_user_info",
]
