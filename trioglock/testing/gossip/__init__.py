"""A Gossip network for tests: the server's side of Grapevine 2.x."""

from .game import MockGossipGame
from .peer import MockGossipPeer
from .server import MockGossipServer

__all__ = ["MockGossipGame", "MockGossipPeer", "MockGossipServer"]
