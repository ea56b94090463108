"""The pytest plugin: fixtures for pytest-trio.

Pytest loads it automatically if trioglock is installed.
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
    """A running :class:`MockServer` on a free local port, controlled by the test."""
    async with MockServer() as server:
        yield server


@pytest.fixture
async def echo_server() -> AsyncIterator[MockServer]:
    """A running :class:`MockServer` on a free local port that sends every message back."""
    async with MockServer(echo) as server:
        yield server


@pytest.fixture
async def mock_phoenix_server() -> AsyncIterator[MockPhoenixServer]:
    """A running :class:`MockPhoenixServer` on a free local port."""
    async with MockPhoenixServer() as server:
        yield server


@pytest.fixture
async def mock_gossip_server() -> AsyncIterator[MockGossipServer]:
    """A running :class:`MockGossipServer` on a free local port."""
    async with MockGossipServer() as server:
        yield server
