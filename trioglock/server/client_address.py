"""The addresses of clients, and the networks of trusted proxies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple, TypeAlias

import trio

from .._hints import describe_value
from ..errors import InvalidOption
from ..transports.listeners import format_peer, peer_name

__all__ = [
    "ClientAddress",
    "IPAddress",
    "IPNetwork",
    "Networks",
    "check_networks",
    "client_address",
    "make_address",
]

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

Networks: TypeAlias = str | IPNetwork | Sequence[str | IPNetwork]
"""One or several networks, such as ``"10.0.0.0/8"``, or addresses."""

HOST_BITS = 64
"""Number of bits in an IPv6 address that a client can choose itself (RFC 4291, section 2.5.4)."""

MAX_PORT = 2**16 - 1


class ClientAddress(NamedTuple):
    """The address of a client."""

    name: str
    """The value of :attr:`Request.peer`: ``"127.0.0.1:80"``, a path, or ""."""
    ip: IPAddress | None = None
    """None for sockets of other address families and for streams that are not sockets."""
    is_unix: bool = False
    """Whether the client has connected to a Unix socket."""

    @property
    def group(self) -> IPAddress | None:
        """The address to which per-address limits apply; None if the client is exempt.

        This is an IPv4 address, or the first address of an IPv6 /64 network.
        """
        if isinstance(self.ip, IPv6Address):
            return IPv6Address(int(self.ip) >> HOST_BITS << HOST_BITS)
        return self.ip

    def is_in(self, networks: Iterable[IPNetwork]) -> bool:
        """Whether the client is in one of the networks, or uses a Unix socket of this host."""
        return self.is_unix or any(self.ip in network for network in networks if self.ip)


def client_address(stream: trio.abc.Stream) -> ClientAddress:
    """Return the address of the peer of a stream."""
    name = peer_name(stream)
    text = format_peer(name)
    if isinstance(name, tuple):
        try:
            return ClientAddress(text, _plain(ip_address(str(name[0]))))
        except ValueError:
            return ClientAddress(text)  # of another family, such as AF_VSOCK
    return ClientAddress(text, is_unix=name is not None)


def make_address(host: str | bytes, port: int | None = None) -> ClientAddress:
    """Return the address of a client, as reported by a proxy.

    Args:
        host: the address as text, or its 4 or 16 bytes.
        port: the TCP port, if it is known.

    Raises:
        ValueError: the host or the port is invalid.
    """
    ip = _plain(ip_address(host))
    name = f"[{ip}]" if isinstance(ip, IPv6Address) else str(ip)
    if port is None:
        return ClientAddress(name, ip)
    if port > MAX_PORT:
        raise ValueError(f"{port} is not a port")
    return ClientAddress(f"{name}:{port}", ip)


def _plain(ip: IPAddress) -> IPAddress:
    """Return the IPv4 address in an IPv4-mapped IPv6 address, and other addresses unchanged."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _check_mapped(network: IPNetwork) -> IPNetwork:
    """Refuse a network that never matches because IPv4-mapped addresses become IPv4."""
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{network} contains IPv4 addresses, so it must be an IPv4 network")
    return network


def check_networks(name: str, networks: Networks, otherwise: str = "") -> tuple[IPNetwork, ...]:
    """Check the networks given for the option called ``name``.

    Raises:
        InvalidOption: one is not a network. The message adds ``otherwise`` to the valid values.
    """
    one = isinstance(networks, str | IPv4Network | IPv6Network)
    checked = []
    for network in [networks] if one else networks if isinstance(networks, Iterable) else ():
        try:
            if not isinstance(network, str | IPv4Network | IPv6Network):
                raise ValueError(describe_value(network))
            checked.append(_check_mapped(ip_network(network)))
        except ValueError as error:
            raise InvalidOption(
                f"{name} must be networks such as '10.0.0.0/8'{otherwise}; invalid: {error}"
            ) from None
    if not checked:
        raise InvalidOption(
            f"{name} must be networks such as '10.0.0.0/8'{otherwise}, not "
            f"{describe_value(networks)}"
        )
    return tuple(checked)
