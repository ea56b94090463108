"""A Gossip network for tests: the server's side of Grapevine 2.x."""

from .game import MockGame
from .peer import MockGossipPeer
from .server import MockGossipServer

__all__ = ["MockGame", "MockGossipPeer", "MockGossipServer"]
