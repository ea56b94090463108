"""Marks: what a line in a terminal begins with, so that it tells what it is."""

from __future__ import annotations

from enum import Enum

__all__ = ["Mark"]


class Mark(Enum):
    """A sign and its style; none of them depends on the time."""

    RECEIVED = ("<", "green")
    """What the peer has sent."""
    SENT = (">", "cyan")
    """What was sent to it."""
    CONTROL = ("~", "magenta")
    """Control frames: pings and their round trips, a close that was asked for."""
    STATUS = ("*", "blue")
    """How the connection stands."""
    PROBLEM = ("!", "bold red")
    """What went wrong."""
    TRACE = (":", "bright_black")
    """A step of the connection."""

    @property
    def sign(self) -> str:
        """One character."""
        return self.value[0]

    @property
    def style(self) -> str:
        """As rich names it."""
        return self.value[1]
