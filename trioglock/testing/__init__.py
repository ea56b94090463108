"""Tools for tests: mock servers, a proxy that simulates a bad network, and in-memory links.

The conformance tests for transports need pytest; they are in
:mod:`trioglock.testing.conformance`.
"""

from ..transports import MemoryLink, MemoryTransport, memory_link_pair
from .faults import (
    Direction,
    FaultProxy,
    Faults,
    OpenStream,
    ProxiedConnection,
    ProxyTarget,
    Transform,
)
from .gossip import MockGossipGame, MockGossipPeer, MockGossipServer
from .phoenix import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin
from .server import Handler, MockPeer, MockServer, echo

__all__ = [
    "Direction",
    "FaultProxy",
    "Faults",
    "Handler",
    "MemoryLink",
    "MemoryTransport",
    "MockGossipGame",
    "MockGossipPeer",
    "MockGossipServer",
    "MockPeer",
    "MockPhoenixChannel",
    "MockPhoenixServer",
    "MockServer",
    "MockTopic",
    "OpenStream",
    "ProxiedConnection",
    "ProxyTarget",
    "RefuseJoin",
    "Transform",
    "echo",
    "memory_link_pair",
]
