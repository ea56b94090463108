"""Timeouts for peers."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from trioglock._timer import PeerTimeout, effective_deadline


async def test_without_pauses_it_is_an_ordinary_timeout(autojump_clock: MockClock) -> None:
    """Expired or not, nested, and without a limit."""
    began = trio.current_time()
    with PeerTimeout(3) as deadline:
        assert effective_deadline() == began + 3
        with PeerTimeout(10) as inner:
            await trio.sleep_forever()
    assert deadline.expired
    assert not inner.expired
    assert trio.current_time() - began == 3
    for seconds in (3, None):
        with PeerTimeout(seconds) as deadline:
            await trio.sleep(2)
        assert not deadline.expired
    with PeerTimeout(0) as deadline:
        await trio.sleep_forever()
    assert deadline.expired


@pytest.mark.slow
async def test_fault_01_pauses_of_the_program_do_not_count() -> None:
    """Neither one early in the timeout, nor one at its end."""
    for paused_after in (0.0, 0.19):
        with PeerTimeout(0.2) as deadline:
            await trio.sleep(paused_after)
            time.sleep(0.3)
            await trio.sleep(0.1 if paused_after == 0 else 0)
        assert not deadline.expired


async def test_a_deadline_can_be_moved(autojump_clock: MockClock) -> None:
    """Earlier, later and away."""
    with PeerTimeout(3) as deadline:
        deadline.move(trio.current_time() + 10)
        await trio.sleep(9)
        deadline.move(float("inf"))
        await trio.sleep(100)
        deadline.move(trio.current_time() + 1)
        await trio.sleep_forever()
    assert deadline.expired
    assert trio.current_time() == 110
