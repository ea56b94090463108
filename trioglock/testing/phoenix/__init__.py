"""A Phoenix endpoint for tests: as servers behave on the wire, and scriptable."""

from .channel import MockPhoenixChannel, MockTopic, RefuseJoin
from .server import MockPhoenixServer

__all__ = ["MockPhoenixChannel", "MockPhoenixServer", "MockTopic", "RefuseJoin"]
