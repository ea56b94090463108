"""Hubs that meet at a Redis server: see :class:`RedisBroker`."""

from .blocking import publish
from .broker import RedisBroker

__all__ = ["RedisBroker", "publish"]
