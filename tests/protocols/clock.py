"""Marks that select the clock of all tests of a module, or of one test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def _run(test: Callable[[], Awaitable[object]], **options: Any) -> None:
    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(test, **options)


MOCK_CLOCK = pytest.mark.trio(run=_run)
"""A clock that jumps to the next deadline when all tasks wait."""

REAL_CLOCK = pytest.mark.trio(run=trio.run)
"""The real clock, for a test with real sockets."""
