"""Finding the server of a hub by asking other servers, such as sentinels.

No library does this here. The one for trio (coredis 6.9) reads messages ahead into queues without a
limit, and cannot confirm the role of a server together with each write, as ``CommandPipeline``
does; to find an address on top of ``RedisConnection`` takes only one command.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ...errors import BrokerError
from .address import RedisAddress, SentinelAddress

__all__ = ["DISCOVERY_TIMEOUT", "MASTER_EVENTS", "Discovery", "SentinelDiscovery", "open_discovery"]

DISCOVERY_TIMEOUT = 1.0
"""Seconds for which one of the servers is asked."""


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
    def parse_answer(self, reply: Any) -> RedisAddress:
        """Return the server of the hub, from the reply to the question.

        Raises:
            BrokerError: the reply contains none.
        """

    @abstractmethod
    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        """Describe why a server answered with an error."""

    def take_answer(self, server: RedisAddress, reply: Any) -> RedisAddress:
        """Parse a reply, and remember the answer and the server that gave it."""
        self.found = self.parse_answer(reply)
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
        self.question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.name)

    def __str__(self) -> str:
        return str(self.address)

    def parse_answer(self, reply: Any) -> RedisAddress:
        if not reply:
            raise BrokerError(f"it knows no master named {self.address.name!r}")
        try:
            host, port = (part.decode() for part in reply)
            return self._master_at(host, port)
        except (ValueError, AttributeError, TypeError):
            raise BrokerError("it does not answer as a sentinel does") from None

    def _master_at(self, host: str, port: str) -> RedisAddress:
        """The address of a master, with the credentials."""
        return replace(self.address.master, host=host, port=int(port))

    def parse_event(self, channel: bytes, payload: bytes) -> RedisAddress | None:
        """The address in an event of :data:`MASTER_EVENTS`, if it is about this master."""
        words = payload.decode(errors="replace").split()
        match channel, words:
            case b"+switch-master", [name, _, _, host, port]:
                pass
            case b"+promoted-slave", [_, _, host, port, "@", name, _, _]:
                pass
            case _:
                return None
        return self._master_at(host, port) if name == self.address.name else None

    def describe_refusal(self, server: RedisAddress, text: str) -> str:
        if server.password is None and "uthenticat" in text:
            return (
                f"the sentinel at {server} requires a password: "
                "add ?sentinel_password=... to the URL"
            )
        if "unknown command" in text.lower():
            return f"{server} is not a Redis Sentinel"
        return f"the sentinel at {server}: {text}"


MASTER_EVENTS = ("+promoted-slave", "+switch-master")
"""The channels on which a sentinel reports a new master: the one that conducts the failover, and
the others."""


def open_discovery(address: RedisAddress | SentinelAddress) -> RedisAddress | Discovery:
    """Return what finds the server of a hub; an address of a server finds itself."""
    return SentinelDiscovery(address) if isinstance(address, SentinelAddress) else address
