"""The route: where a session's links come from, and whether it wants another one.

This is the seam between a live connection, which knows sockets and hooks, and what surrounds it:
a client that dials and dials again, a server that accepts once.
"""

from __future__ import annotations

from typing import Protocol

import trio

from ..disconnect import Disconnect
from ..hooks import Reconnect, Stop
from ..transports import Link

__all__ = ["Route"]


class Route(Protocol):
    """Makes links and decides on the next one."""

    gave_up: Exception | None
    """Why there will be no further link, if it was not for the reason of the last one alone."""

    async def open(self, nursery: trio.Nursery) -> Link:
        """A new link; ``nursery`` is for tasks that it may need.

        Raises:
            ConnectError: see there.
            Exception: whatever the user's functions for URL and headers raise.
        """

    def retries(self, reason: Disconnect) -> bool:
        """Whether the policy alone would want another link after ``reason``."""

    def next_delay(
        self,
        reason: Disconnect,
        decision: Reconnect | Stop | None,
        lasted: float,
        *,
        immediate: bool,
    ) -> float | None:
        """Seconds to wait before the next link, or None to end.

        Args:
            reason: why the last link, or attempt, ended.
            decision: of ``handle_disconnect``.
            lasted: seconds that the link was open; 0 for an attempt that failed.
            immediate: the program has asked for another link: it costs the policy nothing.
        """
