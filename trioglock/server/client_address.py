"""The addresses of clients."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

import trio

from ..transports import describe_peer, peer_name

__all__ = ["ClientAddress", "IPAddress", "client_address"]

IPAddress: TypeAlias = IPv4Address | IPv6Address

HOST_BITS = 64
"""The part of an IPv6 address that a client may choose itself (RFC 4291, section 2.5.4)."""


class ClientAddress(NamedTuple):
    """The address of a client."""

    name: str
    """The value of :attr:`Request.peer`: ``"127.0.0.1:80"``, a path, or ""."""
    ip: IPAddress | None = None
    """None for Unix sockets and for streams that are not sockets."""

    @property
    def group(self) -> IPAddress | None:
        """What the client's limits apply to; None if it is exempt.

        This is an IPv4 address, or the first address of a /64 network of IPv6.
        """
        if isinstance(self.ip, IPv6Address):
            return IPv6Address(int(self.ip) >> HOST_BITS << HOST_BITS)
        return self.ip


def client_address(stream: trio.abc.Stream) -> ClientAddress:
    """Return the address of the peer of a stream."""
    name = peer_name(stream)
    return ClientAddress(describe_peer(stream), to_ip(name[0]) if isinstance(name, tuple) else None)


def to_ip(text: str) -> IPAddress:
    """Parse an address; one that is mapped to IPv6 is an IPv4 address.

    Raises:
        ValueError: it is malformed.
    """
    ip = ip_address(text)
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
