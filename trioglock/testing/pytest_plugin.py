"""The pytest plugin: fixtures for tests that run with pytest-trio.

It registers by itself with trioglock installed; pytest-trio makes the fixtures work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .gossip import MockGossipServer
from .phoenix import MockPhoenixServer
from .server import MockServer, echo

__all__ = ["echo_server", "mock_gossip_server", "mock_phoenix_server", "mock_server"]


@pytest.fixture
async def mock_server() -> AsyncIterator[MockServer]:
    """A running :class:`MockServer` on a free loopback port that the test scripts."""
    async with MockServer() as server:
        yield server


@pytest.fixture
async def echo_server() -> AsyncIterator[MockServer]:
    """A running :class:`MockServer` on a free loopback port that sends everything back."""
    async with MockServer(echo) as server:
        yield server


@pytest.fixture
async def mock_phoenix_server() -> AsyncIterator[MockPhoenixServer]:
    """A running :class:`MockPhoenixServer` on a free loopback port."""
    async with MockPhoenixServer() as server:
        yield server


@pytest.fixture
async def mock_gossip_server() -> AsyncIterator[MockGossipServer]:
    """A running :class:`MockGossipServer` on a free loopback port."""
    async with MockGossipServer() as server:
        yield server
