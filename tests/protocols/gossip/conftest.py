"""A mock network in memory, and callbacks that record their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.protocols.gossip.helpers import Recorder
from trioglock.testing import MockGossipServer


@pytest.fixture
async def server() -> AsyncIterator[MockGossipServer]:
    async with MockGossipServer(memory=True) as server:
        yield server


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
