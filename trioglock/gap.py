"""Gaps: marks in a sequence of messages where some may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Gap"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may be missing here.

    The server or the broker was unreachable, or a queue or the history was too short.

    Args:
        seconds: time between the last sign of life before the loss of the connection and the new
            subscription; 0.0 for any other reason.
        id: position in the broker's history: the missing messages come before it, and a subscriber
            that resumes after it continues here. None without a history.
        channel: the channel of a hub, or the key of :meth:`Connection.subscribe
            <trioglock.Connection.subscribe>`, whose messages may be missing; None if it may be any.
    """

    seconds: float
    id: str | None = None
    channel: Any = None

    def __repr__(self) -> str:
        position = "" if self.id is None else f", id={self.id!r}"
        channel = "" if self.channel is None else f", channel={self.channel!r}"
        return f"Gap(seconds={self.seconds!r}{position}{channel})"
