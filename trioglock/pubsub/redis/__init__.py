"""Hubs connected by a Redis server: see :class:`RedisBroker`."""

from .blocking_publish import publish
from .broker import RedisBroker

__all__ = ["RedisBroker", "publish"]
