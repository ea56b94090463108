"""A Redis server for the tests that ask for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pubsub.redis_server import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real server, for one test."""
    with real_redis() as server:
        yield server
