"""For tests, ours and yours: a mock server, links in memory, and the transport conformance kit."""

from ..transports import MemoryLink, MemoryTransport, memory_link_pair
from .conformance import TransportConformance
from .server import Handler, MockPeer, MockServer, echo

__all__ = [
    "Handler",
    "MemoryLink",
    "MemoryTransport",
    "MockPeer",
    "MockServer",
    "TransportConformance",
    "echo",
    "memory_link_pair",
]
