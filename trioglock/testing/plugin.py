"""The pytest plugin: fixtures for tests that run with pytest-trio.

It registers by itself with trioglock installed; pytest-trio makes the fixtures work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .server import MockServer, echo

__all__ = ["echo_server", "mock_server"]


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
