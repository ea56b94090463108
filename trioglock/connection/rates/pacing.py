"""The limiter of ``send_rate``: a strict sliding window, without I/O and without a clock."""

from __future__ import annotations

from collections import deque

from ...options import Rate

__all__ = ["Pacer"]


class Pacer:
    """Decides how many messages may be sent now.

    A message takes a *slot* before it is written. The slot becomes free again one window after the
    write has been accepted. The network delays every message, so two messages that take the same
    slot arrive at least one window apart at the peer, minus the variation of that delay.

    Args:
        rate: the limit.
    """

    __slots__ = ("_limit", "_taken", "_times", "_window")

    def __init__(self, rate: Rate) -> None:
        self._limit = rate.messages
        self._window = rate.window
        self._taken = 0  # messages that are being written
        self._times: deque[float] = deque()  # when the others were written

    def free(self, now: float) -> int:
        """Return the number of messages that may be sent now."""
        times = self._times
        while times and times[0] + self._window <= now:
            times.popleft()
        return self._limit - self._taken - len(times)

    def next_free(self, now: float) -> float | None:
        """Return when another slot becomes free; None if this depends on the end of a write."""
        self.free(now)
        return self._times[0] + self._window if self._times else None

    def take(self, count: int) -> None:
        """Take slots for messages whose writing begins now."""
        self._taken += count

    def written(self, count: int, now: float) -> None:
        """Record that messages that had slots were written."""
        self._taken -= count
        self._times.extend([now] * count)

    def interrupted(self, now: float) -> None:
        """Record the end of a link; messages being written may have reached the peer."""
        self.written(self._taken, now)
