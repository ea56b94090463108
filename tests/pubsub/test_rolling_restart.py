"""Clients with trioglock.js while the servers restart: the soak test, but small."""

from __future__ import annotations

import pytest

from tests.soak.browsers import soak

pytestmark = [pytest.mark.slow, pytest.mark.redis]


async def test_clients_miss_and_repeat_nothing_while_the_servers_restart() -> None:
    """Workers are replaced, one is killed, and Redis restarts, which clients see as a gap."""
    report, steps = await soak(clients=12, channels=3, rate=50, pause=0.2)
    assert report.published > 0
    assert report.is_complete, report
    assert steps[0].interrupted
    assert steps[0].gaps == steps[1].gaps == 0
