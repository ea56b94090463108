"""Deadlines of closing: one total for the link, one for the hooks, that nothing extends."""

from __future__ import annotations

import math

import trio

__all__ = ["Deadlines"]

LINGER = 1.0
"""Seconds for the peer to end the stream after the closing handshake (RFC 6455, section 7.1.1),
and for a hook to have its say when the peer has used up the time."""


class Deadlines:
    """The cancel scopes of a connection's two sides: its present link, and its hooks.

    Args:
        close_timeout: seconds from the decision to close to the end; None for ever.
    """

    def __init__(self, close_timeout: float | None) -> None:
        self.link: trio.CancelScope = trio.CancelScope()
        self._timeout = math.inf if close_timeout is None else close_timeout
        self._hooks_end = math.inf
        self._hooks: trio.CancelScope | None = None

    def closing(self) -> float:
        """When closing must be over, if it begins now."""
        return trio.current_time() + self._timeout

    def new_link(self) -> trio.CancelScope:
        """A scope for another attempt, or for the pause before it."""
        self.link = trio.CancelScope()
        return self.link

    def limit_link(self) -> None:
        """The link begins to close; an earlier deadline stays."""
        self.link.deadline = min(self.link.deadline, self.closing())

    def lift_link(self) -> None:
        """The time that passes now is not the peer's."""
        self.link.deadline = math.inf

    def linger(self) -> None:
        """Both Close frames are out: a peer that keeps the stream open is not waited for long."""
        self.link.deadline = min(self.link.deadline, trio.current_time() + LINGER)

    def new_hooks(self, *, caught_up: bool) -> trio.CancelScope:
        """A scope for the hooks' last word on a link.

        Args:
            caught_up: no hook is behind: then it was the peer who used up the time, and a hook
                that does not dawdle is still heard.
        """
        end = self._hooks_end
        if caught_up:
            end = max(end, trio.current_time() + LINGER)
        self._hooks = trio.CancelScope(deadline=end)
        return self._hooks

    def limit_hooks(self) -> None:
        """The connection begins to close; an earlier deadline stays."""
        self._hooks_end = min(self._hooks_end, self.closing())
        if self._hooks is not None:
            self._hooks.deadline = self._hooks_end

    def cancel(self) -> None:
        """No time for anyone."""
        self.link.cancel()
        if self._hooks is not None:
            self._hooks.cancel()
