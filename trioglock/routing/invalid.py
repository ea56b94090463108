"""What a socket does about malformed messages: count them, and say so now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .._redact import redact_line, shorten

__all__ = ["InvalidMessages"]

_logger = logging.getLogger("trioglock.routing")

QUIET = 1.0
"""Seconds between two lines in the log: a hostile peer must not fill the disk."""


class InvalidMessages:
    """Counts malformed messages, and logs one of them in a second.

    Args:
        clock: seconds that only grow, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count: int = 0
        """How many there have been."""
        self._clock = clock
        self._logged = 0
        self._quiet_until = float("-inf")

    def note(self, error: Exception, frame: object) -> None:
        """One more."""
        self.count += 1
        now = self._clock()
        if now < self._quiet_until:
            return
        self._quiet_until = now + QUIET
        unlogged = self.count - self._logged - 1
        self._logged = self.count
        more = f", and {unlogged} before it" if unlogged else ""
        text = redact_line(f"{type(error).__name__}: {error}")[:200]
        _logger.warning("invalid message%s: %s: %s", more, text, shorten(frame))
