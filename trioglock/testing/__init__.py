"""For tests, ours and yours: a mock server, a proxy with faults, and links in memory.

The transport conformance kit needs pytest, so it has a door of its own:
:mod:`trioglock.testing.conformance`.
"""

from ..transports import MemoryLink, MemoryTransport, memory_link_pair
from .faults import Change, Direction, FaultProxy, Faults, ProxiedConnection, Target
from .gossip import MockGossipGame, MockGossipPeer, MockGossipServer
from .phoenix import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin
from .server import Handler, MockPeer, MockServer, echo

__all__ = [
    "Change",
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
    "ProxiedConnection",
    "RefuseJoin",
    "Target",
    "echo",
    "memory_link_pair",
]
