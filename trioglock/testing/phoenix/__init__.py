"""A Phoenix endpoint for tests: as servers behave on the wire, and scriptable."""

from .channel import MockPhoenixChannel, MockPhoenixRoom, RefuseJoin
from .server import MockPhoenixServer

__all__ = ["MockPhoenixChannel", "MockPhoenixRoom", "MockPhoenixServer", "RefuseJoin"]
