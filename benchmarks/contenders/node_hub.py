"""A server on Node.js with the packages ``redis`` and ``ws``, and one SUBSCRIBE per channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..job import Job
from ..node_packages import NODE_DIRECTORY, install_node_packages
from ..redis_server import RedisServer, check_redis
from .hub_hosting import PREFIX, HubHosting

__all__ = ["CONTENDER"]


class NodeHub(HubHosting):
    """Node.js with its defaults."""

    directory: Path | None = NODE_DIRECTORY

    def command(self, redis: RedisServer, job: Job) -> Sequence[str]:
        return "node", "hub.js", redis.url, PREFIX


check_redis()
install_node_packages("redis")

CONTENDER = NodeHub()
