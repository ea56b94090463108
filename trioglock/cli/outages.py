"""Outages: what a console tells of them, from the events of the connection."""

from __future__ import annotations

from ..telemetry import (
    ConnectAttemptFailed,
    Connected,
    Event,
    EventListener,
    LinkClosed,
    ReconnectScheduled,
    listen,
)
from .console import Console, Mark
from .exits import words_of_failure

__all__ = ["telling_outages"]

SOON = 0.05
"""Seconds, below which nobody is told to wait."""


class Outages:
    """Says why there is no connection, when the next attempt is due, and when it is back.

    Args:
        console: that is told.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._why = ""

    def tell(self, event: Event) -> None:
        """An event of the connection."""
        match event:
            case ConnectAttemptFailed(error=error):
                self._why = words_of_failure(error)
            case LinkClosed(reason=reason):
                self._why = str(reason)
            case ReconnectScheduled(delay=delay):
                when = f"next attempt in {delay:.1f} s" if delay >= SOON else "trying again at once"
                self._console.post(Mark.STATUS, f"{self._why}; {when}".lstrip("; "))
            case Connected(upgrade=upgrade) if upgrade > 1:
                self._console.post(Mark.STATUS, "connected again")
            case _:
                pass


def telling_outages(console: Console) -> EventListener:
    """A block in which the console is told."""
    kinds = (ConnectAttemptFailed, LinkClosed, ReconnectScheduled, Connected)
    return listen(Outages(console).tell, *kinds)
