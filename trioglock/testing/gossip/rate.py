"""The rate limit of the mock network: a bucket that leaks."""

from __future__ import annotations

import trio

__all__ = ["Rate"]

PATIENCE = 5
"""Events over the limit before the server hangs up."""


class Rate:
    """Counts the events of one client.

    Args:
        limit: how many at once, and how many in a second; None for any number.
    """

    def __init__(self, limit: tuple[int, float] | None) -> None:
        self._limit = limit
        self._level = 0.0
        self._at = 0.0
        self._over = 0

    def count(self) -> str | None:
        """One more; the server's error if it is one too many."""
        if self._limit is None:
            return None
        burst, per_second = self._limit
        now = trio.current_time()
        self._level = max(0.0, self._level - (now - self._at) * per_second)
        self._at = now
        if self._level + 1 <= burst:
            self._level += 1
            return None
        self._over += 1
        return "rate limit exceeded, goodbye" if self._over > PATIENCE else "rate limit exceeded"
