"""Transports, which connect trioglock to a network, and the handshake of a server.

Implement :class:`Transport` and :class:`Link`, or :class:`ServerTransport`, to add your own.
"""

from typing import TYPE_CHECKING

from .base import Capabilities, Handshake, Link, LinkBroken, Transport
from .http1 import ReceivedRequest, Refusal, read_request, send_response
from .listeners import (
    MemoryListener,
    UnixListener,
    address_of,
    describe_peer,
    open_tcp,
    open_unix,
    port_of,
)
from .memory import MemoryLink, MemoryTransport, memory_link_pair
from .native.link import NativeLink
from .native.transport import NativeTransport
from .negotiation import (
    Origins,
    SelectSubprotocol,
    ServerTransport,
    Upgrade,
    UpgradeOptions,
    negotiate,
)
from .proxies import check_proxy
from .urls import check_url

if TYPE_CHECKING:
    from .trio_websocket import TrioWebsocketTransport

__all__ = [
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
    "ReceivedRequest",
    "Refusal",
    "SelectSubprotocol",
    "ServerTransport",
    "Transport",
    "TrioWebsocketTransport",
    "UnixListener",
    "Upgrade",
    "UpgradeOptions",
    "address_of",
    "check_proxy",
    "check_url",
    "describe_peer",
    "memory_link_pair",
    "negotiate",
    "open_tcp",
    "open_unix",
    "port_of",
    "read_request",
    "send_response",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import trio-websocket only when it is used: it takes a tenth of the total import time."""
        if name != "TrioWebsocketTransport":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .trio_websocket import TrioWebsocketTransport  # noqa: PLC0415

        return TrioWebsocketTransport
