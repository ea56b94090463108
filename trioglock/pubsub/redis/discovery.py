"""Finding the server of a hub by asking sentinels or the nodes of a cluster.

This module does not use a library. coredis 6.9, the library for trio, reads messages ahead into
unbounded queues, and cannot check the role of a server with each write, as ``CommandPipeline``
does. With ``RedisConnection``, finding an address takes only one command.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeAlias

from ...errors import BrokerError
from .address import ClusterAddress, RedisAddress, SentinelAddress

__all__ = [
    "DISCOVERY_TIMEOUT",
    "MASTER_EVENTS",
    "ClusterDiscovery",
    "Discovery",
    "SentinelDiscovery",
    "ShardDiscovery",
    "open_discovery",
    "slot_of",
]

DISCOVERY_TIMEOUT = 1.0
"""Seconds to wait for the answer of one server."""


MASTER_EVENTS = ("+promoted-slave", "+switch-master")
"""The channels on which sentinels report a new master: the sentinel that performs the failover, and
the other sentinels."""

SLOTS = 2**14
"""Number of hash slots of a cluster."""

SlotRange: TypeAlias = tuple[int, int, RedisAddress]
"""The first and the last slot of a range, and its master."""


class NoServer(Exception):
    """There is currently no server for the hub."""


class Discovery(ABC):
    """The servers to ask, the command to send, and the latest answer. This class does no I/O.

    Args:
        servers: the servers to ask.
    """

    question: tuple[str, ...]
    """The command to send to one server after another, until one answers."""

    def __init__(self, servers: Iterable[RedisAddress]) -> None:
        self.servers: tuple[RedisAddress, ...] = tuple(servers)
        """The servers in the order in which they are asked: the last one that answered is first."""
        self.found: RedisAddress | None = None
        """The server of the hub, as last reported."""

    @abstractmethod
    def __str__(self) -> str:
        """The servers, without credentials."""

    @abstractmethod
    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        """Return the server of the hub that a reply to the question contains.

        Raises:
            BrokerError: the reply does not contain a server.
            NoServer: there is currently no server for the hub.
        """

    @abstractmethod
    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        """Describe why a server answered with an error."""

    def take_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        """Parse a reply, and store the answer and the server that sent it."""
        self.found = self.parse_answer(server, reply)
        self.prefer(server)
        return self.found

    def prefer(self, server: RedisAddress) -> None:
        """Ask this server first next time."""
        self.servers = (server, *(one for one in self.servers if one != server))

    def distrust(self) -> None:
        """Ask the other servers first, because the first one gave a wrong answer.

        That server may be cut off from the others.
        """
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
            raise BrokerError("its reply is not that of a sentinel") from None

    def parse_event(self, channel: bytes, payload: bytes) -> RedisAddress | None:
        """Return the address in an event of :data:`MASTER_EVENTS`; None for another master.

        Raises:
            BrokerError: the event contains no valid address.
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
        address: some of the nodes. Other nodes are also asked once they are known.
        hash_tag: the part of the hub's keys that determines their slot.
    """

    question: tuple[str, ...] = ("CLUSTER", "SLOTS")

    def __init__(self, address: ClusterAddress, hash_tag: str) -> None:
        super().__init__(address.nodes)
        self.address: ClusterAddress = address
        self.slot: int = slot_of(hash_tag)

    def __str__(self) -> str:
        return str(self.address)

    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        ranges = self.parse_ranges(server, reply)
        found = find_master(ranges, self.slot)
        if found is None:
            raise NoServer(f"no node of the cluster serves slot {self.slot}")
        return found

    def parse_ranges(self, server: RedisAddress, reply: Any) -> list[SlotRange]:
        """Return the ranges of slots in a reply, and store all nodes."""
        nodes, ranges = list[RedisAddress](), list[SlotRange]()
        try:
            for first, last, *entries in reply:
                # An empty host stands for the server's own host; the first entry of a range is its
                # master.
                members = [
                    _move(server, host.decode() if host else server.host, port)
                    for host, port, *_ in entries
                ]
                nodes += members
                ranges.append((int(first), int(last), members[0]))
        except (ValueError, AttributeError, TypeError, IndexError):
            raise BrokerError("its reply is not that of a node of a cluster") from None
        self.servers: tuple[RedisAddress, ...] = tuple(dict.fromkeys((*nodes, *self.address.nodes)))
        return ranges

    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        if "cluster support disabled" in text:
            return f"{server} does not belong to a cluster: use redis://{server}"
        return f"{server}: {text}"


class ShardDiscovery(ClusterDiscovery):
    """Asks the nodes of a cluster for the masters of all hash slots.

    Args:
        address: as in :class:`ClusterDiscovery`.
    """

    def __init__(self, address: ClusterAddress) -> None:
        super().__init__(address, "")
        self.ranges: list[SlotRange] = []
        """The latest answer, in order."""

    def parse_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        ranges = self.parse_ranges(server, reply)
        if not ranges:
            raise NoServer("no node of the cluster serves any slot")
        self.ranges = sorted(ranges, key=_first_slot)
        return server

    def master_of(self, slot: int) -> RedisAddress | None:
        """Return the master that serves a slot, if it is known."""
        index = bisect_right(self.ranges, slot, key=_first_slot)
        return find_master(self.ranges[index - 1 : index], slot)


_first_slot = itemgetter(0)


def slot_of(hash_tag: str) -> int:
    """Return the hash slot of the keys with a hash tag."""
    return binascii.crc_hqx(hash_tag.encode(), 0) % SLOTS


def find_master(ranges: Iterable[SlotRange], slot: int) -> RedisAddress | None:
    """Return the master that serves a slot, if there is one."""
    return next((master for first, last, master in ranges if first <= slot <= last), None)


def _move(address: RedisAddress, host: str, port: str | int) -> RedisAddress:
    """Return an address with another host and port; raise ValueError if the port is invalid."""
    number = int(port)
    if not 0 < number < 2**16:
        raise ValueError("not a port")
    return replace(address, host=host, port=number)


def open_discovery(
    address: RedisAddress | SentinelAddress | ClusterAddress, hub: str
) -> RedisAddress | Discovery:
    """Return the discovery of a hub's server; for a single server, its address."""
    match address:
        case SentinelAddress():
            return SentinelDiscovery(address)
        case ClusterAddress():
            return ClusterDiscovery(address, hub)
    return address
