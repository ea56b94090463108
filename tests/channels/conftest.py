"""Fixtures of the tests of channels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.protocols.phoenix.test_javascript import node  # noqa: F401 - a fixture
from tests.pubsub.redis_server import RealRedis, real_redis


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A Redis server for one test."""
    with real_redis() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use Redis."""
    for item in items:
        if "redis" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.redis)
