"""A mock network in memory, and callbacks that record their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.protocols.gossip.helpers import Recorder, open_client
from trioglock.protocols import gossip
from trioglock.testing import MockGossipServer


@pytest.fixture
async def server() -> AsyncIterator[MockGossipServer]:
    async with MockGossipServer(memory=True) as server:
        yield server


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def client(server: MockGossipServer, recorder: Recorder) -> AsyncIterator[gossip.Client]:
    """A client of the server with all flags, whose callbacks are the recorder's."""
    async with open_client(server, recorder) as client:
        yield client
