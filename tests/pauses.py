"""A program that is blocked, in a fraction of the time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

__all__ = ["PAUSING_CLOCK", "block"]

# Meanwhile other threads and processes answer.
REAL_SECONDS = 0.2


def _run(test: Callable[[], Awaitable[object]], **options: Any) -> None:
    options["clock"] = MockClock(rate=1)
    trio.run(test, **options)


PAUSING_CLOCK = pytest.mark.trio(run=_run)
"""The clock of a test that calls :func:`block`; it runs as the real clock does."""


def block(seconds: float) -> None:
    """Block the program for this time, of which most is skipped."""
    time.sleep(REAL_SECONDS)
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds - REAL_SECONDS)
