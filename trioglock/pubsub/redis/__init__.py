"""Hubs connected by a Redis server: see :class:`RedisBroker`."""

from .broker import RedisBroker
from .publish import publish

__all__ = ["RedisBroker", "publish"]
