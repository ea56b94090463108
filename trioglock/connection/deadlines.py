"""The deadlines for closing: one for the link, one for the hooks. Neither is ever extended."""

from __future__ import annotations

import math

import trio

__all__ = ["Deadlines"]

LINGER = 1.0
"""Seconds for the peer to end the stream after the closing handshake (RFC 6455, section 7.1.1),
and for ``handle_disconnect`` to run after the peer has used up the close timeout."""


class Deadlines:
    """The cancel scopes of a connection's current link and of its hooks.

    Args:
        close_timeout: seconds from the start of the close to its end; None for no limit.
    """

    def __init__(self, close_timeout: float | None) -> None:
        self.link: trio.CancelScope = trio.CancelScope()
        self._timeout = math.inf if close_timeout is None else close_timeout
        self._hooks_end = math.inf
        self._hooks: trio.CancelScope | None = None

    def close_deadline(self) -> float:
        """Return the time at which a close that starts now must be complete."""
        return trio.current_time() + self._timeout

    def new_link(self) -> trio.CancelScope:
        """Create the scope of an attempt, or of the delay before it."""
        self.link = trio.CancelScope()
        return self.link

    def limit_link(self) -> None:
        """Start the close timeout of the link; an earlier deadline stays."""
        self.link.deadline = min(self.link.deadline, self.close_deadline())

    def lift_link(self) -> None:
        """Remove the deadline of the link."""
        self.link.deadline = math.inf

    def linger(self) -> None:
        """Limit the wait for the peer to end the stream after both Close frames were sent."""
        self.link.deadline = min(self.link.deadline, trio.current_time() + LINGER)

    def new_hooks(self, *, caught_up: bool) -> trio.CancelScope:
        """Create the scope in which ``handle_disconnect`` runs.

        Args:
            caught_up: whether no job waits for the hooks. If so, only the peer can have used up the
                close timeout, and the hook still gets :data:`LINGER` seconds.
        """
        end = self._hooks_end
        if caught_up:
            end = max(end, trio.current_time() + LINGER)
        self._hooks = trio.CancelScope(deadline=end)
        return self._hooks

    def limit_hooks(self) -> None:
        """Start the close timeout of the hooks; an earlier deadline stays."""
        self._hooks_end = min(self._hooks_end, self.close_deadline())
        if self._hooks is not None:
            self._hooks.deadline = self._hooks_end

    def cancel(self) -> None:
        """Cancel both scopes."""
        self.link.cancel()
        if self._hooks is not None:
            self._hooks.cancel()
