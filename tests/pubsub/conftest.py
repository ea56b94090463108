"""Fixtures for tests of hubs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pubsub.redis_server import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A Redis server for one test."""
    with real_redis() as server:
        yield server
