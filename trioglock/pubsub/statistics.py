"""Figures of a hub."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "HubStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """What a hub has done so far.

    Args:
        subscribers: that listen now: browsers, iterations and listeners.
        channels: that have a subscriber now, patterns aside.
        received: messages that came from the broker.
        delivered: messages handed to a subscriber; one message to ten subscribers counts as ten.
        dropped: of these, the ones that a subscriber was too slow for.
        disconnected: browsers that were closed for being too slow.
        gaps: times that the broker was lost and found again.
        failures: times that a listener raised.
    """

    subscribers: int
    channels: int
    received: int
    delivered: int
    dropped: int
    disconnected: int
    gaps: int
    failures: int


@dataclass(slots=True)
class Counters:
    """A hub's figures, to which its subscribers add."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    disconnected: int = 0
    gaps: int = 0
    failures: int = 0
