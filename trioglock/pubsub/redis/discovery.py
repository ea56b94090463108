"""Finding the server of a hub by asking other servers, sentinels or the nodes of a cluster.

No library does this here. The one for trio (coredis 6.9) reads messages ahead into queues without a
limit, and cannot confirm the role of a server together with each write, as ``CommandPipeline``
does; to find an address on top of ``RedisConnection`` takes only one command.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ...errors import BrokerError
from .address import ClusterAddress, RedisAddress, SentinelAddress

__all__ = [
    "DISCOVERY_TIMEOUT",
    "MASTER_EVENTS",
    "ClusterDiscovery",
    "Discovery",
    "SentinelDiscovery",
    "open_discovery",
]

DISCOVERY_TIMEOUT = 1.0
"""Seconds for which one of the servers is asked."""


MASTER_EVENTS = ("+promoted-slave", "+switch-master")
"""The channels on which a sentinel reports a new master: the one that conducts the failover, and
the others."""

SLOTS = 2**14
"""Number of hash slots of a cluster."""


class NoServer(Exception):
    """There is no server for the hub at present."""


class Discovery(ABC):
    """The servers to ask, the question, and the latest answer. It does no I/O.

    Args:
        servers: the servers to ask.
    """

    question: tuple[str, ...]
    """The command to send to one server after the other, until one knows the answer."""

    def __init__(self, servers: Iterable[RedisAddress]) -> None:
        self.servers: tuple[RedisAddress, ...] = tuple(servers)
        """In the order in which they are asked. The one that answered is the first next time."""
        self.found: RedisAddress | None = None
        """The server of the hub, as last reported."""

    @abstractmethod
    def __str__(self) -> str:
        """The servers, without credentials."""

    @abstractmethod
    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        """Return the server of the hub, from the reply of a server to the question.

        Raises:
            BrokerError: the reply contains none.
            NoServer: there is none at present.
        """

    @abstractmethod
    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        """Describe why a server answered with an error."""

    def take_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        """Parse a reply, and remember the answer and the server that gave it."""
        self.found = self.parse_answer(server, reply)
        self.prefer(server)
        return self.found

    def prefer(self, server: RedisAddress) -> None:
        """Ask a server first next time."""
        self.servers = (server, *(one for one in self.servers if one != server))

    def distrust(self) -> None:
        """Ask the others first: the answer was wrong, so the server may be cut off from them."""
        self.servers = (*self.servers[1:], self.servers[0])


class SentinelDiscovery(Discovery):
    """Asks sentinels for the address of a master.

    https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, address: SentinelAddress) -> None:
        super().__init__(address.sentinels)
        self.address: SentinelAddress = address
        self.question: tuple[str, ...] = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.name)

    def __str__(self) -> str:
        return str(self.address)

    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:  # noqa: ARG002
        if not reply:
            raise BrokerError(f"it knows no master named {self.address.name!r}")
        try:
            host, port = (part.decode() for part in reply)
            return _move(self.address.master, host, port)
        except (ValueError, AttributeError, TypeError):
            raise BrokerError("it does not answer as a sentinel does") from None

    def parse_event(self, channel: bytes, payload: bytes) -> RedisAddress | None:
        """The address in an event of :data:`MASTER_EVENTS`, if it is about this master.

        Raises:
            BrokerError: there is no valid address.
        """
        words = payload.decode(errors="replace").split()
        match channel, words:
            case b"+switch-master", [name, _, _, host, port]:
                pass
            case b"+promoted-slave", [_, _, host, port, "@", name, _, _]:
                pass
            case _:
                return None
        if name != self.address.name:
            return None
        return self.parse_answer(self.servers[0], [host.encode(), port.encode()])

    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        if server.password is None and "uthenticat" in text:
            return (
                f"the sentinel at {server} requires a password: "
                "add ?sentinel_password=... to the URL"
            )
        if "unknown command" in text.lower():
            return f"{server} is not a Redis Sentinel"
        return f"the sentinel at {server}: {text}"


class ClusterDiscovery(Discovery):
    """Asks the nodes of a cluster for the master that serves the hash slot of a hub.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

    Args:
        address: some of the nodes. The others are asked too, as soon as they are known.
        hash_tag: the part of the hub's keys that determines their slot.
    """

    question: tuple[str, ...] = ("CLUSTER", "SLOTS")

    def __init__(self, address: ClusterAddress, hash_tag: str) -> None:
        super().__init__(address.nodes)
        self.address: ClusterAddress = address
        self.slot: int = binascii.crc_hqx(hash_tag.encode(), 0) % SLOTS

    def __str__(self) -> str:
        return str(self.address)

    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        nodes, found = list[RedisAddress](), None
        try:
            for first, last, *entries in reply:
                # Without a host, it is that of the server; the master is the first of each range.
                members = [
                    _move(server, host.decode() if host else server.host, port)
                    for host, port, *_ in entries
                ]
                nodes += members
                if first <= self.slot <= last:
                    found = members[0]
        except (ValueError, AttributeError, TypeError, IndexError):
            raise BrokerError("it does not answer as a node of a cluster does") from None
        self.servers: tuple[RedisAddress, ...] = tuple(dict.fromkeys((*nodes, *self.address.nodes)))
        if found is None:
            raise NoServer(f"no node of the cluster serves the slot {self.slot}")
        return found

    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        if "cluster support disabled" in text:
            return f"{server} does not belong to a cluster: use redis://{server}"
        return f"{server}: {text}"


def _move(address: RedisAddress, host: str, port: str | int) -> RedisAddress:
    """The same address on another host and port; raise ValueError if the port is invalid."""
    number = int(port)
    if not 0 < number < 2**16:
        raise ValueError("not a port")
    return replace(address, host=host, port=number)


def open_discovery(
    address: RedisAddress | SentinelAddress | ClusterAddress, hub: str
) -> RedisAddress | Discovery:
    """Return what finds the server of the hub with a name; the address of a server is returned."""
    match address:
        case SentinelAddress():
            return SentinelDiscovery(address)
        case ClusterAddress():
            return ClusterDiscovery(address, hub)
    return address
