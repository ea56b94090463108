"""The interfaces between a session and its links."""

from __future__ import annotations

from typing import Protocol

import trio

from ..disconnect import Disconnect, HeartbeatTimeout
from ..frames import Close, Violation
from ..hooks import Reconnect, Stop
from ..transports import Link

__all__ = ["LinkOwner", "LinkSource"]


class LinkSource(Protocol):
    """Opens the links of a session and decides whether to open another one.

    A client connects and reconnects; a server accepts exactly one link.
    """

    final_error: Exception | None
    """Why no other link follows, if the end of the last link does not explain it."""

    async def open(self, nursery: trio.Nursery) -> Link:
        """Open a link.

        Args:
            nursery: for background tasks of the link.

        Raises:
            ConnectError: the link could not be opened.
            Exception: raised by the user's functions for the URL or the headers.
        """

    def retries(self, reason: Disconnect) -> bool:
        """Whether the policy alone opens another link after ``reason``."""

    def next_delay(
        self,
        reason: Disconnect,
        decision: Reconnect | Stop | None,
        lasted: float,
        *,
        immediate: bool,
    ) -> float | None:
        """Return the seconds to wait before the next link, or None to end.

        Args:
            reason: why the last link, or attempt, ended.
            decision: the decision of ``handle_disconnect``.
            lasted: seconds that the link was open; 0 for a failed attempt.
            immediate: the user called ``reconnect()``, which does not count as an attempt.
        """


class LinkOwner(Protocol):
    """Receives the events of a link's tasks and decides what to do."""

    @property
    def is_open(self) -> bool:
        """Whether neither side has started to close this link."""

    @property
    def has_peer_closed(self) -> bool:
        """Whether the peer's Close frame was received."""

    def on_close_received(self, frame: Close) -> None:
        """Handle the peer's Close frame."""

    def on_violation(self, violation: Violation) -> None:
        """Handle a protocol violation by the peer."""

    def fail(self, error: BaseException) -> None:
        """Handle an exception raised by a user's function."""

    def on_write_failed(self) -> bool:
        """Handle a broken stream; return whether another link is expected."""

    def on_heartbeat_timeout(self, timeout: HeartbeatTimeout) -> None:
        """Handle a dead peer."""
