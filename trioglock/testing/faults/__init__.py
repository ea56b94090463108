"""Faults of the network, for tests: a proxy that delays, damages and cuts what passes it."""

from .connection import ProxiedConnection
from .proxy import FaultProxy
from .script import Faults
from .target import Target
from .way import Change, Direction

__all__ = ["Change", "Direction", "FaultProxy", "Faults", "ProxiedConnection", "Target"]
