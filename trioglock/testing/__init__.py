"""For tests, ours and yours: a mock server and links in memory.

The transport conformance kit needs pytest, so it has a door of its own:
:mod:`trioglock.testing.conformance`.
"""

from ..transports import MemoryLink, MemoryTransport, memory_link_pair
from .server import Handler, MockPeer, MockServer, echo

__all__ = [
    "Handler",
    "MemoryLink",
    "MemoryTransport",
    "MockPeer",
    "MockServer",
    "echo",
    "memory_link_pair",
]
